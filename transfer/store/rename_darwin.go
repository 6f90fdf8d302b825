package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func renameNew(from *os.Root, oldbase string, to *os.Root, newbase string, slow func() error) error {
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
	err = unix.RenameatxNp(int(a.Fd()), oldbase, int(b.Fd()), newbase, unix.RENAME_EXCL)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return slow() // a file system that cannot do it in one step
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldbase, New: newbase, Err: err}
	}
	return nil
}
