// Package local makes a folder on this machine a source of a share: a USB stick
// or a mounted folder that has the same files, or packs of them. It only reads,
// and checks each chunk itself, so that a damaged place costs one chunk.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

// A Source is a folder with the files of a share.
type Source struct {
	dir string

	mu   sync.Mutex
	m    *manifest.Manifest
	root *os.Root
	top  string // in root: "" or the share's name

	files *chunk.Bitfield // chunks that the files there could give
	packs []packed
}

var _ transfer.Source = (*Source)(nil)

// New returns the source at a folder that holds the share, or is it.
func New(dir string) (*Source, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%q is no folder", dir)
	}
	return &Source{dir: dir}, nil
}

func (s *Source) String() string { return s.dir }

// Width is how many chunks are read at once.
func (*Source) Width() int { return 2 }

// Close closes the folder.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == nil {
		return nil
	}
	s.closePacks()
	err := s.root.Close()
	s.root = nil
	return err
}

// Open finds out which chunks the folder could give: those that its packs list,
// and those all of whose files are there with the right size.
func (s *Source) Open(ctx context.Context, m *manifest.Manifest) (*chunk.Bitfield, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil {
		s.closePacks()
		_ = s.root.Close() // it was only read
		s.root, s.files = nil, nil
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err // a stick that is not plugged in may be later
	}
	s.m, s.root = m, root
	tops := []string{"", m.Name()}
	if m.IsFile() {
		tops = tops[:1]
	}
	best, most := chunk.NewBitfield(m.NumChunks()), 0
	for _, top := range tops {
		have := s.listed(ctx, top)
		if n := have.Count(); n > most {
			best, most, s.top = have, n, top
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.files = best
	have := best.Clone()
	lack, err := s.openPacks(ctx, have)
	if err != nil {
		return nil, err
	}
	if have.None() && m.NumChunks() > 0 {
		err := fmt.Errorf("has no file and no pack of %q", m.Name())
		if lack != "" {
			err = fmt.Errorf("has %s, and nothing of %q", lack, m.Name())
		}
		return nil, &transfer.DeadSourceError{Err: err}
	}
	return have, nil
}

// listed returns the chunks whose files are below top with the right size.
func (s *Source) listed(ctx context.Context, top string) *chunk.Bitfield {
	have := chunk.NewBitfield(s.m.NumChunks())
	have.Fill()
	for e := range s.m.Entries() {
		x := &s.m.Entries()[e]
		if x.Kind != manifest.File || x.Size == 0 || ctx.Err() != nil {
			continue
		}
		fi, err := s.root.Lstat(filepath.Join(top, filepath.FromSlash(x.Path)))
		if err == nil && fi.Mode().IsRegular() && fi.Size() == x.Size {
			continue
		}
		first, end := s.m.Chunks(e)
		for i := first; i < end; i++ {
			have.Clear(i)
		}
	}
	return have
}

// Fetch writes chunk i to w, if the files have it.
func (s *Source) Fetch(ctx context.Context, i int, w io.Writer) error {
	s.mu.Lock()
	m, root, top, files := s.m, s.root, s.top, s.files
	s.mu.Unlock()
	if root == nil || files == nil {
		return errors.New("not open")
	}
	inFiles := files.Has(i)
	p, err := s.fromPacks(i)
	switch {
	case p != nil:
		_, err := w.Write(p)
		return err
	case !inFiles && s.gone():
		return fmt.Errorf("is not there any more: %w", fs.ErrNotExist)
	case !inFiles:
		return &transfer.GoneError{Err: err}
	}
	return s.fromFiles(ctx, m, root, top, i, w)
}

// fromFiles writes chunk i to w, as the files have it.
func (s *Source) fromFiles(ctx context.Context, m *manifest.Manifest, root *os.Root, top string, i int, w io.Writer) error {
	p := make([]byte, 0, m.ChunkLen(i))
	for x := range m.Extents(i) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := filepath.Join(top, filepath.FromSlash(m.Entries()[x.Entry].Path))
		q := p[len(p) : len(p)+x.Len]
		if err := readAt(root, name, x.Off, q); err != nil {
			if errors.Is(err, fs.ErrNotExist) && s.gone() {
				return fmt.Errorf("is not there any more: %w", fs.ErrNotExist)
			}
			return &transfer.GoneError{Err: err}
		}
		p = p[:len(p)+x.Len]
	}
	if chunk.Sum(p) != m.ChunkHash(i) {
		return &transfer.GoneError{Err: fmt.Errorf("chunk %d has other bytes there", i)}
	}
	_, err := w.Write(p)
	return err
}

// gone reports whether the folder itself went away, as a stick that is pulled out.
func (s *Source) gone() bool {
	_, err := os.Stat(s.dir)
	return err != nil
}

// readAt reads from a regular file: what somebody else put at its name is not
// waited for.
func readAt(root *os.Root, name string, off int64, p []byte) error {
	fi, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%q is no file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(p, off); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}
