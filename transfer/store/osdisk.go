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
	"sync/atomic"
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
	self *os.File // the folder, to flush its file system: it hears of all errors since it was opened

	// Handles of the directories that were used last, so that a file deep in
	// a tree does not cost a walk from the top each time. mu is held to read
	// while one is in use, so that none is closed meanwhile.
	mu    sync.RWMutex
	dirs  map[string]*dirHandle
	clock atomic.Uint64
}

// A dirHandle is a directory that is open.
type dirHandle struct {
	root *os.Root
	file *os.File      // the same, for calls that os.Root does not have; nil where there are none
	used atomic.Uint64 // OSDisk.clock then
}

func (h *dirHandle) close() {
	// Nothing was written through them that Close could lose.
	_ = h.root.Close()
	if h.file != nil {
		_ = h.file.Close()
	}
}

// maxDirs bounds the directories that are open at once. With their files they
// must leave room for others under a limit of 64 descriptors.
const maxDirs = 8

// OpenDisk opens a folder that exists. If it is given by a symbolic link, the
// link is followed now and never again.
func OpenDisk(dir string) (*OSDisk, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &DiskError{Op: "open", Path: dir, Err: err}
	}
	self, err := root.Open(".")
	if err != nil {
		_ = root.Close() // nothing was done with it
		return nil, &DiskError{Op: "open", Path: dir, Err: err}
	}
	return &OSDisk{path: dir, root: root, self: self, dirs: make(map[string]*dirHandle)}, nil
}

// Path implements Disk.
func (d *OSDisk) Path() string { return d.path }

// Close implements Disk.
func (d *OSDisk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget("")
	return errors.Join(d.self.Close(), d.root.Close())
}

// Forget implements Disk.
func (d *OSDisk) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget("")
}

// forget closes the cached handles of a directory and of all that is in it; all
// for "". Called with mu held to write.
func (d *OSDisk) forget(name string) {
	for k, h := range d.dirs {
		if name == "" || k == name || strings.HasPrefix(k, name+"/") {
			h.close()
			delete(d.dirs, k)
		}
	}
}

// in calls f with the directory that name lies in, and its last component.
func (d *OSDisk) in(name string, f func(dir *os.Root, base string) error) error {
	return d.inHandle(name, func(h *dirHandle, base string) error { return f(h.root, base) })
}

func (d *OSDisk) inHandle(name string, f func(dir *dirHandle, base string) error) error {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	inner := f
	f = func(h *dirHandle, base string) error {
		err := inner(h, base)
		var p *fs.PathError
		if errors.As(err, &p) && p.Path == base {
			p.Path = name // as a person knows it
		}
		return err
	}
	if base == "." || base == "" || base == ".." || strings.HasPrefix(name, "/") {
		return fmt.Errorf("store: internal error: the name %q", name)
	}
	if dir == "" {
		return f(&dirHandle{root: d.root, file: d.self}, base)
	}
	for range 100 { // it may be pushed out again before it is used
		d.mu.RLock()
		if h := d.dirs[dir]; h != nil {
			h.used.Store(d.clock.Add(1))
			err := f(h, base)
			d.mu.RUnlock()
			return err
		}
		d.mu.RUnlock()
		if err := d.open(dir); err != nil {
			return err
		}
	}
	return errors.New("too many directories in use at once")
}

// open puts a handle of a directory into d.dirs. It walks down from the nearest
// directory that is open, one component at a time, and no component may be a
// symbolic link: os.Root follows those that stay inside.
func (d *OSDisk) open(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs[dir] != nil {
		return nil
	}
	at, done := d.root, 0 // dir[:done] is open as at
	for end := len(dir); end > 0; end = strings.LastIndexByte(dir[:end], '/') {
		if h := d.dirs[dir[:end]]; h != nil {
			at, done = h.root, end+1
			break
		}
	}
	var own *os.Root // at, if it is to be closed
	for rest := dir[done:]; rest != ""; {
		base, tail, _ := strings.Cut(rest, "/")
		next, err := openDir(at, base)
		if own != nil {
			_ = own.Close() // only walked through
		}
		if err != nil {
			return err
		}
		at, own, rest = next, next, tail
	}
	h := &dirHandle{root: at}
	h.used.Store(d.clock.Add(1))
	if err := h.prepare(); err != nil {
		_ = at.Close() // not used
		return err
	}
	if len(d.dirs) >= maxDirs {
		oldest := ""
		for k, h := range d.dirs {
			if oldest == "" || h.used.Load() < d.dirs[oldest].used.Load() {
				oldest = k
			}
		}
		d.dirs[oldest].close()
		delete(d.dirs, oldest)
	}
	d.dirs[dir] = h
	return nil
}

