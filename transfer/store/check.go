package store

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A fileID says which file of the disk a name stood for.
type fileID struct{ dev, ino uint64 }

var errChanged = errors.New("was changed by another program meanwhile; the same line fetches anew what is missing")

// checkNames makes sure that what is about to get the final name is what was
// written: under its name, under no other, of its length, and not touched since
// as far as the system can say. What looks different is hashed. What is wrong is
// taken back, so that the next run fetches it. redone says that some of it had to
// be given its mode and time again, which is not flushed.
func (s *Store) checkNames() (redone bool, err error) {
	s.d.Forget()
	entries := s.m.Entries()
	children := map[string]int{}
	for e := range entries {
		x := &entries[e]
		if !s.selected(e) {
			continue
		}
		if !s.m.IsFile() {
			children[path.Dir(x.Path)]++
		}
		if x.Kind != manifest.File {
			continue
		}
		i, err := s.d.Lstat(s.data(e))
		switch {
		case err != nil:
			return redone, s.diskError("finish", s.data(e), err)
		case !i.Mode.IsRegular():
			return redone, s.diskError("finish", s.data(e), errNotFile)
		case i.Nlink > 1:
			return redone, s.diskError("finish", s.data(e), errLinked)
		case s.untouched(e, i):
			continue
		}
		if err := s.verify(e, i); err != nil {
			return redone, s.diskError("finish", s.data(e), err)
		}
		if err := s.d.SetMeta(s.data(e), fileMode(x.Mode), x.ModTime()); err != nil {
			return redone, s.diskError("set the mode of", s.data(e), err)
		}
		redone = true
	}
	return redone, s.warnOfGuests(children)
}

// untouched reports whether the file of an entry looks as this store has left it.
func (s *Store) untouched(e int, i Info) bool {
	x := &s.m.Entries()[e]
	if i.Size != x.Size {
		return false
	}
	if id, ok := s.ids[e]; ok && id != (fileID{i.Dev, i.Ino}) {
		return false
	}
	// A file gets its time last: whoever writes to it afterwards gives it another.
	return i.MTime == x.ModTime().UnixNano()
}

// coarse is the step, in ns, of file times on the disks that keep them worst.
const coarse = int64(2 * time.Second)

// verify hashes the chunks of an entry's file anew, from the file that has its
// name now, and drops those that are wrong. Of a chunk that is wanted only in
// part nothing but the time of the file can tell.
func (s *Store) verify(e int, i Info) error {
	h := chunk.NewHasher()
	defer h.Release()
	wrong := error(nil)
	buf := make([]byte, 256<<10)
	first, end := s.m.Chunks(e)
	late := i.MTime - s.m.Entries()[e].ModTime().UnixNano()
	for c := first; c < end; c++ {
		h.Reset()
		if !s.Complete(c) && -coarse < late && late < coarse {
			continue
		}
		if err := s.hash(h, c, buf); err == nil && h.Sum() == s.m.ChunkHash(c) {
			continue
		}
		wrong = errChanged
		if err := s.Drop(c); err != nil {
			return err
		}
	}
	return wrong
}

// hash writes chunk i into h, from files that are opened for it.
func (s *Store) hash(h *chunk.Hasher, i int, buf []byte) error {
	for x := range s.m.Extents(i) {
		if !s.selected(x.Entry) {
			return errors.New("a part of it is not wanted, so it cannot be hashed")
		}
		f, err := s.d.OpenFile(s.data(x.Entry), 0)
		if err != nil {
			return err
		}
		for off := 0; off < x.Len && err == nil; off += len(buf) {
			p := buf[:min(len(buf), x.Len-off)]
			if err = readFull(f, p, x.Off+int64(off)); err == nil {
				_, err = h.Write(p)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// warnOfGuests tells of files in the share that are not of it: they get the
// final name with it. children says how many names each folder should have.
func (s *Store) warnOfGuests(children map[string]int) error {
	if s.m.IsFile() {
		return nil
	}
	entries := s.m.Entries()
	look := func(dir, name string) error {
		names, err := s.d.Names(name, -1)
		if err != nil {
			return s.diskError("list", name, err)
		}
		if len(names) <= children[dir] {
			return nil
		}
		known := make(map[string]bool, children[dir])
		for e := range entries {
			if s.selected(e) && path.Dir(entries[e].Path) == dir {
				known[path.Base(entries[e].Path)] = true
			}
		}
		var guests []string
		for _, n := range names {
			if !known[n] && len(guests) < 4 {
				guests = append(guests, quote(path.Join(dir, n)))
			}
		}
		s.o.Warn(fmt.Sprintf("%s: not of this share; somebody put it there, and it stays", strings.Join(guests, ", ")))
		return nil
	}
	if err := look(".", s.in(dataName)); err != nil {
		return err
	}
	for e := range entries {
		if entries[e].Kind == manifest.Dir && s.selected(e) {
			if err := look(entries[e].Path, s.data(e)); err != nil {
				return err
			}
		}
	}
	return nil
}
