package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

var errLocked = errors.New("locked")

func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return os.NewSyscallError("LockFileEx", err)
}

func nlink(fs.FileInfo) int { return 1 }

func free(dir *os.File) int64 {
	var n uint64
	name, err := windows.UTF16PtrFromString(dir.Name())
	if err != nil || windows.GetDiskFreeSpaceEx(name, &n, nil, nil) != nil {
		return -1
	}
	return int64(min(n, 1<<62))
}

// syncDir does nothing: the system has no such call, and journals its names.
func syncDir(*os.Root, string) error { return nil }

func chtimes(f *os.File, t time.Time) error {
	ft := windows.NsecToFiletime(t.UnixNano())
	return os.NewSyscallError("SetFileTime", windows.SetFileTime(windows.Handle(f.Fd()), nil, nil, &ft))
}
