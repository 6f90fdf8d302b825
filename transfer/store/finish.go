package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// fileMode and dirMode keep what is received readable by its owner.
func fileMode(m fs.FileMode) fs.FileMode { return m&0o777 | 0o400 }
func dirMode(m fs.FileMode) fs.FileMode  { return m&0o777 | 0o700 }

// Finish makes what is missing but has no content, sets modes and times, flushes
// everything and gives the share its final name, where nothing is replaced. All
// selected chunks must have been written. If it is stopped at any point, it can
// be done again.
func (s *Store) Finish(ctx context.Context) error {
	if s.placing {
		return s.finishMerge()
	}
	if err := s.settleAll(ctx); err != nil {
		return err
	}
	if err := s.flushAll(); err != nil {
		return err
	}
	redone, err := s.checkNames()
	if err == nil && redone {
		err = s.flushAll()
	}
	if err != nil {
		return err
	}
	data := s.in(dataName)
	if err := s.ignoreUnsupported(s.d.Sync(data)); err != nil { // mode and time too
		s.taint(err)
		return s.diskError("flush", data, err)
	}
	if s.o.Merge != nil {
		if err := s.place(placingName, []byte("all is fetched; names are being given\n")); err != nil {
			return err
		}
		return s.finishMerge()
	}
	s.closeFiles()
	if s.replace != nil {
		err = s.swap()
	} else {
		err = s.rename()
	}
	if err == nil {
		err = s.leave()
	}
	if err != nil {
		return err
	}
	s.closed = true
	return errors.Join(s.unlock(), s.d.Close())
}

// finishMerge is Finish from where everything is flushed, if the final name is
// there already.
func (s *Store) finishMerge() (err error) {
	s.closeFiles()
	if s.placed, err = s.merge(); err != nil {
		return err
	}
	s.closed = true
	return errors.Join(s.unlock(), s.d.Close())
}

// rename gives the finished share its name, if nobody else has it.
func (s *Store) rename() error {
	data := s.in(dataName)
	err := s.d.Rename(data, s.o.Final)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s %w; what was fetched is kept in %s",
			quote(filepath.Join(s.d.Path(), s.o.Final)), ErrExists, quote(filepath.Join(s.d.Path(), s.part)))
	}
	return s.diskError("rename", data, err)
}

// flushAll flushes the share, whatever was flushed before.
func (s *Store) flushAll() error {
	s.fmu.Lock()
	if s.m.IsFile() {
		s.dirty[0] = struct{}{}
	} else {
		s.names = true
	}
	s.fmu.Unlock()
	return s.Barrier()
}

// settleAll makes and sets all that no chunk brings. The journal is kept young:
// if this run ends here, the next one must not think that somebody else has
// changed the files.
func (s *Store) settleAll(ctx context.Context) error {
	var links []int
	entries := s.m.Entries()
	touched := time.Now()
	for e := range entries {
		if !s.selected(e) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if entries[e].Kind == manifest.Symlink {
			links = append(links, e)
			continue
		}
		if err := s.settle(e); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(touched) > time.Duration(maxYounger)/4 {
			if err := s.touch(); err != nil {
				return err
			}
			touched = now
		}
	}
	if err := s.touch(); err != nil {
		return err
	}
	for _, e := range links {
		if err := s.link(e); err != nil {
			return err
		}
	}
	for e := len(entries) - 1; e >= 0; e-- { // what is in a directory before itself
		if x := &entries[e]; x.Kind == manifest.Dir && s.selected(e) {
			if err := s.d.SetMeta(s.data(e), dirMode(x.Mode), x.ModTime()); err != nil {
				return s.diskError("set the time of", s.data(e), err)
			}
		}
	}
	if !s.m.IsFile() {
		mode, mtime := s.m.Top()
		if err := s.d.SetMeta(s.in(dataName), dirMode(mode), mtime); err != nil {
			return s.diskError("set the time of", s.in(dataName), err)
		}
	}
	return nil
}

// settle makes a file without content, and sets the mode and the time of one
// that did not come in one piece.
func (s *Store) settle(e int) error {
	x := &s.m.Entries()[e]
	if x.Kind != manifest.File {
		return nil
	}
	if s.inOnePiece(e) {
		return nil // Write has done it, or Open
	}
	if x.Size == 0 {
		if err := s.d.Create(s.data(e), nil, fileMode(x.Mode), x.ModTime()); !errors.Is(err, fs.ErrExist) {
			return s.diskError("create", s.data(e), err)
		}
	}
	f, err := s.reopen(s.data(e)) // it is there, or somebody has taken it away
	if err != nil {
		return s.diskError("open", s.data(e), err)
	}
	err = errors.Join(f.SetMeta(fileMode(x.Mode), x.ModTime()), f.Close())
	return s.diskError("set the mode of", s.data(e), err)
}

// inOnePiece reports whether a file with content comes with one chunk, and gets
// its mode and time then.
func (s *Store) inOnePiece(e int) bool {
	first, end := s.m.Chunks(e)
	return end-first == 1 && !s.large(e)
}

func (s *Store) link(e int) error {
	x := &s.m.Entries()[e]
	name := s.data(e)
	if target, err := s.d.Readlink(name); err == nil {
		if target == x.Target {
			return nil
		}
		if err := s.d.Remove(name); err != nil { // of another manifest, or planted
			return s.diskError("remove", name, err)
		}
	}
	return s.diskError("create the link", name, s.d.Symlink(x.Target, name))
}

// removePart removes what the part consists of besides the data. What else
// somebody put there stays, and the folder with it.
func (s *Store) removePart() {
	for _, name := range []string{journalName, mergeName, placingName, requestName, manifestName, replaceName, lockName} {
		if name != lockName {
			_ = s.d.Remove(s.in(name + ".new"))
		}
		_ = s.d.Remove(s.in(name)) // what stays is harmless: the next get removes it
	}
	_ = s.d.Remove(s.part)
}

// finished reports whether the part is only what a finished get had no time to
// remove.
func (s *Store) finished() bool {
	if i, err := s.d.Lstat(s.part); err != nil || !i.Mode.IsDir() {
		return false
	}
	_, err := s.d.Lstat(s.in(dataName))
	return errors.Is(err, fs.ErrNotExist)
}
