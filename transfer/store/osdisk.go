package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// quote makes a path of this machine, in which foreign names may stand, fit to
// be shown.
func quote(s string) string {
	q := strconv.QuoteToGraphic(s)
	if q == `"`+s+`"` && !strings.Contains(s, " ") {
		return s
	}
	return q
}

// An OSDisk is a real folder. It is opened once; what happens to its name
// afterwards does not matter.
type OSDisk struct {
	path string
	root *os.Root

	// Handles of the directories that were used last, so that a file deep in
	// a tree does not cost a walk from the top each time. mu is held to read
	// while one is in use, so that none is closed meanwhile.
	mu   sync.RWMutex
	dirs map[string]*os.Root
}

const maxDirs = 32

// OpenDisk opens a folder that exists.
func OpenDisk(dir string) (*OSDisk, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &DiskError{Op: "open", Path: dir, Err: err}
	}
	return &OSDisk{path: dir, root: root, dirs: make(map[string]*os.Root)}, nil
}

// Path implements Disk.
func (d *OSDisk) Path() string { return d.path }

// Close implements Disk.
func (d *OSDisk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
	return d.root.Close()
}

// forget closes the cached directories. Called with mu held to write.
func (d *OSDisk) forget() {
	for k, r := range d.dirs {
		_ = r.Close() // nothing was written through it that Close could lose
		delete(d.dirs, k)
	}
}

// in calls f with the directory that name lies in, and its last component.
func (d *OSDisk) in(name string, f func(dir *os.Root, base string) error) error {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if base == "." || base == "" || base == ".." {
		return fmt.Errorf("internal error: the name %q", name)
	}
	if dir == "." {
		return f(d.root, base)
	}
	for range 100 { // it may be pushed out again before it is used
		d.mu.RLock()
		if r := d.dirs[dir]; r != nil {
			err := f(r, base)
			d.mu.RUnlock()
			return err
		}
		d.mu.RUnlock()
		d.mu.Lock()
		_, err := d.open(dir)
		d.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return errors.New("too many directories in use at once")
}

// open returns a handle of a directory, and makes sure that no component of its
// name is a symbolic link: os.Root follows those that stay inside. Called with
// mu held to write.
func (d *OSDisk) open(dir string) (*os.Root, error) {
	if dir == "." {
		return d.root, nil
	}
	if r := d.dirs[dir]; r != nil {
		return r, nil
	}
	parent, base := path.Split(dir)
	up, err := d.open(path.Clean(parent))
	if err != nil {
		return nil, err
	}
	li, err := up.Lstat(base)
	if err != nil {
		return nil, err
	}
	if !li.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: errNotDir}
	}
	r, err := up.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	fi, err := r.Stat(".")
	if err != nil || !os.SameFile(li, fi) {
		_ = r.Close()
		return nil, errors.Join(err, &fs.PathError{Op: "open", Path: dir, Err: errNotDir})
	}
	if len(d.dirs) >= maxDirs {
		d.forget()
		_ = r.Close()
		return d.open(dir) // its parents were forgotten too
	}
	d.dirs[dir] = r
	return r, nil
}

var (
	errNotDir  = errors.New("is not a directory")
	errNotFile = errors.New("is not a regular file")
)

// OpenFile implements Disk.
func (d *OSDisk) OpenFile(name string, flag int) (f File, err error) {
	err = d.in(name, func(dir *os.Root, base string) error {
		of, err := dir.OpenFile(base, flag|openFlags, 0o600)
		if err != nil {
			return err
		}
		if flag&os.O_EXCL == 0 { // what was there must be a file, and no link to one
			fi, err := of.Stat()
			li, lerr := dir.Lstat(base)
			if err == nil && (lerr != nil || !fi.Mode().IsRegular() || !os.SameFile(fi, li)) {
				err = &fs.PathError{Op: "open", Path: name, Err: errNotFile}
			}
			if err != nil {
				_ = of.Close()
				return err
			}
		}
		f = &osFile{of}
		return nil
	})
	return f, err
}

// Mkdir implements Disk.
func (d *OSDisk) Mkdir(name string) error {
	return d.in(name, func(dir *os.Root, base string) error { return dir.Mkdir(base, 0o700) })
}

// Symlink implements Disk.
func (d *OSDisk) Symlink(target, name string) error {
	return d.in(name, func(dir *os.Root, base string) error { return dir.Symlink(target, base) })
}

