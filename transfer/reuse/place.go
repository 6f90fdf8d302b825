package reuse

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A base is where the share's own folder, or its file, may lie in a place.
type base struct {
	Place
	dir string // name in the disk
}

// name returns where an entry would be.
func (b base) name(m *manifest.Manifest, entry int) string {
	if m.IsFile() {
		return b.dir
	}
	return join(b.dir, m.Entries()[entry].Path)
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// basesOf returns where the share may lie in a place: the place may be the share's
// own folder, hold it under its name, or be, or hold, the part of an older one.
func (f *finder) basesOf(p Place) []base {
	m := f.m
	var out []base
	for _, dir := range []string{p.Name, join(p.Name, m.Name()), join(p.Name, "data"), join(p.Name, m.Name()+store.PartSuffix+"/data")} {
		if dir == "." {
			if !m.IsFile() {
				out = append(out, base{p, dir})
			}
			continue
		}
		i, err := p.Disk.Lstat(dir)
		if err != nil || f.avoids(strings.TrimSuffix(dir, "/data"), p) || !m.IsFile() != i.Mode.IsDir() {
			continue
		}
		if m.IsFile() && !i.Mode.IsRegular() {
			continue
		}
		out = append(out, base{p, dir})
	}
	return out
}

// avoids reports whether name, or a folder above it, is to be left alone.
func (f *finder) avoids(name string, p Place) bool {
	if f.o.Avoid == nil || name == "." {
		return false
	}
	i, err := p.Disk.Lstat(name)
	return err == nil && f.o.Avoid(name[strings.LastIndexByte(name, '/')+1:], i)
}

// Limits of a walk. What lies deeper, or behind so many names of one folder, is
// not looked at.
const (
	maxDepth = 255
	maxNames = 1 << 20
)

// walk calls visit for each regular file of a place, in the order of a manifest.
// Links are not followed; nothing else is opened.
func (f *finder) walk(p Place, visit func(name string, i store.Info) error) error {
	return f.walkIn(p, p.Name, 0, visit)
}

func (f *finder) walkIn(p Place, name string, depth int, visit func(name string, i store.Info) error) error {
	if f.ctx.Err() != nil {
		return f.cause()
	}
	if f.nothingLeft() {
		return errNothingLeft
	}
	if name != "." {
		i, err := p.Disk.Lstat(name)
		switch {
		case err != nil:
			f.unreadable(p, name, err)
			return nil
		case f.o.Avoid != nil && f.o.Avoid(name[strings.LastIndexByte(name, '/')+1:], i):
			return nil
		case i.Mode.IsRegular():
			return visit(name, i)
		case !i.Mode.IsDir():
			return nil
		}
	}
	if depth > maxDepth {
		return nil
	}
	names, err := p.Disk.Names(name, maxNames)
	if err != nil {
		f.unreadable(p, name, err)
		return nil
	}
	slices.Sort(names)
	for _, n := range names {
		if err := f.walkIn(p, join(name, n), depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// readAt fills q from off on. A file that ends before gives io.ErrUnexpectedEOF.
func (f *finder) readAt(file store.File, q []byte, off int64) error {
	for len(q) > 0 {
		if f.ctx.Err() != nil {
			return f.cause()
		}
		n, err := file.ReadAt(q[:min(len(q), windowLen)], off)
		f.noteRead(n)
		q, off = q[n:], off+int64(n)
		if len(q) == 0 {
			break
		}
		if err != nil || n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// open opens a file and says what it is.
func open(d store.Disk, name string) (store.File, store.Info, error) {
	file, err := d.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, store.Info{}, err
	}
	i, err := file.Info()
	if err != nil {
		return nil, i, errors.Join(err, file.Close())
	}
	return file, i, nil
}
