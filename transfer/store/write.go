package store

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/shoal-p2p/shoal/manifest"
)

// A handle is a large file that is open. Its mu lets one writer in at a time:
// two would spin on the file's lock in the kernel.
type handle struct {
	mu   sync.Mutex
	open sync.Once
	f    File
	err  error
	refs int
	used uint64
}

// maxOpen bounds the files that are open at once.
const maxOpen = 16

// Write puts chunk i, whose bytes p the caller has verified, at its place, and
// then into the journal.
func (s *Store) Write(i int, p []byte) error {
	for x := range s.m.Extents(i) {
		part := p[:x.Len]
		p = p[x.Len:]
		if !s.selected(x.Entry) {
			continue
		}
		var err error
		if s.large(x.Entry) {
			err = s.writeLarge(x, part)
		} else {
			err = s.writeSmall(x, part)
		}
		if err != nil {
			return s.diskError("write", s.data(x.Entry), err)
		}
	}
	// Between the write and the record: a barrier that covers the record finds
	// the mark, and one that takes the mark away flushes the write.
	s.fmu.Lock()
	s.markDirty(i)
	s.fmu.Unlock()
	return s.record(recWritten, uint32(i))
}

// WriteFrom is Write for bytes that were read at off from src, a file of any disk.
// Where the file system can, both files then share their space. src may have
// changed since: what comes to lie here is compared with p.
func (s *Store) WriteFrom(i int, p []byte, src File, off int64) error {
	for x := range s.m.Extents(i) {
		if x.Len != len(p) || !s.large(x.Entry) || !s.selected(x.Entry) {
			break
		}
		shared, err := s.cloneLarge(x, p, src, off)
		if err != nil {
			return s.diskError("write", s.data(x.Entry), err)
		}
		if !shared {
			break
		}
		s.fmu.Lock()
		s.markDirty(i)
		s.fmu.Unlock()
		return s.record(recWritten, uint32(i))
	}
	return s.Write(i, p)
}

// markDirty notes that the files of chunk i are to be flushed. fmu is held.
func (s *Store) markDirty(i int) {
	for x := range s.m.Extents(i) {
		if !s.selected(x.Entry) {
			continue
		}
		if s.large(x.Entry) {
			s.dirty[x.Entry] = struct{}{}
		} else {
			s.smalls = append(s.smalls, x.Entry)
		}
	}
}

func (s *Store) writeLarge(x manifest.Extent, p []byte) error {
	h, err := s.use(x.Entry)
	if err != nil {
		return err
	}
	defer s.unuse(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	// Somebody may have cut it: the hole that this would leave reads as zeros.
	i, err := h.f.Info()
	if err == nil && i.Size != s.m.Entries()[x.Entry].Size {
		err = errChanged
	}
	if err == nil {
		_, err = h.f.WriteAt(p, x.Off)
	}
	return err
}

// writeSmall makes a small file, if the chunk has all of it in one go. Else it
// gets its length at once, so that a resume does not take it for cut.
func (s *Store) writeSmall(x manifest.Extent, p []byte) error {
	e, name := &s.m.Entries()[x.Entry], s.data(x.Entry)
	whole := int64(x.Len) == e.Size
	if whole {
		err := s.d.Create(name, p, fileMode(e.Mode), e.ModTime())
		if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	f, err := s.openData(name)
	if err != nil {
		return err
	}
	if !whole {
		if i, ierr := f.Info(); ierr != nil || i.Size != e.Size {
			err = errors.Join(ierr, f.Truncate(e.Size))
		}
	}
	if err == nil {
		_, err = f.WriteAt(p, x.Off)
	}
	if err == nil && whole {
		err = f.SetMeta(fileMode(e.Mode), e.ModTime())
	}
	return errors.Join(err, f.Close())
}

// record appends to the journal.
func (s *Store) record(kind byte, n uint32) error {
	s.jmu.Lock()
	defer s.jmu.Unlock()
	return s.append(kind, n)
}

// append is record with jmu held.
func (s *Store) append(kind byte, n uint32) error {
	if s.failed != nil {
		return s.failed
	}
	putRecord(s.rec[:], kind, n, s.seq, &s.id)
	if _, err := s.journal.WriteAt(s.rec[:], headerLen+int64(s.seq)*recordLen); err != nil {
		return s.diskError("write", s.in(journalName), err)
	}
	s.seq++
	return nil
}

// Drop takes chunk i back: its bytes on disk were found to be wrong.
func (s *Store) Drop(i int) error { return s.record(recDropped, uint32(i)) }

// Checked says that chunk i, one of Doubtful, was hashed and is right: a run
// that comes after this one need not do it again.
func (s *Store) Checked(i int) error { return s.record(recHashed, uint32(i)) }

// use opens a large file, or finds it open; unuse must follow.
func (s *Store) use(entry int) (*handle, error) {
	s.fmu.Lock()
	s.clock++
	h := s.files[entry]
	var old *handle
	if h == nil {
		if len(s.files) >= maxOpen {
			old = s.evict()
		}
		h = &handle{}
		s.files[entry] = h
	}
	h.refs++
	h.used = s.clock
	s.fmu.Unlock()

	if old != nil {
		if err := old.f.Close(); err != nil {
			s.unuse(h)
			return nil, err
		}
	}
	h.open.Do(func() { h.f, h.err = s.reopen(s.data(entry)) })
	if h.err != nil {
		s.fmu.Lock()
		if s.files[entry] == h {
			delete(s.files, entry) // the next one tries again
		}
		s.fmu.Unlock()
		return nil, h.err
	}
	return h, nil
}

// evict takes the open file that was not used for longest out of s.files, for
// the caller to close. fmu is held.
func (s *Store) evict() *handle {
	oldest := -1
	for e, h := range s.files {
		if h.refs == 0 && (oldest < 0 || h.used < s.files[oldest].used) {
			oldest = e
		}
	}
	if oldest < 0 {
		return nil
	}
	h := s.files[oldest]
	delete(s.files, oldest)
	if _, dirty := s.dirty[oldest]; dirty {
		s.evicted = true
	}
	return h
}

func (s *Store) unuse(h *handle) {
	s.fmu.Lock()
	h.refs--
	s.fmu.Unlock()
}

func (s *Store) closeFiles() {
	s.bmu.Lock()
	defer s.bmu.Unlock()
	s.fmu.Lock()
	defer s.fmu.Unlock()
	for e, h := range s.files {
		if h.f != nil {
			_ = h.f.Close() // flushed before, if it matters
		}
		delete(s.files, e)
	}
	if s.journal != nil {
		_ = s.journal.Close()
		s.journal = nil
	}
}

// ReadAt fills p with the bytes at off of chunk i, which must be had. They are
// not hashed.
func (s *Store) ReadAt(i, off int, p []byte) error {
	for x := range s.m.Extents(i) {
		if off >= x.Len {
			off -= x.Len
			continue
		}
		if len(p) == 0 {
			break
		}
		n := min(len(p), x.Len-off)
		if err := s.readFile(x.Entry, p[:n], x.Off+int64(off)); err != nil {
			return s.diskError("read", s.data(x.Entry), err)
		}
		p, off = p[n:], 0
	}
	return nil
}

func (s *Store) readFile(entry int, p []byte, off int64) error {
	if s.large(entry) {
		h, err := s.use(entry)
		if err != nil {
			return err
		}
		defer s.unuse(h)
		return readFull(h.f, p, off)
	}
	f, err := s.d.OpenFile(s.data(entry), os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(readFull(f, p, off), f.Close())
}

func readFull(f io.ReaderAt, p []byte, off int64) error {
	if n, err := f.ReadAt(p, off); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}
