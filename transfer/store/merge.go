package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// placingName is a file of the part that says that everything was fetched, checked
// and flushed, and gets its final names one by one.
const placingName = "placing"

// Placed says what a merge did besides giving files their names.
type Placed struct {
	Entries     *chunk.Bitfield   // those that have their own name now
	Skipped     []string          // paths of files that were left as they are
	Renamed     map[string]string // from the path in the share to the name it got
	Overwritten int

	left []int // entries whose file is not needed, and goes at the end
}

// An action is what becomes of one file of the part.
type action uint8

const (
	actNone    action = iota // it has its name already
	actMove                  // nothing is at its name
	actReplace               // what is there goes, in the same step
	actAside                 // it gets another name beside it
	actDrop                  // what is there has the same content
	actSkip                  // what is there stays
)

// openMerge records what lies at the final name. It reports whether an earlier run
// was stopped while it gave the files their names, so that nothing else is to be
// done; s.kept is set then.
func (s *Store) openMerge() (placing bool, err error) {
	v := s.o.Merge
	if v == nil || !v.placed {
		// It does not hold any more, if it is there.
		err := removeIfThere(s.d, s.in(placingName))
		if err == nil && v == nil {
			err = removeIfThere(s.d, s.in(mergeName))
		}
		if err != nil || v == nil {
			return false, s.diskError("remove", s.in(placingName), err)
		}
		if err := s.oneDisk(); err != nil {
			return false, err
		}
		return false, s.place(mergeName, v.encode())
	}
	s.placing = true
	s.kept = chunk.NewBitfield(s.m.NumChunks())
	for i := range each(v.need.Chunks) {
		s.kept.Set(i)
	}
	return true, nil
}

// oneDisk makes sure that a file can be renamed from the part to its place.
func (s *Store) oneDisk() error {
	part, err := s.d.Lstat(s.part)
	if err != nil {
		return s.diskError("look at", s.part, err)
	}
	i, err := s.d.Lstat(s.o.Final)
	if err == nil && i.Dev != part.Dev {
		return s.o.Merge.mounted(s.o.Final, "is on another disk than the folder it lies in; name a folder in it as DIR")
	}
	return nil
}

// merge gives the files of the part their names in the share's folder, which is
// there already: each by one rename, which replaces only what the user said may be
// replaced. It may be stopped at any point and done again.
func (s *Store) merge() (*Placed, error) {
	s.d.Forget()
	p := &Placed{Entries: chunk.NewBitfield(len(s.m.Entries())), Renamed: map[string]string{}}
	todo, err := s.decide()
	if err != nil {
		return nil, err
	}
	if !s.m.IsFile() {
		if err := s.mkdir(s.o.Final); err != nil {
			return nil, err
		}
	}
	for e := range s.m.Entries() {
		if !s.selected(e) {
			continue
		}
		if s.m.Entries()[e].Kind == manifest.Dir {
			if err := s.mkdir(s.o.Merge.at(e)); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.put(e, todo[e], p); err != nil {
			return nil, err
		}
	}
	if err := s.settleDirs(); err != nil {
		return nil, err
	}
	if err := s.flushMerged(); err != nil {
		return nil, err
	}
	s.removeMerged(p.left)
	return p, nil
}

// decide finds out what becomes of each file, before any is moved.
func (s *Store) decide() ([]action, error) {
	todo := make([]action, len(s.m.Entries()))
	collisions := &CollisionError{Dir: filepath.Join(s.d.Path(), s.o.Final)}
	for e, x := range s.m.Entries() {
		if x.Kind == manifest.Dir || !s.selected(e) {
			continue
		}
		a, err := s.actionFor(e)
		if errors.Is(err, errTaken) {
			collisions.add(s.o.Merge.path(e))
		} else if err != nil {
			return nil, err
		}
		todo[e] = a
	}
	return todo, collisions.orNil()
}

// errTaken is returned by actionFor if another file is there and nothing was said
// about what becomes of it.
var errTaken = errors.New("is taken")

func (s *Store) actionFor(e int) (action, error) {
	v := s.o.Merge
	x, name := &s.m.Entries()[e], v.at(e)
	i, err := s.d.Lstat(name)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, s.diskError("look at", name, err)
	}
	if _, err := s.d.Lstat(s.data(e)); errors.Is(err, fs.ErrNotExist) {
		// An earlier run has placed it.
		if v.how == Rename || v.how == Skip || there && (x.Kind == manifest.Symlink || i.Mode.IsRegular() && i.Size == x.Size) {
			return actNone, nil
		}
		_ = s.d.Remove(s.in(placingName)) // the next run compares everything anew
		return 0, s.diskError("finish", name, errChanged)
	} else if err != nil {
		return 0, s.diskError("look at", s.data(e), err)
	}
	if !there {
		return actMove, nil
	}
	if x.Kind == manifest.File && !i.Mode.IsRegular() || x.Kind == manifest.Symlink && i.Mode.Type() != fs.ModeSymlink {
		return 0, v.blocked(name, "is %s now; what was fetched is kept", kindOf(i.Mode))
	}
	same, err := s.equal(e, name)
	switch {
	case err != nil:
		return 0, s.diskError("compare", name, err)
	case same:
		return actDrop, nil
	}
	switch v.how {
	case Overwrite:
		return actReplace, nil
	case Rename:
		return actAside, nil
	case Skip:
		return actSkip, nil
	}
	return 0, errTaken
}

