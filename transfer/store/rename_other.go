//go:build !linux && !darwin

package store

import (
	"errors"
	"os"
)

// renameNew looks first and renames then. Linux and macOS do it in one step.
func renameNew(_ *os.Root, _ string, _ *os.Root, _ string, slow func() error) error { return slow() }

// exchange is for Linux and macOS only: elsewhere two renames do it.
func exchange(*os.Root, string, *os.Root, string) error { return errors.ErrUnsupported }
