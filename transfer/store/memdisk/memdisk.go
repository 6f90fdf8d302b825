// Package memdisk is a store.Disk in memory, for tests. It records every
// operation, can let any of them fail, and can show what a crash after any of
// them may leave.
package memdisk

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A Disk is a folder in memory.
type Disk struct {
	mu    sync.Mutex
	names map[string]*inode // slash-separated, relative; "." is the folder
	ops   []op
	next  uint64
	boot  string
	locks map[string]bool

	// Fail, if not nil, is asked before each operation that changes something
	// or flushes; n counts these from 0. Its error is returned; with a short
	// write, half of the bytes are written first.
	Fail func(n int, what, name string) error
	// Space and Files are what Free returns.
	Space, Files int64
	// NoExchange makes it a file system that cannot exchange two names.
	NoExchange bool
}

type inode struct {
	ino    uint64
	mode   fs.FileMode
	data   []byte
	target string
	mtime  int64
	ctime  int64
}

// What an operation did. Operations on content name the inode, since a file may
// have another name by then.
type kind uint8

const (
	opCreate kind = iota
	opMkdir
	opSymlink
	opRename
	opExchange
	opRemove
	opMeta
	opResize
	opWrite
	opSync
	opSyncDir
	opSyncAll
	opRestart
)

type op struct {
	kind  kind
	name  string
	other string
	ino   uint64
	off   int64
	size  int64
	data  []byte
	mode  fs.FileMode
	mtime int64
}

// New returns an empty folder.
func New() *Disk {
	d := &Disk{boot: "boot-0", Space: 1 << 40, Files: 1 << 20}
	d.reset()
	return d
}

func (d *Disk) reset() {
	d.names = map[string]*inode{".": {ino: 1, mode: fs.ModeDir | 0o755}}
	d.next = 1
	d.locks = map[string]bool{}
}

// NumOps returns how many operations were done.
func (d *Disk) NumOps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ops)
}

// Killed returns the folder as it is after operation n, when only the process
// has ended: everything that was done counts.
func (d *Disk) Killed(n int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New()
	for i, o := range d.ops[:n] {
		c.apply(o, i)
	}
	return c
}

// Restart lets the machine start again, in order: nothing is lost, and nobody
// holds a lock.
func (d *Disk) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.apply(op{kind: opRestart}, len(d.ops))
	d.locks = map[string]bool{}
}

// Crashed returns one of the folders that a power cut after operation n may
// leave: names as a file system with a journal keeps them, in order up to some
// point behind the last flush; of the writes that were not flushed, any, and any
// 512-byte or 4-KiB sectors of them.
func (d *Disk) Crashed(n int, rnd *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New()
	flushed := -1               // the last operation that made names durable
	durable := map[uint64]int{} // for each inode, the last flush of its content
	everything := -1
	for i, o := range d.ops[:n] {
		switch o.kind {
		case opSync:
			durable[o.ino], flushed = i, i
		case opSyncDir:
			flushed = i
		case opSyncAll, opRestart:
			everything, flushed = i, i
		}
	}
	names := flushed + 1 + rnd.IntN(n-flushed) // names up to here are kept
	sector := 512
	if rnd.IntN(2) == 0 {
		sector = 4096
	}
	for i, o := range d.ops[:n] {
		switch {
		case o.kind != opWrite:
			if i < names {
				c.apply(o, i)
			}
		case i <= everything || i <= durable[o.ino]:
			c.apply(o, i)
		case rnd.IntN(3) == 0: // lost
		case rnd.IntN(2) == 0:
			c.apply(o, i)
		default:
			for at := 0; at < len(o.data); at += sector {
				if rnd.IntN(2) == 0 {
					part := o
					part.off += int64(at)
					part.data = o.data[at:min(len(o.data), at+sector)]
					c.apply(part, i)
				}
			}
		}
	}
	c.apply(op{kind: opRestart}, n)
	return c
}

// Flip changes bits of a byte without a trace, as a disk does that ages.
func (d *Disk) Flip(name string, off int64, bits byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name].data[off] ^= bits
}

func (d *Disk) byIno(ino uint64) *inode {
	for _, n := range d.names {
		if n.ino == ino {
			return n
		}
	}
	return nil
}

