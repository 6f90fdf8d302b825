package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func renameNew(from *os.Root, oldbase string, to *os.Root, newbase string, slow func() error) error {
	err := renameatx(from, oldbase, to, newbase, unix.RENAME_EXCL)
	if errors.Is(err, errors.ErrUnsupported) {
		return slow() // a file system that cannot do it in one step
	}
	return err
}

func exchange(a *os.Root, abase string, b *os.Root, bbase string) error {
	return renameatx(a, abase, b, bbase, unix.RENAME_SWAP)
}

// renameatx renames with flags. Its error is errors.ErrUnsupported where the file
// system does not know them.
func renameatx(from *os.Root, oldbase string, to *os.Root, newbase string, flags uint32) error {
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
	err = unix.RenameatxNp(int(a.Fd()), oldbase, int(b.Fd()), newbase, flags)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return errors.ErrUnsupported
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldbase, New: newbase, Err: err}
	}
	return nil
}
