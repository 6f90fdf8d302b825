package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// layOut makes the directories and the large files, with their space, so that a
// disk that is too small shows before anything is fetched. Files whose length
// is wrong get the right one: they have what somebody else put there.
func (s *Store) layOut() error {
	if err := s.checkSpace(); err != nil {
		return err
	}
	fresh := s.found == nil
	if fresh {
		s.found = make([]found, len(s.m.Entries()))
	} else if err := s.unselect(); err != nil {
		return err
	}
	if !s.m.IsFile() {
		if err := s.mkdir(s.in(dataName)); err != nil {
			return err
		}
	}
	for e, x := range s.m.Entries() {
		f := &s.found[e]
		switch {
		case !s.selected(e) || x.Kind == manifest.Symlink:
		case x.Kind == manifest.Dir && !f.there:
			if err := s.mkdir(s.data(e)); err != nil {
				return err
			}
			s.names = true
		case x.Kind == manifest.File && s.large(e) && (!f.there || f.size != x.Size):
			if err := s.allocate(e); err != nil {
				return err
			}
			s.names = true
		case x.Kind == manifest.File && f.there && f.size > x.Size:
			if err := s.resize(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSpace compares what is to be made with what there is room for.
func (s *Store) checkSpace() error {
	need, files := int64(0), int64(0)
	for e, x := range s.m.Entries() {
		if s.selected(e) && (s.found == nil || !s.found[e].there) {
			need += x.Size
			files++
		}
	}
	have, free := s.d.Free()
	if have >= 0 && have < need {
		return &NoSpaceError{Need: need, Have: have, Dir: s.d.Path()}
	}
	if free >= 0 && free < files {
		return &NoSpaceError{Need: files, Have: free, Files: true, Dir: s.d.Path()}
	}
	return nil
}

// unselect removes what an earlier run with another selection has made: it may
// be incomplete, and would come to the final name.
func (s *Store) unselect() error {
	if s.o.Selection == nil {
		return nil
	}
	entries := s.m.Entries()
	for e := len(entries) - 1; e >= 0; e-- { // what is in a directory before itself
		if s.selected(e) || entries[e].Kind != manifest.Symlink && !s.found[e].there {
			continue
		}
		err := removeIfThere(s.d, s.data(e))
		if err != nil && entries[e].Kind != manifest.Dir { // a directory with what is not ours stays
			return s.diskError("remove", s.data(e), err)
		}
	}
	return nil
}

func (s *Store) mkdir(name string) error {
	err := s.d.Mkdir(name)
	if errors.Is(err, fs.ErrExist) {
		i, lerr := s.d.Lstat(name)
		if err = lerr; err == nil && !i.Mode.IsDir() {
			err = errNotDir
		}
	}
	return s.diskError("create", name, err)
}

// allocate makes a large file, or gives it its length.
func (s *Store) allocate(e int) error {
	name, size := s.data(e), s.m.Entries()[e].Size
	f, err := s.openData(name)
	if err == nil {
		err = f.Truncate(size)
		if err == nil {
			err = f.Allocate(size)
		}
		var i Info
		if err == nil {
			i, err = f.Info()
			s.found[e] = found{i.Size, i.CTime, i.Dev, i.Ino, true, i.Nlink <= 1}
		}
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) {
		if have, _ := s.d.Free(); have < size {
			return &NoSpaceError{Need: size, Have: max(0, have), Dir: s.d.Path(), Err: err}
		}
	}
	return s.diskError("create", name, err)
}

// resize cuts a small file that is too long. It is made anew when its chunk
// comes, if what is left is not right.
func (s *Store) resize(e int) error {
	f, err := s.openData(s.data(e))
	if err == nil {
		err = errors.Join(f.Truncate(s.m.Entries()[e].Size), f.Close())
	}
	return s.diskError("truncate", s.data(e), err)
}

// openData opens a file of the share to write, and makes it if it is not there.
func (s *Store) openData(name string) (File, error) {
	f, err := s.d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	return s.reopen(name)
}

// reopen opens a file of the share that is there. It must be a file, and only
// under this name: what is written to it must not show elsewhere.
func (s *Store) reopen(name string) (File, error) {
	f, err := s.d.OpenFile(name, os.O_RDWR)
	if errors.Is(err, fs.ErrPermission) { // it has its final mode already
		i, lerr := s.d.Lstat(name)
		if lerr != nil || !i.Mode.IsRegular() || i.Nlink > 1 {
			return nil, err
		}
		if merr := s.d.SetMeta(name, 0o600, time.Unix(0, i.MTime)); merr != nil {
			return nil, err
		}
		f, err = s.d.OpenFile(name, os.O_RDWR)
	}
	if err != nil {
		return nil, err
	}
	if i, err := f.Info(); err != nil || i.Nlink > 1 {
		_ = f.Close() // nothing was written
		return nil, errors.Join(err, errLinked)
	}
	return f, nil
}

var errLinked = errors.New("has another name too (a hard link)")

// removeData removes what a fresh part has got before Open failed.
func (s *Store) removeData() {
	entries := s.m.Entries()
	if !s.m.IsFile() {
		for e := len(entries) - 1; e >= 0; e-- {
			if s.selected(e) && (entries[e].Kind == manifest.Dir || s.large(e)) {
				_ = s.d.Remove(s.data(e)) // what stays is a part that can be gone on with
			}
		}
	}
	_ = s.d.Remove(s.in(dataName))
}
