//go:build darwin || freebsd || netbsd

package manifest

import (
	"io/fs"
	"syscall"
)

func statSys(fi fs.FileInfo, s *Stat) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.CTime = int64(st.Ctimespec.Sec)*1e9 + int64(st.Ctimespec.Nsec)
		s.Dev, s.Ino = uint64(st.Dev), uint64(st.Ino)
	}
}
