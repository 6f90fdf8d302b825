package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// Where a replacement is. Each phase is on disk before what it stands for begins.
const (
	phaseFetch  = "fetch"  // the old is where it was
	phaseSwap   = "swap"   // the new is complete, and changes places with the old
	phaseRemove = "remove" // the new is in place, and the old, which lies in the part, goes
)

const (
	replaceName = "replace"
	oldName     = "old"
)

// A replacement is what is known of what lies at the final name. It is kept in the
// part, so that whoever goes on after a kill knows what lies where.
type replacement struct {
	root     chunk.Hash // of the share
	phase    string
	keep     bool
	old, new fileID     // what lies at the final name, and what is to; zero: not known yet
	state    chunk.Hash // of the old, when it was first seen
}

func (r *replacement) encode() []byte {
	return fmt.Appendf(nil, "shoal-replace 1\nroot %s\nphase %s\nkeep %t\nold %d %d\nnew %d %d\nstate %s\n",
		r.root, r.phase, r.keep, r.old.dev, r.old.ino, r.new.dev, r.new.ino, r.state)
}

func parseReplacement(p []byte) (*replacement, error) {
	r := &replacement{}
	var root, state string
	_, err := fmt.Sscanf(string(p), "shoal-replace 1\nroot %s\nphase %s\nkeep %t\nold %d %d\nnew %d %d\nstate %s\n",
		&root, &r.phase, &r.keep, &r.old.dev, &r.old.ino, &r.new.dev, &r.new.ino, &state)
	if err == nil {
		r.root, err = chunk.ParseHash(root)
	}
	if err == nil {
		r.state, err = chunk.ParseHash(state)
	}
	if err == nil && string(r.encode()) != string(p) {
		err = errors.New("it is not as shoal writes it")
	}
	return r, err
}

const maxReplacement = 1024

// readReplacement returns what an earlier run has noted, or nil.
func (s *Store) readReplacement() (*replacement, error) {
	p, err := readFile(s.d, s.in(replaceName), maxReplacement)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r *replacement
	if err == nil {
		r, err = parseReplacement(p)
	}
	if err != nil {
		return nil, s.diskError("use", s.in(replaceName), fmt.Errorf("%w; move %s away and run the same line again", err, quote(s.part)))
	}
	return r, nil
}

func (s *Store) noteReplacement() error { return s.place(replaceName, s.replace.encode()) }

// replacing reports whether the part says that it replaces something.
func (s *Store) replacing() bool {
	_, err := s.d.Lstat(s.in(replaceName))
	return err == nil
}

func idOf(i Info) fileID { return fileID{i.Dev, i.Ino} }

// endReplacement finishes what a run that was killed had begun to exchange. done
// says that the share of the part is in place, and that the part is gone.
func (s *Store) endReplacement() (done bool, err error) {
	r, err := s.readReplacement()
	if r == nil || err != nil || r.phase == phaseFetch {
		return false, err
	}
	s.replace = r
	data, derr := s.d.Lstat(s.in(dataName))
	_, oerr := s.d.Lstat(s.in(oldName))
	_, ferr := s.d.Lstat(s.o.Final)
	for _, err := range []error{derr, oerr, ferr} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, s.diskError("look at", s.part, err)
		}
	}
	switch {
	case derr != nil: // the new is in place, whatever has become of the old
	case oerr == nil && ferr != nil: // between two renames
		if err := s.d.Rename(s.in(dataName), s.o.Final); err != nil {
			return false, s.diskError("rename", s.in(dataName), err)
		}
	case oerr == nil: // and somebody has put something else there
		if err := s.keepOld(); err != nil {
			return false, err
		}
		r.phase = phaseFetch
		return false, s.noteReplacement()
	case idOf(data) == r.old && r.old != (fileID{}): // exchanged
		if err := s.d.Rename(s.in(dataName), s.in(oldName)); err != nil {
			return false, s.diskError("rename", s.in(dataName), err)
		}
	default: // not exchanged yet
		return false, nil
	}
	return true, s.leave()
}

