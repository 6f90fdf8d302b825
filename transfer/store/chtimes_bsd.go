//go:build unix && !linux

package store

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// chtimes sets the time of an open file to the microsecond, the finest that can
// be had by descriptor here.
func chtimes(f *os.File, t time.Time) error {
	tv := []unix.Timeval{unix.NsecToTimeval(time.Now().UnixNano()), unix.NsecToTimeval(t.UnixNano())}
	return os.NewSyscallError("futimes", unix.Futimes(int(f.Fd()), tv))
}
