package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// PartSuffix is what an unfinished pack has behind its name.
const PartSuffix = manifest.PartSuffix

// A Writer makes one pack. It lies beside its final name until Finish; a Writer
// for the same name goes on with what an earlier one has left. Its methods may be
// called by any number of goroutines, Finish and Close when the others have
// returned.
type Writer struct {
	m    *manifest.Manifest
	name string
	root *os.Root // the folder that the pack goes into
	f    *os.File

	mu    sync.Mutex
	items map[int]Item
	end   int64
	err   error // of a write: what is behind end is not known any more
}

// Causes of errors of Create: something is at the name, another program is writing
// the pack, or what lies where it is made is no beginning of it.
var (
	ErrExists = errors.New("exists already")
	ErrLocked = errors.New("is being written by another program")
	ErrOther  = errors.New("is no beginning of this pack")
)

// Create begins the pack that becomes path.
func Create(ctx context.Context, path string, m *manifest.Manifest) (*Writer, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	w := &Writer{m: m, name: filepath.Base(path), root: root, items: make(map[int]Item)}
	if err := w.open(ctx); err != nil {
		_ = root.Close() // nothing was written
		return nil, err
	}
	return w, nil
}

// Settle ends what a Writer for path has left that was stopped when the finished
// pack had its name, and the name of the part too. It returns that pack, as after
// Finish, or nil if there was nothing to end.
func Settle(ctx context.Context, path string, m *manifest.Manifest) (*Writer, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	w := &Writer{m: m, name: filepath.Base(path), root: root, items: make(map[int]Item)}
	ended, err := w.settle(ctx)
	if err != nil || !ended {
		_ = root.Close() // nothing is open in it
		return nil, err
	}
	return w, nil
}

func (w *Writer) settle(ctx context.Context) (ended bool, err error) {
	part := w.name + PartSuffix
	at, perr := w.root.Lstat(part)
	fi, ferr := w.root.Lstat(w.name)
	if perr != nil || ferr != nil || !fi.Mode().IsRegular() || !os.SameFile(fi, at) {
		return false, nil // Create says what is wrong
	}
	if w.f, err = w.root.Open(part); err != nil {
		return false, err
	}
	var x *Index
	if err = lock(w.f); err != nil {
		err = &fs.PathError{Op: "lock", Path: part, Err: err}
	} else if err = w.stillThere(part); err == nil {
		x, err = w.read(ctx, fi.Size())
	}
	if err == nil && len(w.items) == 0 {
		err = &fs.PathError{Op: "create", Path: w.name, Err: ErrExists}
	}
	if err == nil {
		w.end = x.End
		err = w.root.Remove(part)
	}
	if err == nil {
		err = w.syncDir()
	}
	if err != nil {
		_ = w.f.Close() // it was only read
	}
	return err == nil, err
}

func (w *Writer) open(ctx context.Context) error {
	if _, err := w.root.Lstat(w.name); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = ErrExists
		}
		return &fs.PathError{Op: "create", Path: w.name, Err: err}
	}
	part := w.name + PartSuffix
	fi, err := w.root.Lstat(part)
	switch {
	case err == nil && !fi.Mode().IsRegular():
		return &fs.PathError{Op: "open", Path: part, Err: ErrOther}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if w.f, err = w.root.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	if err := lock(w.f); err != nil {
		_ = w.f.Close() // nothing was written
		return &fs.PathError{Op: "lock", Path: part, Err: err}
	}
	if err = w.stillThere(part); err == nil {
		err = w.resume(ctx)
	}
	if err == nil {
		err = w.begin()
	}
	if err != nil {
		_ = w.f.Close() // what is there is looked at again by the next Create
	}
	return err
}

// stillThere reports, as an error, that the part was finished by somebody else
// before it was locked: under its final name nothing is written to it.
func (w *Writer) stillThere(part string) error {
	ours, err := w.f.Stat()
	if err != nil {
		return err
	}
	at, err := w.root.Lstat(part)
	if err != nil || !os.SameFile(ours, at) {
		return &fs.PathError{Op: "lock", Path: part, Err: ErrLocked}
	}
	return nil
}

// read lists what is right in a file of the given size.
func (w *Writer) read(ctx context.Context, size int64) (*Index, error) {
	x, err := Read(ctx, w.f, size, w.m.Root(), func(i, n int) bool {
		return i < w.m.NumChunks() && n == w.m.ChunkLen(i)
	})
	if err != nil {
		return nil, err
	}
	for i, item := range x.Chunks {
		p := make([]byte, item.Len)
		if _, err := w.f.ReadAt(p, item.Off); err != nil {
			return nil, err
		}
		if chunk.Sum(p) == w.m.ChunkHash(i) {
			w.items[i] = item
		}
	}
	return x, nil
}

