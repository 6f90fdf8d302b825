package manifest

import (
	"io/fs"
	"time"
)

// A Stat is what tells that a file is still the one it was, without reading it.
// Two equal values mean so as far as the system can say.
type Stat struct {
	Size         int64
	MTime, CTime int64 // ns since 1970; CTime is 0 where the system has none
	Dev, Ino     uint64
}

// StatOf returns the Stat of a file's info as os.Stat, os.Lstat and File.Stat give it.
func StatOf(fi fs.FileInfo) Stat {
	s := Stat{Size: fi.Size(), MTime: fi.ModTime().UnixNano()}
	statSys(fi, &s)
	return s
}

// diff says in what now differs from s, or returns "".
func (s Stat) diff(now Stat) string {
	switch {
	case s == now:
		return ""
	case s.Dev != now.Dev || s.Ino != now.Ino:
		return "it is another file"
	case s.Size != now.Size:
		return "it has another size"
	case s.MTime != now.MTime:
		return "it was written to"
	}
	return "it, its mode or its links were changed"
}

// info is what the walk and the readers need of a file.
type info struct {
	typ  fs.FileMode // type bits
	perm fs.FileMode
	sec  int64
	nsec int64
	uid  uint32
	stat Stat
}

func (i *info) entryTime() (sec int64, nsec uint32) {
	switch {
	case i.sec < 0:
		return 0, 0
	case i.sec > MaxSec:
		return MaxSec, 999_999_999
	}
	return i.sec, uint32(i.nsec)
}

// clampTime returns the time that an entry has for a file that was modified at t.
func clampTime(t time.Time) time.Time {
	i := info{sec: t.Unix(), nsec: int64(t.Nanosecond())}
	sec, nsec := i.entryTime()
	return time.Unix(sec, int64(nsec))
}

// typeName names a file type for people.
func typeName(typ fs.FileMode) string {
	switch {
	case typ.IsRegular():
		return "file"
	case typ&fs.ModeDir != 0:
		return "directory"
	case typ&fs.ModeSymlink != 0:
		return "symbolic link"
	case typ&fs.ModeNamedPipe != 0:
		return "named pipe"
	case typ&fs.ModeSocket != 0:
		return "socket"
	case typ&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}
