//go:build unix

package reuse_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// special makes a pipe, which to read would never end.
func special(t testing.TB, name string) { must(t, unix.Mkfifo(name, 0o644)) }