// beginReplacement notes what lies at the final name, for the end.
func (s *Store) beginReplacement() error {
	i, err := s.d.Lstat(s.o.Final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.diskError("look at", s.o.Final, err)
	}
	if !i.Mode.IsDir() && !i.Mode.IsRegular() {
		return fmt.Errorf("%s %w, and is %w", quote(filepath.Join(s.d.Path(), s.o.Final)), ErrExists, ErrNoReplacing)
	}
	if s.replace == nil {
		if s.replace, err = s.readReplacement(); err != nil {
			return err
		}
	}
	if r := s.replace; r != nil && r.root == s.m.Root() { // of an earlier run: what the old was then counts
		r.keep, r.phase, r.old, r.new = r.keep || s.o.KeepOld, phaseFetch, fileID{}, fileID{}
		return s.noteReplacement()
	}
	state, err := s.stateOf(s.o.Final)
	if err != nil {
		return err
	}
	s.replace = &replacement{root: s.m.Root(), phase: phaseFetch, keep: s.o.KeepOld, state: state}
	return s.noteReplacement()
}

// swap puts the finished share into the place of what is there. Whenever it is
// stopped, one of the two has the final name, whole, or, where names cannot be
// exchanged, nobody for a moment, and the next run goes on.
func (s *Store) swap() error {
	i, err := s.d.Lstat(s.o.Final)
	if errors.Is(err, fs.ErrNotExist) { // somebody took it away
		s.replace = nil
		if err := removeIfThere(s.d, s.in(replaceName)); err != nil {
			return s.diskError("remove", s.in(replaceName), err)
		}
		return s.rename()
	}
	data := s.in(dataName)
	var di Info
	if err == nil {
		di, err = s.d.Lstat(data)
	}
	if err != nil {
		return s.diskError("replace", s.o.Final, err)
	}
	s.replace.old, s.replace.new, s.replace.phase = idOf(i), idOf(di), phaseSwap
	if err := s.noteReplacement(); err != nil {
		return err
	}
	err = errors.ErrUnsupported
	if i.Ino != 0 && idOf(i) != idOf(di) { // else nobody could tell afterwards which is which
		err = s.d.Exchange(data, s.o.Final)
	}
	switch {
	case err == nil:
		if err := s.syncNames(); err != nil {
			return err
		}
		if err := s.d.Rename(data, s.in(oldName)); err != nil {
			return s.diskError("rename", data, err)
		}
	case errors.Is(err, errors.ErrUnsupported):
		if err := s.d.Rename(s.o.Final, s.in(oldName)); err != nil {
			return s.diskError("replace", s.o.Final, err)
		}
		if err := s.d.Rename(data, s.o.Final); err != nil {
			return s.diskError("rename", data, err)
		}
	default:
		return s.diskError("replace", s.o.Final, err)
	}
	return nil
}

// leave does what is left when the share has its final name: it makes that
// durable, and removes the part with what was replaced.
func (s *Store) leave() error {
	if err := s.syncNames(); err != nil {
		return err
	}
	if s.replace != nil {
		if left, err := s.settleOld(); left || err != nil {
			return err
		}
	}
	s.removePart()
	return nil
}

func (s *Store) syncNames() error {
	for _, dir := range []string{".", s.part} {
		if err := s.ignoreUnsupported(s.d.Sync(dir)); err != nil {
			return s.diskError("flush", "", err)
		}
	}
	return nil
}

