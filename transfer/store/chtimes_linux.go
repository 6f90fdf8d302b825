package store

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func chtimes(f *os.File, t time.Time) error {
	return os.NewSyscallError("utimensat", futimens(f.Fd(), t))
}

// futimens sets the time of an open file to the nanosecond: utimensat without a
// path, which package unix does not offer.
func futimens(fd uintptr, t time.Time) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_NOW}, unix.NsecToTimespec(t.UnixNano())}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, fd, 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
