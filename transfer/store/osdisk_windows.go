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

// errQuota is what the system says when a user may write no more.
var errQuota error = windows.ERROR_DISK_QUOTA_EXCEEDED

func free(dir *os.File) (size, files int64) {
	var n uint64
	name, err := windows.UTF16PtrFromString(dir.Name())
	if err != nil || windows.GetDiskFreeSpaceEx(name, &n, nil, nil) != nil {
		return -1, -1
	}
	return int64(min(n, 1<<62)), -1
}

// syncName flushes a file; for directories the system has no such call, and
// journals their names. A read-only file cannot be opened to be flushed: it is
// left to the system, which writes it within seconds.
func syncName(dir *os.Root, base string) error {
	if i, err := dir.Lstat(base); err != nil || !i.Mode().IsRegular() || i.Mode()&0o200 == 0 {
		return err
	}
	f, err := dir.OpenFile(base, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func chtimes(f *os.File, t time.Time) error {
	ft := windows.NsecToFiletime(t.UnixNano())
	return os.NewSyscallError("SetFileTime", windows.SetFileTime(windows.Handle(f.Fd()), nil, nil, &ft))
}

func renameOver(_ *os.Root, _ string, _ *os.Root, _ string, slow func() error) error { return slow() }