// apply does an operation, at the time at in ms. Called with mu held.
func (d *Disk) apply(o op, at int) {
	now := int64(at+1) * int64(time.Millisecond)
	d.ops = append(d.ops, o)
	make := func(n *inode) {
		n.ino, n.mtime, n.ctime = o.ino, now, now
		d.next = max(d.next, o.ino)
		d.names[o.name] = n
	}
	switch o.kind {
	case opRestart:
		d.boot += "'"
	case opCreate:
		make(&inode{mode: 0o600})
	case opMkdir:
		make(&inode{mode: fs.ModeDir | 0o700})
	case opSymlink:
		make(&inode{mode: fs.ModeSymlink | 0o777, target: o.other})
	case opRename:
		if n := d.names[o.name]; n != nil {
			n.ctime = now
		}
		for name, n := range d.names {
			if rest, in := strings.CutPrefix(name, o.name+"/"); in {
				delete(d.names, name)
				d.names[o.other+"/"+rest] = n
			} else if name == o.name {
				delete(d.names, name)
				d.names[o.other] = n
			}
		}
	case opExchange:
		moved := map[string]*inode{}
		for name, n := range d.names {
			for a, b := range map[string]string{o.name: o.other, o.other: o.name} {
				if rest, in := strings.CutPrefix(name, a); in && (rest == "" || rest[0] == '/') {
					delete(d.names, name)
					moved[b+rest] = n
					if rest == "" {
						n.ctime = now
					}
				}
			}
		}
		maps.Copy(d.names, moved)
	case opRemove:
		delete(d.names, o.name)
	case opMeta:
		if n := d.names[o.name]; n != nil {
			n.mode, n.mtime, n.ctime = n.mode.Type()|o.mode, o.mtime, now
		}
	case opResize:
		if n := d.byIno(o.ino); n != nil {
			n.resize(o.size)
			n.mtime, n.ctime = now, now
		}
	case opWrite:
		if n := d.byIno(o.ino); n != nil {
			if end := o.off + int64(len(o.data)); end > int64(len(n.data)) {
				n.resize(end)
			}
			copy(n.data[o.off:], o.data)
			n.mtime, n.ctime = now, now
		}
	}
}

func (n *inode) resize(size int64) {
	if size <= int64(len(n.data)) {
		n.data = n.data[:size]
		return
	}
	n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
}

// do asks Fail, and applies o if it says nothing. Called with mu held.
func (d *Disk) do(what string, o op) error {
	if d.Fail != nil {
		if err := d.Fail(len(d.ops), what, o.name); err != nil {
			return &fs.PathError{Op: what, Path: o.name, Err: err}
		}
	}
	d.apply(o, len(d.ops))
	return nil
}

// parent checks that name can be made. Called with mu held.
func (d *Disk) parent(what, name string) error {
	if p := d.names[path.Dir(name)]; p == nil {
		return &fs.PathError{Op: what, Path: name, Err: fs.ErrNotExist}
	} else if !p.mode.IsDir() {
		return &fs.PathError{Op: what, Path: name, Err: syscall.ENOTDIR}
	}
	if d.names[name] != nil {
		return &fs.PathError{Op: what, Path: name, Err: fs.ErrExist}
	}
	return nil
}

// Path implements store.Disk, as all that follows.
func (d *Disk) Path() string { return "mem" }

// BootID names the boot.
func (d *Disk) BootID() string { return d.boot }

// Forget implements store.Disk: nothing is remembered.
func (d *Disk) Forget() {}

// Free returns Space and Files.
func (d *Disk) Free() (size, files int64) { return d.Space, d.Files }

// Close does nothing.
func (d *Disk) Close() error { return nil }

// OpenFile opens or makes a file.
func (d *Disk) OpenFile(name string, flag int) (store.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	switch {
	case flag&os.O_CREATE != 0:
		if err := d.parent("create", name); err != nil {
			return nil, err
		}
		if err := d.do("create", op{kind: opCreate, name: name, ino: d.next + 1}); err != nil {
			return nil, err
		}
		n = d.names[name]
	case n == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !n.mode.IsRegular():
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return &file{d: d, n: n, name: name}, nil
}

// Mkdir makes a directory.
func (d *Disk) Mkdir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.parent("mkdir", name); err != nil {
		return err
	}
	return d.do("mkdir", op{kind: opMkdir, name: name, ino: d.next + 1})
}

// Symlink makes a link.
func (d *Disk) Symlink(target, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.parent("symlink", name); err != nil {
		return err
	}
	return d.do("symlink", op{kind: opSymlink, name: name, other: target, ino: d.next + 1})
}

// Readlink returns a link's target.
func (d *Disk) Readlink(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.names[name]; n != nil && n.mode.Type() == fs.ModeSymlink {
		return n.target, nil
	}
	return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrNotExist}
}

