//go:build unix

package manifest

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// The walk goes from directory to directory by descriptor, so that nobody can lead
// it elsewhere by putting a link in its way, and small files are read without
// os.File, which costs as much as the system calls themselves.

// ignoreEINTR calls f until a signal no longer interrupts it.
func ignoreEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func infoOf(st *unix.Stat_t) info {
	i := info{
		perm: fs.FileMode(st.Mode & 0o777),
		sec:  int64(st.Mtim.Sec),
		nsec: int64(st.Mtim.Nsec),
		uid:  st.Uid,
		stat: Stat{
			Size:  st.Size,
			MTime: int64(st.Mtim.Sec)*1e9 + int64(st.Mtim.Nsec),
			CTime: int64(st.Ctim.Sec)*1e9 + int64(st.Ctim.Nsec),
			Dev:   uint64(st.Dev),
			Ino:   uint64(st.Ino),
		},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		i.typ = fs.ModeDir
	case unix.S_IFLNK:
		i.typ = fs.ModeSymlink
	case unix.S_IFIFO:
		i.typ = fs.ModeNamedPipe
	case unix.S_IFSOCK:
		i.typ = fs.ModeSocket
	case unix.S_IFCHR, unix.S_IFBLK:
		i.typ = fs.ModeDevice
	default:
		i.typ = fs.ModeIrregular
	}
	return i
}

// A dirHandle is an open directory.
type dirHandle struct {
	f  *os.File
	fd int
}

// openTop opens a directory that the user named; links on the way are followed.
func openTop(path string) (dirHandle, error) {
	return openDirAt(unix.AT_FDCWD, path, path, 0)
}

// open opens the directory name in d; it does not follow a link.
func (d dirHandle) open(name, path string) (dirHandle, error) {
	return openDirAt(d.fd, name, path, unix.O_NOFOLLOW)
}

func openDirAt(at int, name, path string, flags int) (dirHandle, error) {
	var fd int
	err := ignoreEINTR(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return dirHandle{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return dirHandle{os.NewFile(uintptr(fd), path), fd}, nil
}

func (d dirHandle) names() ([]string, error) { return d.f.Readdirnames(-1) }

func (d dirHandle) close() { d.f.Close() }

func (d dirHandle) stat() (info, error) { return fstat(d.fd, d.f.Name()) }

// lstat returns the info of name in d; it does not follow a link.
func (d dirHandle) lstat(name, path string) (info, error) {
	var st unix.Stat_t
	err := ignoreEINTR(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return info{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return infoOf(&st), nil
}

func (d dirHandle) readlink(name, path string) (string, error) {
	buf := make([]byte, 256)
	for {
		var n int
		err := ignoreEINTR(func() (err error) {
			n, err = unix.Readlinkat(d.fd, name, buf)
			return err
		})
		if err != nil {
			return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

var euid = uint32(os.Geteuid())

// readable returns nil if this process may read the file name in d.
func (d dirHandle) readable(name string, i *info) error {
	if euid == 0 || i.uid == euid && i.perm&0o400 != 0 {
		return nil // what else may forbid it is seen when it is read
	}
	return ignoreEINTR(func() error { return unix.Faccessat(d.fd, name, unix.R_OK, unix.AT_EACCESS) })
}

// A fileHandle is a file that is open for reading.
type fileHandle int

const noFile fileHandle = -1

// openFile opens a file. It neither follows a link at its end nor waits for the
// other end of a pipe.
func openFile(path string) (fileHandle, error) {
	var fd int
	err := ignoreEINTR(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if err != nil {
		return noFile, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fileHandle(fd), nil
}

func fstat(fd int, path string) (info, error) {
	var st unix.Stat_t
	if err := ignoreEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return info{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return infoOf(&st), nil
}

func (f fileHandle) stat(path string) (info, error) { return fstat(int(f), path) }

// readAt fills p from off on; io.ErrUnexpectedEOF means that the file ends before.
func (f fileHandle) readAt(path string, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(int(f), p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return &fs.PathError{Op: "read", Path: path, Err: err}
		case n <= 0:
			return io.ErrUnexpectedEOF
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (f fileHandle) close() { unix.Close(int(f)) }
