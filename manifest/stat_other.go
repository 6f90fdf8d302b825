//go:build !(linux || openbsd || dragonfly || solaris || illumos || aix || darwin || freebsd || netbsd)

package manifest

import "io/fs"

func statSys(fs.FileInfo, *Stat) {}
