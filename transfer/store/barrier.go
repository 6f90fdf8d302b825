package store

import (
	"path"

	"github.com/shoal-p2p/shoal/manifest"
)

// Barrier makes everything durable that was written before it was called.
// Writes may go on meanwhile. If the disk refuses, what was written since the
// last barrier is taken back, since it may be in memory only, and the store
// takes no more.
func (s *Store) Barrier() error {
	s.bmu.Lock()
	defer s.bmu.Unlock()
	s.jmu.Lock()
	covers, failed := s.seq, s.failed
	s.jmu.Unlock()
	if failed != nil || s.journal == nil { // the end was faster
		return failed
	}
	if err := s.flush(); err != nil {
		if unsupported(err) {
			return s.ignoreUnsupported(err)
		}
		s.taint(err)
		return err
	}
	s.jmu.Lock()
	err := s.append(recBarrier, covers)
	if err == nil {
		s.covered = covers
	}
	s.jmu.Unlock()
	if err != nil {
		return err
	}
	return s.diskError("flush", s.in(journalName), s.ignoreUnsupported(s.journal.Sync()))
}

// taint takes back what was written since the last barrier: after a flush that
// has failed, the system gives from memory what the disk may never get, and a
// second flush says that all is well. If the journal cannot be appended to, it
// is cut, and if it cannot be cut, it goes.
func (s *Store) taint(why error) {
	s.jmu.Lock()
	defer s.jmu.Unlock()
	err := s.append(recTaint, 0)
	if err == nil {
		err = s.journal.Sync()
	}
	if err != nil && !unsupported(err) {
		if s.journal.Truncate(headerLen+int64(s.covered)*recordLen) != nil {
			_ = s.d.Remove(s.in(journalName)) // then nothing can be done to this disk
		}
	}
	s.failed = why
}

// touch makes the journal younger than what was done to the files, although
// there is nothing new to say: it repeats the last barrier.
func (s *Store) touch() error {
	s.jmu.Lock()
	defer s.jmu.Unlock()
	return s.append(recBarrier, s.covered)
}

// flush flushes what was written since it was last called. Its error wraps
// errors.ErrUnsupported or EINVAL if this file system cannot.
func (s *Store) flush() error {
	s.fmu.Lock()
	dirty, smalls, names, evicted := s.dirty, s.smalls, s.names, s.evicted
	s.dirty, s.smalls, s.names, s.evicted = map[int]struct{}{}, nil, false, false
	s.fmu.Unlock()
	if len(smalls) > 0 || names || evicted || len(dirty) > maxOpen {
		err := s.d.SyncAll()
		if err == nil || !unsupported(err) {
			return s.flushError("", err)
		}
		if err := s.flushNames(smalls, names); err != nil {
			return err
		}
	}
	for e := range dirty {
		h, err := s.use(e)
		if err != nil {
			return s.diskError("flush", s.data(e), err)
		}
		err = h.f.Sync()
		s.unuse(h)
		if err != nil {
			return s.flushError(s.data(e), err)
		}
	}
	return nil
}

// flushNames flushes small files one by one, and the directories that have got
// names: all, or those that the small files are in.
func (s *Store) flushNames(smalls []int, names bool) error {
	dirs := map[string]struct{}{s.in(dataName): {}, s.part: {}}
	last := -1
	for _, e := range smalls {
		if e == last {
			continue
		}
		last = e
		if err := s.d.Sync(s.data(e)); err != nil {
			return s.flushError(s.data(e), err)
		}
		dirs[path.Dir(s.data(e))] = struct{}{}
	}
	for e, x := range s.m.Entries() {
		if names && x.Kind == manifest.Dir && s.selected(e) {
			dirs[s.data(e)] = struct{}{}
		}
	}
	if s.m.IsFile() {
		delete(dirs, s.in(dataName)) // it is the file
	}
	for dir := range dirs {
		if err := s.d.Sync(dir); err != nil {
			return s.flushError(dir, err)
		}
	}
	return nil
}

func (s *Store) flushError(name string, err error) error {
	if name == "" {
		name = s.part
	}
	if unsupported(err) {
		return err
	}
	return s.diskError("flush", name, err)
}
