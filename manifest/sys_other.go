//go:build !unix

package manifest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

func infoOf(fi fs.FileInfo) info {
	mtime := fi.ModTime()
	return info{
		typ:  fi.Mode().Type(),
		perm: fi.Mode().Perm(),
		sec:  mtime.Unix(),
		nsec: int64(mtime.Nanosecond()),
		stat: StatOf(fi),
	}
}

// A dirHandle is an open directory. Here it is found by its path each time; that it
// is still the same is checked when it is opened.
type dirHandle struct {
	f    *os.File
	path string
}

// openTop opens a directory that the user named; links on the way are followed.
func openTop(path string) (dirHandle, error) {
	f, err := os.Open(path)
	if err != nil {
		return dirHandle{}, err
	}
	return dirHandle{f, path}, nil
}

// open opens the directory name in d; it does not follow a link.
func (d dirHandle) open(name, path string) (dirHandle, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return dirHandle{}, err
	}
	sub, err := openTop(path)
	if err != nil {
		return dirHandle{}, err
	}
	now, err := sub.f.Stat()
	if err == nil && !os.SameFile(before, now) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it was replaced meanwhile")}
	}
	if err != nil {
		sub.close()
		return dirHandle{}, err
	}
	return sub, nil
}

func (d dirHandle) names() ([]string, error) { return d.f.Readdirnames(-1) }

func (d dirHandle) close() { d.f.Close() }

func (d dirHandle) stat() (info, error) {
	fi, err := d.f.Stat()
	if err != nil {
		return info{}, err
	}
	return infoOf(fi), nil
}

func (d dirHandle) lstat(name, path string) (info, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return info{}, err
	}
	return infoOf(fi), nil
}

func (d dirHandle) readlink(name, path string) (string, error) {
	target, err := os.Readlink(path)
	return filepath.ToSlash(target), err
}

func (d dirHandle) readable(name string, i *info) error {
	return nil // seen when it is read
}

// A fileHandle is a file that is open for reading.
type fileHandle struct{ f *os.File }

var noFile fileHandle

func openFile(path string) (fileHandle, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return noFile, err
	}
	if !before.Mode().IsRegular() {
		return noFile, &ChangedError{path, "it is now a " + typeName(before.Mode().Type())}
	}
	f, err := os.Open(path)
	if err != nil {
		return noFile, err
	}
	return fileHandle{f}, nil
}

func (f fileHandle) stat(path string) (info, error) {
	fi, err := f.f.Stat()
	if err != nil {
		return info{}, err
	}
	return infoOf(fi), nil
}

func (f fileHandle) readAt(path string, p []byte, off int64) error {
	n, err := f.f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (f fileHandle) close() { f.f.Close() }