// equal reports whether what is at name has the content of entry e in the part.
func (s *Store) equal(e int, name string) (bool, error) {
	x := &s.m.Entries()[e]
	if x.Kind == manifest.Symlink {
		target, err := s.d.Readlink(name)
		return target == x.Target, err
	}
	a, err := s.d.OpenFile(s.data(e), os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := s.d.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer b.Close()
	i, err := b.Info()
	if err != nil || i.Size != x.Size {
		return false, err
	}
	const step = 256 << 10
	p, q := make([]byte, min(x.Size, step)), make([]byte, min(x.Size, step))
	for off := int64(0); off < x.Size; off += step {
		n := min(x.Size-off, step)
		if err := errors.Join(readFull(a, p[:n], off), readFull(b, q[:n], off)); err != nil {
			return false, err
		}
		if string(p[:n]) != string(q[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// put does what was decided for entry e. If something has appeared at its name
// meanwhile, it is decided again.
func (s *Store) put(e int, a action, p *Placed) error {
	v := s.o.Merge
	from, name := s.data(e), v.at(e)
	if a == actMove {
		err := s.d.Rename(from, name)
		if err == nil {
			p.Entries.Set(e)
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return s.diskError("rename", from, err)
		}
		if a, err = s.actionFor(e); errors.Is(err, errTaken) {
			return &CollisionError{Dir: filepath.Join(s.d.Path(), s.o.Final), Paths: []string{v.path(e)}, Num: 1}
		} else if err != nil {
			return err
		}
	}
	switch a {
	case actReplace:
		if err := s.d.Replace(from, name); err != nil {
			return s.diskError("replace", name, err)
		}
		p.Overwritten++
		p.Entries.Set(e)
	case actAside:
		return s.putAside(e, p)
	case actSkip:
		p.Skipped = append(p.Skipped, v.path(e))
		p.left = append(p.left, e)
	case actDrop:
		p.Entries.Set(e)
		p.left = append(p.left, e)
	case actNone:
		if v.how != Rename && v.how != Skip {
			p.Entries.Set(e)
		}
	}
	return nil
}

// putAside gives entry e the first of the names NAME.1, NAME.2... that is free, or
// finds it there.
func (s *Store) putAside(e int, p *Placed) error {
	from := s.data(e)
	for k := 1; k <= maxAside; k++ {
		name := s.o.Merge.asideName(e, k)
		if name == "" {
			continue
		}
		err := s.d.Rename(from, name)
		if errors.Is(err, fs.ErrExist) {
			i, lerr := s.d.Lstat(name)
			if lerr != nil || i.Mode.Type() != 0 && i.Mode.Type() != fs.ModeSymlink {
				continue
			}
			if same, eerr := s.equal(e, name); eerr != nil || !same {
				continue
			}
			p.left = append(p.left, e)
			err = nil
		}
		if err != nil {
			return s.diskError("rename", from, err)
		}
		p.Renamed[s.o.Merge.path(e)] = name
		return nil
	}
	return s.diskError("rename", from, fmt.Errorf("its name and %d others beside it are taken", maxAside))
}

// settleDirs gives the directories that were not there before their mode and time,
// after all that is in them.
func (s *Store) settleDirs() error {
	entries := s.m.Entries()
	for e := len(entries) - 1; e >= 0; e-- {
		x := &entries[e]
		if x.Kind != manifest.Dir || !s.selected(e) || s.o.Merge.class[e] != classAbsent {
			continue
		}
		if err := s.d.SetMeta(s.o.Merge.at(e), dirMode(x.Mode), x.ModTime()); err != nil {
			return s.diskError("set the time of", s.o.Merge.at(e), err)
		}
	}
	return nil
}

// flushMerged flushes the new names.
func (s *Store) flushMerged() error {
	err := s.d.SyncAll()
	if err == nil || !unsupported(err) {
		return s.diskError("flush", s.o.Final, err)
	}
	names := []string{"."}
	if !s.m.IsFile() {
		names = append(names, s.o.Final)
	}
	for e, x := range s.m.Entries() {
		if x.Kind == manifest.Dir && s.selected(e) {
			names = append(names, s.o.Merge.at(e))
		}
	}
	for _, name := range names {
		if err := s.ignoreUnsupported(s.d.Sync(name)); err != nil {
			return s.diskError("flush", name, err)
		}
	}
	return nil
}

// removeMerged removes the folders of the part, which are empty but for what is
// not of the share: that stays, and they with it.
func (s *Store) removeMerged(left []int) {
	entries := s.m.Entries()
	for _, e := range left {
		_ = s.d.Remove(s.data(e))
	}
	for e := len(entries) - 1; e >= 0 && !s.m.IsFile(); e-- {
		if entries[e].Kind == manifest.Dir && s.selected(e) {
			_ = s.d.Remove(s.data(e))
		}
	}
	if !s.m.IsFile() {
		_ = s.d.Remove(s.in(dataName))
	}
	s.removePart()
}
