package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// An Origin serves chunks straight from a user's own files. It gives no bytes
// but those that were hashed: a file that has changed is hashed again, chunk by
// chunk, and what differs is refused. Any number of goroutines may use it.
type Origin struct {
	m     *manifest.Manifest
	files []originFile // by entry

	mu     sync.Mutex // guards everything below and the files' fields; not held over I/O
	hashed *chunk.Bitfield
	open   []*originFile // those that are open, which of the small ones none is
}

// smallOrigin is the size in bytes up to which a file is opened for each read:
// most of these are read once, in one go.
const smallOrigin = 64 << 10

type originFile struct {
	path string
	stat manifest.Stat
	f    *os.File
	refs int
}

// NewOrigin returns an Origin for the files of src.
func NewOrigin(m *manifest.Manifest, src *manifest.Source) *Origin {
	o := &Origin{m: m, files: make([]originFile, len(m.Entries())), hashed: src.Hashed}
	if o.hashed == nil {
		o.hashed = chunk.NewBitfield(m.NumChunks())
	}
	k := 0
	for e, x := range m.Entries() {
		if x.Kind == manifest.File {
			o.files[e].path, o.files[e].stat = src.Files[k].Path, src.Files[k].Stat
			k++
		}
	}
	return o
}

// ReadAt fills p with the bytes at off of chunk i, or returns a
// *manifest.ChangedError.
func (o *Origin) ReadAt(i, off int, p []byte) error {
	err := o.readAt(i, off, p)
	if err != nil {
		// By now others may have the names of the files: they are opened anew.
		o.mu.Lock()
		o.evict()
		o.mu.Unlock()
	}
	return err
}

func (o *Origin) readAt(i, off int, p []byte) error {
	for range 3 { // a file may be touched while it is hashed
		o.mu.Lock()
		sure := o.hashed.Has(i)
		o.mu.Unlock()
		switch {
		case sure:
		case off == 0 && len(p) == o.m.ChunkLen(i):
			if changed, err := o.hash(i, p); !changed || err != nil {
				return err // p holds what was hashed
			}
			continue
		default:
			buf := hashBuffers.Get().(*[256 << 10]byte)
			_, err := o.hash(i, buf[:])
			hashBuffers.Put(buf)
			if err != nil {
				return err
			}
		}
		changed, err := o.read(i, off, p)
		if err != nil {
			return err
		}
		if !changed {
			return nil
		}
	}
	return &manifest.ChangedError{Path: o.firstPath(i), Why: "it is being written to"}
}

func (o *Origin) firstPath(i int) string {
	for x := range o.m.Extents(i) {
		return o.files[x.Entry].path
	}
	return ""
}

// Objects of this size begin on a page, which the kernel's copying likes.
var hashBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// hash reads chunk i by way of buf and compares it with the manifest. changed
// reports whether a file was touched meanwhile.
func (o *Origin) hash(i int, buf []byte) (changed bool, err error) {
	h := chunk.NewHasher()
	defer h.Release()
	o.mu.Lock()
	o.hashed.Set(i) // taken back if a file changes from here on
	o.mu.Unlock()
	refuse := func(err error) (bool, error) {
		o.mu.Lock()
		o.hashed.Clear(i)
		o.mu.Unlock()
		return changed, err
	}
	n := o.m.ChunkLen(i)
	for off := 0; off < n; off += len(buf) {
		p := buf[:min(len(buf), n-off)]
		c, err := o.read(i, off, p)
		if err != nil {
			return refuse(err)
		}
		changed = changed || c
		_, _ = h.Write(p) // a hash takes everything
	}
	if h.Sum() != o.m.ChunkHash(i) {
		return refuse(&manifest.ChangedError{Path: o.firstPath(i), Why: "its content differs from what was shared"})
	}
	return changed, nil
}

// read fills p, and reports whether one of the files is not as it was when it
// was last looked at; then its chunks count as not hashed.
func (o *Origin) read(i, off int, p []byte) (changed bool, err error) {
	for x := range o.m.Extents(i) {
		if off >= x.Len {
			off -= x.Len
			continue
		}
		if len(p) == 0 {
			break
		}
		n := min(len(p), x.Len-off)
		c, err := o.readFile(x.Entry, p[:n], x.Off+int64(off))
		if err != nil {
			return false, err
		}
		changed = changed || c
		p, off = p[n:], 0
	}
	return changed, nil
}

func (o *Origin) readFile(entry int, p []byte, off int64) (changed bool, err error) {
	file := &o.files[entry]
	var now manifest.Stat
	if o.m.Entries()[entry].Size <= smallOrigin {
		now, err = manifest.ReadFileAt(file.path, p, off)
	} else {
		now, err = o.readLarge(file, p, off)
	}
	var open *fs.PathError
	var other *manifest.ChangedError
	switch {
	case errors.As(err, &other):
		return false, other
	case errors.Is(err, io.ErrUnexpectedEOF):
		return false, &manifest.ChangedError{Path: file.path, Why: "it is shorter than it was"}
	case errors.As(err, &open) && open.Op == "open", errors.Is(err, errNotFile):
		return false, &manifest.ChangedError{Path: file.path, Why: (&DiskError{Op: "open", Path: file.path, Err: err}).Error()}
	case err != nil:
		return false, &DiskError{Op: "read", Path: file.path, Err: err}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if now == file.stat {
		return false, nil
	}
	file.stat = now
	first, end := o.m.Chunks(entry)
	for i := first; i < end; i++ {
		o.hashed.Clear(i)
	}
	return true, nil
}

func (o *Origin) readLarge(file *originFile, p []byte, off int64) (now manifest.Stat, err error) {
	f, err := o.use(file)
	if err != nil {
		return now, err
	}
	defer o.unuse(file)
	if err := readFull(f, p, off); err != nil {
		return now, err
	}
	// After the read, so that a write that came before it shows.
	fi, err := f.Stat()
	if err != nil {
		return now, err
	}
	return manifest.StatOf(fi), nil
}

// use opens a file without ever waiting for a pipe, or finds it open.
func (o *Origin) use(file *originFile) (*os.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if file.f != nil {
		file.refs++
		return file.f, nil
	}
	if len(o.open) >= maxOpen {
		o.evict()
	}
	f, err := os.OpenFile(file.path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), errNotFile)
	}
	file.f, file.refs = f, 1
	o.open = append(o.open, file)
	return f, nil
}

// evict closes the open files that nobody reads. Called with mu held.
func (o *Origin) evict() {
	o.open = slices.DeleteFunc(o.open, func(file *originFile) bool {
		if file.refs > 0 {
			return false
		}
		_ = file.f.Close() // only read from
		file.f = nil
		return true
	})
}

func (o *Origin) unuse(file *originFile) {
	o.mu.Lock()
	file.refs--
	o.mu.Unlock()
}

// Close closes the files; nothing may be read any more.
func (o *Origin) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.evict()
	return nil
}
