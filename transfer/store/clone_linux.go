package store

import (
	"os"

	"golang.org/x/sys/unix"
)

func (f *osFile) cloneRange(src File, off, dst, n int64) error {
	from, ok := src.(*osFile)
	if !ok {
		return unix.EXDEV
	}
	return os.NewSyscallError("ficlonerange", unix.IoctlFileCloneRange(int(f.Fd()), &unix.FileCloneRange{
		Src_fd: int64(from.Fd()), Src_offset: uint64(off), Src_length: uint64(n), Dest_offset: uint64(dst),
	}))
}
