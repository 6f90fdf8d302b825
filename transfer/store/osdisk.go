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
	self *os.File // the folder, to flush its file system: it hears of all errors since it was opened

	// Handles of the directories that were used last, so that a file deep in
	// a tree does not cost a walk from the top each time. mu is never held over
	// a system call: two writers would wait for each other in a tree of small folders.
	mu    sync.Mutex
	dirs  map[string]*dirHandle
	clock uint64
	gen   uint64 // how often something was forgotten
}

// A dirHandle is a directory that is open. The disk's mu guards refs, used and kept.
type dirHandle struct {
	root *os.Root
	once sync.Once
	file *os.File // the same, for calls that os.Root does not have; nil until fd has run, and where there are none
	err  error
	refs int
	used uint64 // OSDisk.clock then
	kept bool   // it is in OSDisk.dirs; else the last who uses it closes it
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
	d.forget("")
	d.mu.Unlock()
	return errors.Join(d.self.Close(), d.root.Close())
}

// Forget implements Disk.
func (d *OSDisk) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget("")
}

// forget drops the cached handles of a directory and of all that is in it; all
// for "". Called with mu held.
func (d *OSDisk) forget(name string) {
	d.gen++
	for k, h := range d.dirs {
		if name == "" || k == name || strings.HasPrefix(k, name+"/") {
			d.drop(k, h)
		}
	}
}

// drop takes a handle out of the cache. Called with mu held.
func (d *OSDisk) drop(dir string, h *dirHandle) {
	delete(d.dirs, dir)
	h.kept = false
	if h.refs == 0 {
		h.close()
	}
}

// in calls f with the directory that name lies in, and its last component.
func (d *OSDisk) in(name string, f func(dir *os.Root, base string) error) error {
	return d.inHandle(name, func(h *dirHandle, base string) error { return f(h.root, base) })
}

// inBoth is in for two names at once.
func (d *OSDisk) inBoth(oldname, newname string, f func(from *os.Root, oldbase string, to *os.Root, newbase string) error) error {
	return d.in(oldname, func(from *os.Root, oldbase string) error {
		return d.in(newname, func(to *os.Root, newbase string) error { return f(from, oldbase, to, newbase) })
	})
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
	h, err := d.use(dir)
	if err != nil {
		return err
	}
	defer d.unuse(h)
	return f(h, base)
}

// use opens a directory, or finds it open; unuse must follow. It begins at the
// nearest directory above that is open, and no component may be a symbolic link:
// os.Root follows those that stay inside.
func (d *OSDisk) use(dir string) (*dirHandle, error) {
	if dir == "" {
		return &dirHandle{root: d.root, file: d.self, kept: true}, nil
	}
	d.mu.Lock()
	h, gen := d.dirs[dir], d.gen
	if h != nil {
		d.touch(h)
	} else { // what lies above is of more use than what lies beside
		for end := strings.LastIndexByte(dir, '/'); end > 0; end = strings.LastIndexByte(dir[:end], '/') {
			if above := d.dirs[dir[:end]]; above != nil {
				d.clock++
				above.used = d.clock
			}
		}
	}
	d.mu.Unlock()
	if h != nil {
		return h, nil
	}

	up, base := path.Split(dir)
	above, err := d.use(strings.TrimSuffix(up, "/"))
	if err != nil {
		return nil, err
	}
	root, err := openDir(above.root, base)
	d.unuse(above)
	if err != nil {
		return nil, err
	}
	h = &dirHandle{root: root}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch other := d.dirs[dir]; {
	case other != nil: // somebody else was faster
		h.close()
		h = other
	case d.gen == gen: // else the name may stand for something else now
		d.dirs[dir], h.kept = h, true
	}
	d.touch(h)
	for len(d.dirs) > maxDirs && d.evict() {
	}
	return h, nil
}

// touch notes that h is used by one more. Called with mu held.
func (d *OSDisk) touch(h *dirHandle) {
	d.clock++
	h.used = d.clock
	h.refs++
}

// evict drops the handle that was not used for longest, and reports whether there
// was one that nobody uses now. Called with mu held.
func (d *OSDisk) evict() bool {
	oldest := ""
	for k, h := range d.dirs {
		if h.refs == 0 && (oldest == "" || h.used < d.dirs[oldest].used) {
			oldest = k
		}
	}
	if oldest == "" {
		return false
	}
	d.drop(oldest, d.dirs[oldest])
	return true
}

func (d *OSDisk) unuse(h *dirHandle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.refs--; h.refs == 0 && !h.kept {
		h.close()
	}
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
	err := d.inBoth(oldname, newname, func(from *os.Root, oldbase string, to *os.Root, newbase string) error {
		return renameNew(from, oldbase, to, newbase, func() error { return d.renameSlow(oldname, newname, to, newbase) })
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

// Exchange implements Disk.
func (d *OSDisk) Exchange(a, b string) error {
	err := d.in(a, func(adir *os.Root, abase string) error {
		return d.in(b, func(bdir *os.Root, bbase string) error { return exchange(adir, abase, bdir, bbase) })
	})
	if err == nil {
		d.mu.Lock()
		d.forget(a)
		d.forget(b)
		d.mu.Unlock()
	}
	return err
}

// Replace implements Disk.
func (d *OSDisk) Replace(oldname, newname string) error {
	return d.inBoth(oldname, newname, func(from *os.Root, oldbase string, to *os.Root, newbase string) error {
		if path.Dir(oldname) == path.Dir(newname) {
			return from.Rename(oldbase, newbase)
		}
		return renameOver(from, oldbase, to, newbase, func() error { return d.root.Rename(oldname, newname) })
	})
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
func (d *OSDisk) BootID() string { return bootID(d.self) }

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
	err = lockFile(f)
	for try := 0; errors.Is(err, errLocked) && try < 4; try++ { // Running may have it, for a moment
		time.Sleep(10 * time.Millisecond)
		err = lockFile(f)
	}
	if err != nil {
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
			if err == nil && nlink(fi) > 1 { // what is written to it would show under the other name
				return errLinked
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
