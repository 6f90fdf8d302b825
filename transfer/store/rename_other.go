//go:build !linux && !darwin

package store

import "os"

// renameNew looks first and renames then. Linux and macOS do it in one step.
func renameNew(_ *os.Root, _ string, _ *os.Root, _ string, slow func() error) error { return slow() }
