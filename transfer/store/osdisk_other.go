//go:build !linux

package store

import (
	"errors"
	"os"
)

const openFlags = 0

// renameNew looks first and renames then: in the moment between the two another
// program could take the name. Linux does it in one step.
func renameNew(_ *os.Root, _ string, _ *os.Root, _ string, slow func() error) error { return slow() }

// allocate gives the file its size; Open has compared the sizes with the free
// space before.
func allocate(f *os.File, size int64) error { return f.Truncate(size) }

func syncFile(f *os.File) error { return f.Sync() }

// syncAll is not to be had: the store flushes file by file.
func syncAll(*os.File) error { return errors.ErrUnsupported }

// bootID is only known on Linux. Elsewhere no two runs are taken for the same
// boot, so what an earlier run has left is hashed again in the background.
func bootID() string { return "" }