// settleOld keeps or removes what was replaced. left says that some of it could
// not be removed: the next run tries again.
func (s *Store) settleOld() (left bool, err error) {
	if _, err := s.d.Lstat(s.in(oldName)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	r := s.replace
	if r.phase != phaseRemove {
		state, err := s.stateOf(s.in(oldName))
		var blocked *BlockedError // another disk was mounted in it meanwhile
		if err != nil && !errors.As(err, &blocked) {
			return false, err
		}
		changed := err != nil || state != r.state
		if changed || r.keep {
			if err := s.keepOld(); err != nil {
				return false, err
			}
			if changed {
				s.o.Warn(fmt.Sprintf("%s was changed while the share was fetched; what lay there is kept as %s", quote(s.o.Final), quote(s.old)))
			}
			return false, nil
		}
		r.phase = phaseRemove
		if err := s.noteReplacement(); err != nil {
			return false, err
		}
	}
	if err := s.removeTree(s.in(oldName), 0); err != nil {
		s.o.Warn(fmt.Sprintf("the old %s is not all removed: %v; the same line tries again, or remove %s", quote(s.o.Final), err, quote(s.part)))
		return true, nil
	}
	return false, nil
}

// maxOld is how many old versions may lie beside each other.
const maxOld = 10_000

// keepOld gives what was replaced a name beside the share.
func (s *Store) keepOld() error {
	for n := 1; n <= maxOld; n++ {
		name := s.o.Final + ".old"
		if n > 1 {
			name = fmt.Sprintf("%s.old.%d", s.o.Final, n)
		}
		err := s.d.Rename(s.in(oldName), name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			s.old = name
			err = s.ignoreUnsupported(s.d.Sync("."))
		}
		return s.diskError("rename", s.in(oldName), err)
	}
	return s.diskError("rename", s.in(oldName), errors.New("there are too many old versions beside it"))
}

// Old returns the name, beside the share, under which what it has replaced is
// kept; "" if it is not.
func (s *Store) Old() string { return s.old }

// maxTreeDepth bounds how deep a tree that is replaced may be.
const maxTreeDepth = 1000

var errTooDeep = errors.New("is too deep")

// removeTree removes a file, or a folder with all that is in it. Links go, and not
// what they lead to.
func (s *Store) removeTree(name string, depth int) error {
	i, err := s.d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if depth > maxTreeDepth {
		return errTooDeep
	}
	if i.Mode.IsDir() {
		if i.Mode.Perm()&0o700 != 0o700 {
			_ = s.d.SetMeta(name, 0o700, time.Unix(0, i.MTime)) // if it matters, the next step fails
		}
		// What is mounted in it is not of it. The system tells that before it looks
		// whether a folder is empty.
		if err := s.d.Remove(name); err == nil || errors.Is(err, syscall.EBUSY) {
			return err
		}
		names, err := s.d.Names(name, -1)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := s.removeTree(name+"/"+n, depth+1); err != nil {
				return err
			}
		}
	}
	if err := s.d.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stateOf returns a hash of what a tree looks like, without reading its files: it
// changes if any of them is written to, comes or goes. A folder on another disk is a
// *BlockedError.
func (s *Store) stateOf(top string) (state chunk.Hash, err error) {
	h := chunk.NewHasher()
	defer h.Release()
	var num [8 * 6]byte
	add := func(path string, values ...uint64) {
		for k, v := range append(values, uint64(len(path))) {
			binary.LittleEndian.PutUint64(num[8*k:], v)
		}
		_, _ = h.Write(num[:8*(len(values)+1)]) // a hash takes everything
		_, _ = h.WriteString(path)
	}
	var look func(name string, depth int) error
	var dev uint64
	look = func(name string, depth int) error {
		if depth > maxTreeDepth {
			return errTooDeep
		}
		i, err := s.d.Lstat(name)
		if err != nil {
			return err
		}
		rel, mode := strings.TrimPrefix(name, top), uint64(i.Mode)
		if !i.Mode.IsDir() {
			ctime := i.CTime
			if rel == "" {
				ctime = 0 // to rename it changes that
			}
			add(rel, mode, uint64(i.Size), uint64(i.MTime), uint64(ctime), i.Ino)
			return nil
		}
		if depth == 0 {
			dev = i.Dev
		} else if i.Dev != dev { // it would go with the old version
			return &BlockedError{
				Path: filepath.Join(s.d.Path(), filepath.FromSlash(name)), Mounted: true,
				Why: "is on another disk than the folder above it, and an update replaces all that is there",
			}
		}
		add(rel, mode)
		names, err := s.d.Names(name, -1)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			if err := look(name+"/"+n, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	var blocked *BlockedError
	if err := look(top, 0); errors.As(err, &blocked) {
		return state, err
	} else if err != nil {
		return state, s.diskError("look at", top, err)
	}
	return h.Sum(), nil
}
