//go:build !linux

package store

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

const openFlags = 0

func create(dir *dirHandle, base string, p []byte, mode fs.FileMode, mtime time.Time) error {
	of, err := dir.root.OpenFile(base, os.O_RDWR|os.O_CREATE|os.O_EXCL|openFlags, 0o600)
	if err != nil {
		return err
	}
	f := osFile{of}
	if _, err = f.WriteAt(p, 0); err == nil {
		err = f.SetMeta(mode, mtime)
	}
	return errors.Join(err, f.Close())
}

// allocate gives the file its size if it has less; Open has compared the sizes
// with the free space before.
func allocate(f *os.File, size int64) error {
	if i, err := f.Stat(); err != nil || i.Size() >= size {
		return err
	}
	return f.Truncate(size)
}

func syncFile(f *os.File) error { return f.Sync() }

// syncAll is not to be had: the store flushes file by file.
func syncAll(*os.File) error { return errors.ErrUnsupported }

// bootID is only known on Linux. Elsewhere no two runs are taken for the same
// boot, so what an earlier run has left is hashed again in the background.
func bootID(*os.File) string { return "" }