func (n *inode) info() store.Info {
	return store.Info{
		Stat: manifest.Stat{Size: int64(len(n.data)), MTime: n.mtime, CTime: n.ctime, Dev: 1, Ino: n.ino},
		Mode: n.mode, Nlink: 1,
	}
}

// Lstat says what is at a name.
func (d *Disk) Lstat(name string) (store.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		return store.Info{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return n.info(), nil
}

// Names lists a directory.
func (d *Disk) Names(name string, _ int) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for n := range d.names {
		if n != "." && path.Dir(n) == name {
			names = append(names, path.Base(n))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Rename never replaces.
func (d *Disk) Rename(oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[oldname] == nil {
		return &fs.PathError{Op: "rename", Path: oldname, Err: fs.ErrNotExist}
	}
	if err := d.parent("rename", newname); err != nil {
		return err
	}
	return d.do("rename", op{kind: opRename, name: oldname, other: newname})
}

// Exchange swaps two names.
func (d *Disk) Exchange(a, b string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range []string{a, b} {
		if d.names[name] == nil {
			return &fs.PathError{Op: "exchange", Path: name, Err: fs.ErrNotExist}
		}
	}
	if d.NoExchange {
		return errors.ErrUnsupported
	}
	return d.do("exchange", op{kind: opExchange, name: a, other: b})
}

// Replace renames a file onto another.
func (d *Disk) Replace(oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[oldname] == nil {
		return &fs.PathError{Op: "rename", Path: oldname, Err: fs.ErrNotExist}
	}
	if n := d.names[newname]; n != nil && n.mode.IsDir() {
		return &fs.PathError{Op: "rename", Path: newname, Err: syscall.EISDIR}
	}
	return d.do("rename", op{kind: opRename, name: oldname, other: newname})
}

// Create makes a whole file, in three operations: a crash may come between.
func (d *Disk) Create(name string, p []byte, mode fs.FileMode, mtime time.Time) error {
	f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(p, 0); err != nil {
		return err
	}
	return f.SetMeta(mode, mtime)
}

// Remove removes a file or an empty directory.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	for n := range d.names {
		if strings.HasPrefix(n, name+"/") {
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
		}
	}
	return d.do("remove", op{kind: opRemove, name: name})
}

// SetMeta sets mode and time.
func (d *Disk) SetMeta(name string, mode fs.FileMode, mtime time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: fs.ErrNotExist}
	}
	return d.do("chmod", op{kind: opMeta, name: name, mode: mode, mtime: mtime.UnixNano()})
}

// Sync makes the names in a directory durable, or a file.
func (d *Disk) Sync(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	switch {
	case n == nil:
		return &fs.PathError{Op: "fsync", Path: name, Err: fs.ErrNotExist}
	case n.mode.IsDir():
		return d.do("fsync", op{kind: opSyncDir, name: name})
	}
	return d.do("fsync", op{kind: opSync, name: name, ino: n.ino})
}

// SyncAll makes everything durable.
func (d *Disk) SyncAll() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do("syncfs", op{kind: opSyncAll})
}

// Lock takes a lock.
func (d *Disk) Lock(name string) (func() error, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[name] {
		return nil, &store.LockedError{Path: name}
	}
	if d.names[name] == nil {
		if err := d.do("create", op{kind: opCreate, name: name, ino: d.next + 1}); err != nil {
			return nil, err
		}
	}
	d.locks[name] = true
	return func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.locks, name)
		return nil
	}, nil
}

type file struct {
	d    *Disk
	n    *inode
	name string
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	o := op{kind: opWrite, name: f.name, ino: f.n.ino, off: off, data: slices.Clone(p)}
	if err := f.d.do("write", o); err != nil {
		o.data = o.data[:len(o.data)/2]
		f.d.apply(o, len(f.d.ops))
		return len(o.data), err
	}
	return len(p), nil
}

func (f *file) resize(what string, size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.do(what, op{kind: opResize, name: f.name, ino: f.n.ino, size: size})
}

func (f *file) Allocate(size int64) error { return f.resize("fallocate", size) }
func (f *file) Truncate(size int64) error { return f.resize("truncate", size) }

func (f *file) SetMeta(mode fs.FileMode, mtime time.Time) error {
	return f.d.SetMeta(f.name, mode, mtime)
}

func (f *file) Info() (store.Info, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.n.info(), nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.do("fdatasync", op{kind: opSync, name: f.name, ino: f.n.ino})
}

func (f *file) Close() error { return nil }