// resume keeps what an earlier Writer has left, as far as it is right and without
// a gap. What no Writer can have left is not written to.
func (w *Writer) resume(ctx context.Context) error {
	fi, err := w.f.Stat()
	if err != nil {
		return err
	}
	other := &fs.PathError{Op: "open", Path: w.name + PartSuffix, Err: ErrOther}
	if links(fi) > 1 { // what is written to it would show under the other name
		return other
	}
	x, err := w.read(ctx, fi.Size())
	if err != nil {
		return err
	}
	if x.Others > 0 || x.Damaged > 0 && x.End < fi.Size()-int64(chunk.MaxSize)-align {
		return other
	}
	if ours, err := w.begun(fi.Size()); x.End == 0 && !ours {
		return errors.Join(err, other)
	}
	w.end = x.End
	return w.f.Truncate(w.end)
}

// begun reports whether a file without a whole record is what a Writer leaves that
// was stopped in its first one: a power cut may leave zeros.
func (w *Writer) begun(size int64) (bool, error) {
	p := make([]byte, min(size, headerLen))
	if _, err := w.f.ReadAt(p, 0); err != nil {
		return false, err
	}
	ours := w.manifestHeader()
	return bytes.HasPrefix(ours.append(nil), p) || len(bytes.Trim(p, "\x00")) == 0, nil
}

func (w *Writer) manifestHeader() header {
	return header{kind: kindManifest, n: len(w.m.Text()), root: w.m.Root()}
}

// begin writes the manifest, if it is not there.
func (w *Writer) begin() error {
	if w.end > 0 {
		return nil
	}
	return w.append(w.manifestHeader(), []byte(w.m.Text()))
}

// append writes one record.
func (w *Writer) append(h header, p []byte) error {
	if w.err != nil {
		return w.err
	}
	b := make([]byte, 0, RecordLen(len(p)))
	b = h.append(b)
	b = append(b, p...)
	b = b[:cap(b)]
	if _, err := w.f.WriteAt(b[:RecordLen(len(p))], w.end); err != nil {
		w.err = err
		return err
	}
	w.end += RecordLen(len(p))
	return nil
}

// Has returns the chunks that the pack has.
func (w *Writer) Has() *chunk.Bitfield {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := chunk.NewBitfield(w.m.NumChunks())
	for i := range w.items {
		b.Set(i)
	}
	return b
}

// Complete reports whether chunk i can be read.
func (w *Writer) Complete(i int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.items[i]
	return ok
}

// Write adds chunk i, whose hash was checked.
func (w *Writer) Write(i int, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	off := w.end + headerLen
	if err := w.append(header{kindChunk, i, len(p), w.m.Root()}, p); err != nil {
		return err
	}
	w.items[i] = Item{off, len(p)}
	return nil
}

// Drop takes a chunk out of what the pack is known to have.
func (w *Writer) Drop(i int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.items, i)
	return nil
}

// ReadAt fills p with the bytes at off of chunk i.
func (w *Writer) ReadAt(i, off int, p []byte) error {
	w.mu.Lock()
	item, ok := w.items[i]
	w.mu.Unlock()
	if !ok || off+len(p) > item.Len {
		return fmt.Errorf("chunk %d is not there", i)
	}
	_, err := w.f.ReadAt(p, item.Off+int64(off))
	return err
}

// Finish flushes the pack and gives it its name, where nothing is replaced.
func (w *Writer) Finish() error {
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := rename(w.root, w.name+PartSuffix, w.name); err != nil {
		return err
	}
	return w.syncDir()
}

// syncDir flushes the names in the folder.
func (w *Writer) syncDir() error {
	dir, err := w.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !unsupported(err) {
		return err
	}
	return nil
}

// rename gives a file another name. A file system without hard links, as sticks
// have, replaces what came there in the last moment; Create has looked.
func rename(root *os.Root, from, to string) error {
	err := root.Link(from, to)
	switch {
	case err == nil:
		return root.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return &fs.PathError{Op: "create", Path: to, Err: ErrExists}
	}
	if _, err := root.Lstat(to); err == nil {
		return &fs.PathError{Op: "create", Path: to, Err: ErrExists}
	}
	return root.Rename(from, to)
}

// Len returns the bytes of the pack so far.
func (w *Writer) Len() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

// Close releases the pack. Without Finish, what was written is kept for the next
// Create.
func (w *Writer) Close() error { return errors.Join(w.f.Close(), w.root.Close()) }
