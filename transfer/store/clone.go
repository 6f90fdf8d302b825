package store

import (
	"bytes"

	"github.com/shoal-p2p/shoal/manifest"
)

// A cloner is a File that can share the space of another.
type cloner interface {
	// cloneRange makes n bytes from dst on those of src from off on, without a
	// copy. It fails if the file system, or the two files, do not allow it.
	cloneRange(src File, off, dst, n int64) error
}

const (
	cloneUnit = 4096     // file systems share blocks of this size, or of less
	minClone  = 64 << 10 // bytes; less is copied
	maxRefuse = 8        // refusals in a row after which nobody asks any more
)

// cloneLarge writes a chunk, which is one extent of a large file, by sharing the
// space of src, and the rest of it by copying. It reports false, and has written
// nothing, if that cannot be done.
func (s *Store) cloneLarge(x manifest.Extent, p []byte, src File, off int64) (bool, error) {
	head := (cloneUnit - x.Off%cloneUnit) % cloneUnit
	n := int64(len(p)) - head
	if s.refused.Load() >= maxRefuse || (off-x.Off)%cloneUnit != 0 || n < minClone {
		return false, nil
	}
	if size := s.m.Entries()[x.Entry].Size; x.Off+int64(len(p)) != size {
		n -= n % cloneUnit
	} else if i, err := src.Info(); err != nil || i.Size != off+int64(len(p)) {
		n -= n % cloneUnit // only the end of a file may be less than a block
	}
	h, err := s.use(x.Entry)
	if err != nil {
		return false, err
	}
	defer s.unuse(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.f.Info()
	if err != nil || i.Size != s.m.Entries()[x.Entry].Size {
		return false, nil // Write says what is wrong
	}
	c, ok := h.f.(cloner)
	if !ok || c.cloneRange(src, off+head, x.Off+head, n) != nil {
		s.refused.Add(1)
		return false, nil
	}
	s.refused.Store(0)
	if _, err := h.f.WriteAt(p[:head], x.Off); err != nil {
		return true, err
	}
	if _, err := h.f.WriteAt(p[head+n:], x.Off+head+n); err != nil {
		return true, err
	}
	// Only what is here now counts: somebody may have written to src since it was
	// hashed. What is shared does not change any more when src does.
	buf := hashBuffers.Get().(*[256 << 10]byte)
	defer hashBuffers.Put(buf)
	for at := head; at < head+n; at += int64(len(buf)) {
		q := buf[:min(int64(len(buf)), head+n-at)]
		want := p[at : at+int64(len(q))]
		if err := readFull(h.f, q, x.Off+at); err != nil || !bytes.Equal(q, want) {
			if _, err := h.f.WriteAt(want, x.Off+at); err != nil {
				return true, err
			}
		}
	}
	s.cloned.Add(n)
	return true, nil
}

// Cloned returns how many bytes share their space with the files that WriteFrom
// was given.
func (s *Store) Cloned() int64 { return s.cloned.Load() }
