//go:build linux || openbsd || dragonfly || solaris || illumos || aix

package manifest

import (
	"io/fs"
	"syscall"
)

func statSys(fi fs.FileInfo, s *Stat) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.CTime = int64(st.Ctim.Sec)*1e9 + int64(st.Ctim.Nsec)
		s.Dev, s.Ino = uint64(st.Dev), uint64(st.Ino)
	}
}
