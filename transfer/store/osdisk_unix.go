//go:build unix

package store

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("locked")

func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return os.NewSyscallError("flock", err)
}

func nlink(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// errQuota is what a system says when a user may write no more.
var errQuota error = unix.EDQUOT

func free(dir *os.File) (size, files int64) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return -1, -1
	}
	blocks, blockSize := uint64(st.Bavail), uint64(st.Bsize)
	if blockSize != 0 && blocks > math.MaxInt64/blockSize {
		size = math.MaxInt64
	} else {
		size = int64(blocks * blockSize)
	}
	files = -1 // it makes inodes as it needs them
	if st.Files != 0 {
		files = int64(min(uint64(st.Ffree), math.MaxInt64))
	}
	return size, files
}

// syncName flushes a directory or a file with its metadata.
func syncName(dir *os.Root, base string) error {
	f, err := dir.OpenFile(base, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// renameOver renames a file, and takes the place of one that has the name.
func renameOver(from *os.Root, oldbase string, to *os.Root, newbase string, _ func() error) error {
	a, err := from.Open(".")
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.Open(".")
	if err != nil {
		return err
	}
	defer b.Close()
	if err := unix.Renameat(int(a.Fd()), oldbase, int(b.Fd()), newbase); err != nil {
		return &os.LinkError{Op: "rename", Old: oldbase, New: newbase, Err: err}
	}
	return nil
}