// Readlink implements Disk.
func (d *OSDisk) Readlink(name string) (target string, err error) {
	err = d.in(name, func(dir *os.Root, base string) error {
		target, err = dir.Readlink(base)
		return err
	})
	return target, err
}

// Lstat implements Disk.
func (d *OSDisk) Lstat(name string) (i Info, err error) {
	err = d.in(name, func(dir *os.Root, base string) error {
		fi, err := dir.Lstat(base)
		if err == nil {
			i = infoOf(fi)
		}
		return err
	})
	return i, err
}

func infoOf(fi fs.FileInfo) Info {
	return Info{Stat: manifest.StatOf(fi), Mode: fi.Mode(), Nlink: nlink(fi)}
}

// Names implements Disk.
func (d *OSDisk) Names(name string, max int) ([]string, error) {
	if name == "." {
		return namesOf(d.root, ".", max)
	}
	var names []string
	err := d.in(name, func(dir *os.Root, base string) (err error) {
		names, err = namesOf(dir, base, max)
		return err
	})
	return names, err
}

func namesOf(dir *os.Root, base string, max int) ([]string, error) {
	f, err := dir.Open(base)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(max)
	if max > 0 && len(names) == 0 && err != nil {
		err = nil // the end of the directory
	}
	return names, err
}

// Rename implements Disk.
func (d *OSDisk) Rename(oldname, newname string) error {
	return d.in(oldname, func(from *os.Root, oldbase string) error {
		return d.in(newname, func(to *os.Root, newbase string) error {
			return renameNew(from, oldbase, to, newbase, func() error {
				if _, err := to.Lstat(newbase); err == nil {
					return &fs.PathError{Op: "rename", Path: newname, Err: fs.ErrExist}
				}
				return d.root.Rename(oldname, newname)
			})
		})
	})
}

// Remove implements Disk.
func (d *OSDisk) Remove(name string) error {
	d.mu.Lock()
	d.forget() // a handle of what goes must not be used for what comes
	d.mu.Unlock()
	return d.in(name, func(dir *os.Root, base string) error { return dir.Remove(base) })
}

// SetMeta implements Disk.
func (d *OSDisk) SetMeta(name string, mode fs.FileMode, mtime time.Time) error {
	return d.in(name, func(dir *os.Root, base string) error {
		if err := dir.Chmod(base, mode); err != nil {
			return err
		}
		return dir.Chtimes(base, time.Time{}, mtime)
	})
}

// SyncDir implements Disk.
func (d *OSDisk) SyncDir(name string) error {
	if name == "." {
		return syncDir(d.root, ".")
	}
	return d.in(name, func(dir *os.Root, base string) error { return syncDir(dir, base) })
}

// SyncAll implements Disk.
func (d *OSDisk) SyncAll() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return syncAll(f)
}

// Free implements Disk.
func (d *OSDisk) Free() int64 {
	f, err := d.root.Open(".")
	if err != nil {
		return -1
	}
	defer f.Close()
	return free(f)
}

// BootID implements Disk.
func (d *OSDisk) BootID() string { return bootID() }

// Lock implements Disk.
func (d *OSDisk) Lock(name string) (unlock func() error, err error) {
	var f *os.File
	err = d.in(name, func(dir *os.Root, base string) (err error) {
		f, err = dir.OpenFile(base, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		owner := make([]byte, 200)
		n, _ := f.ReadAt(owner, 0)
		_ = f.Close()
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		return nil, &LockedError{Path: filepath.Join(d.path, filepath.FromSlash(path.Dir(name))), Owner: ownerText(owner[:n])}
	}
	host, _ := os.Hostname() // only told to people
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host)
	}
	return f.Close, nil
}

// ownerText returns the first line of a lock file, fit to be shown.
func ownerText(p []byte) string {
	s, _, _ := strings.Cut(string(p), "\n")
	if q := strconv.QuoteToGraphic(s); q != `"`+s+`"` {
		return q
	}
	return s
}

type osFile struct{ *os.File }

func (f *osFile) Allocate(size int64) error { return allocate(f.File, size) }

func (f *osFile) Sync() error { return syncFile(f.File) }

func (f *osFile) Info() (Info, error) {
	fi, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

func (f *osFile) SetMeta(mode fs.FileMode, mtime time.Time) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return chtimes(f.File, mtime)
}