// openDir opens a directory in another, if it is one and no link to one.
func openDir(at *os.Root, base string) (*os.Root, error) {
	li, err := at.Lstat(base)
	if err != nil {
		return nil, err
	}
	if !li.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: base, Err: errNotDir}
	}
	r, err := at.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	fi, err := r.Stat(".")
	if err != nil || !os.SameFile(li, fi) {
		_ = r.Close() // it was exchanged meanwhile
		return nil, errors.Join(err, &fs.PathError{Op: "open", Path: base, Err: errNotDir})
	}
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

// Create implements Disk.
func (d *OSDisk) Create(name string, p []byte, mode fs.FileMode, mtime time.Time) error {
	return d.inHandle(name, func(dir *dirHandle, base string) error { return create(dir, base, p, mode, mtime) })
}

// Rename implements Disk.
func (d *OSDisk) Rename(oldname, newname string) error {
	err := d.in(oldname, func(from *os.Root, oldbase string) error {
		return d.in(newname, func(to *os.Root, newbase string) error {
			return renameNew(from, oldbase, to, newbase, func() error { return d.renameSlow(oldname, newname, to, newbase) })
		})
	})
	if err == nil {
		d.mu.Lock()
		d.forget(oldname) // a handle of what went must not be used for what comes
		d.mu.Unlock()
	}
	return err
}

// renameSlow is for systems that cannot rename without replacing. A file gets
// its second name in one step, and loses the first then. For a directory we look
// first: in the moment between the two another program could take the name, but
// a directory replaces nothing but an empty one.
func (d *OSDisk) renameSlow(oldname, newname string, to *os.Root, newbase string) error {
	if _, err := to.Lstat(newbase); err == nil {
		return &fs.PathError{Op: "rename", Path: newname, Err: fs.ErrExist}
	}
	if i, err := d.root.Lstat(oldname); err == nil && i.Mode().IsRegular() {
		err := d.root.Link(oldname, newname)
		if err == nil {
			return d.root.Remove(oldname)
		}
		if errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return d.root.Rename(oldname, newname)
}

// Replace implements Disk.
func (d *OSDisk) Replace(oldname, newname string) error {
	if path.Dir(oldname) != path.Dir(newname) {
		return fmt.Errorf("store: internal error: replace %q by %q", newname, oldname)
	}
	return d.in(oldname, func(dir *os.Root, oldbase string) error { return dir.Rename(oldbase, path.Base(newname)) })
}

// Remove implements Disk.
func (d *OSDisk) Remove(name string) error {
	d.mu.Lock()
	d.forget(name) // a handle of what goes must not be used for what comes
	d.mu.Unlock()
	return d.in(name, func(dir *os.Root, base string) error { return dir.Remove(base) })
}

// SetMeta implements Disk.
func (d *OSDisk) SetMeta(name string, mode fs.FileMode, mtime time.Time) error {
	return d.in(name, func(dir *os.Root, base string) error {
		if i, err := dir.Lstat(base); err != nil {
			return err
		} else if i.Mode().Type()&^fs.ModeDir != 0 { // Chmod follows links
			return &fs.PathError{Op: "chmod", Path: name, Err: errNotFile}
		}
		if err := dir.Chmod(base, mode); err != nil {
			return err
		}
		return dir.Chtimes(base, time.Time{}, mtime)
	})
}

// Sync implements Disk.
func (d *OSDisk) Sync(name string) error {
	if name == "." {
		return syncName(d.root, ".")
	}
	return d.in(name, syncName)
}

// SyncAll implements Disk.
func (d *OSDisk) SyncAll() error { return syncAll(d.self) }

// Free implements Disk.
func (d *OSDisk) Free() (size, files int64) { return free(d.self) }

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
	// Who held it may have finished, and removed it, while we opened it.
	fi, err := f.Stat()
	if err == nil {
		err = d.in(name, func(dir *os.Root, base string) error {
			li, err := dir.Lstat(base)
			if err == nil && !li.Mode().IsRegular() {
				return errNotFile
			}
			if err == nil && !os.SameFile(li, fi) {
				err = &LockedError{Path: filepath.Join(d.path, filepath.FromSlash(path.Dir(name)))}
			}
			return err
		})
	}
	if err != nil {
		_ = f.Close() // only a lock on nothing
		return nil, err
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
