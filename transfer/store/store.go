package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// PartSuffix is what the folder of an unfinished share has behind its name. No
// name in a manifest may end in it.
const PartSuffix = manifest.PartSuffix

// Names in a part.
const (
	lockName     = "lock"
	manifestName = "manifest"
	requestName  = "request"
	journalName  = "journal"
	dataName     = "data"
)

// MaxRequest is the most bytes that Options.Request may have.
const MaxRequest = 64 << 10

// Options say what Open opens.
type Options struct {
	Final     string // name of the finished share in the disk's folder
	Manifest  *manifest.Manifest
	Selection *manifest.Selection // nil: everything
	Request   []byte              // kept in the part for Find
	Recheck   bool                // hash what is there again
	Merge     *Survey             // the final name is there, and this is what lies in it; Selection is its own
	Replace   bool                // what is at the final name goes when the share is complete
	KeepOld   bool                // or stays beside it
	Warn      func(text string)   // nil: nobody
}

// A Store holds the chunks of one share that is being fetched. Write, ReadAt,
// Complete, Drop, Checked and Barrier may be called by any number of goroutines;
// Finish and Close by one, when the others have returned from Write.
//
// Its code lies in resume.go (what an earlier run has left), layout.go (what is
// made before the first chunk), write.go, barrier.go, finish.go, merge.go (a finish into what is there), and journal.go.
type Store struct {
	d      Disk
	o      Options
	m      *manifest.Manifest
	part   string // name of the part in the disk's folder
	unlock func() error

	kept     *chunk.Bitfield // as of Open
	doubtful *chunk.Bitfield // those of kept that are to be hashed; nil: none
	found    []found         // by entry, while Open runs; nil: the part is fresh
	ids      map[int]fileID  // the large files that Open has found or made

	jmu     sync.Mutex // guards the journal's end, for one small write at a time
	journal File
	id      [idLen]byte
	seq     uint32 // number of the next record
	covered uint32 // records that the last barrier covers
	rec     [recordLen]byte
	failed  error // a flush failed: nothing that is written now would be believed

	bmu sync.Mutex // held by Barrier: a second must not overtake the first, nor the end

	fmu     sync.Mutex // guards the open files and what is dirty, never held over I/O
	files   map[int]*handle
	clock   uint64
	dirty   map[int]struct{} // large files written since the last barrier
	smalls  []int            // small ones, some twice
	names   bool             // names were made that no flush of a file covers
	evicted bool             // a dirty file was closed: its errors show only in SyncAll

	cloned  atomic.Int64 // bytes that share their space with other files
	refused atomic.Int32 // times in a row that the system would not do that
	placing bool         // an earlier run was stopped while it gave the files their names
	placed  *Placed      // by Finish, with Options.Merge

	replace *replacement // what is replaced; nil: nothing
	old     string       // the name under which it is kept

	warnOnce sync.Once
	closed   bool
}

// Open creates the part of a share, or goes on with the one that is there. The
// part is locked until Finish or Close; both close d too.
func Open(ctx context.Context, d Disk, o Options) (*Store, error) {
	s := &Store{d: d, o: o, m: o.Manifest, part: o.Final + PartSuffix, files: map[int]*handle{}, dirty: map[int]struct{}{}}
	if s.o.Warn == nil {
		s.o.Warn = func(string) {}
	}
	if err := manifest.CheckName(o.Final); err != nil {
		return nil, err
	}
	final := fmt.Errorf("%s %w", quote(filepath.Join(d.Path(), o.Final)), ErrExists)
	_, err := d.Lstat(o.Final)
	if o.Merge != nil {
		err = fs.ErrNotExist // what is there was looked at
	} else if err == nil && !o.Replace && !s.finished() && !s.replacing() {
		return nil, final
	} else if err == nil {
		// Only the end of the end is missing.
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, s.diskError("look at", o.Final, err)
	}
	exists := err == nil
	fresh := false
	if err := d.Mkdir(s.part); err == nil {
		fresh = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, s.diskError("create", s.part, err)
	} else if i, err := d.Lstat(s.part); err != nil || !i.Mode.IsDir() {
		return nil, s.diskError("use", s.part, errors.Join(err, errNotDir))
	}
	if !fresh && (!exists || o.Replace) && !s.replacing() && s.foreign() {
		return nil, fmt.Errorf("%s %w", quote(filepath.Join(d.Path(), s.part)), ErrNotPart)
	}
	if s.unlock, err = d.Lock(s.in(lockName)); err != nil {
		var locked *LockedError
		if errors.As(err, &locked) {
			return nil, locked
		}
		err = s.diskError("lock", s.in(lockName), err)
		if fresh {
			_ = d.Remove(s.part) // it is empty
		}
		return nil, err
	}
	if done, err := s.endReplacement(); err != nil {
		return nil, errors.Join(err, s.unlock())
	} else if done { // perhaps as another share: the caller looks
		return nil, errors.Join(final, s.unlock())
	}
	if exists && !o.Replace { // a run that was stopped between its last two steps
		if s.finished() {
			s.removePart()
		}
		return nil, errors.Join(final, s.unlock())
	}
	if err := s.open(ctx, fresh); err != nil {
		s.closeFiles()
		if fresh {
			s.removeData()
			s.removePart()
		}
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

func (s *Store) in(name string) string { return s.part + "/" + name }

// data returns the name of an entry's file in the part.
func (s *Store) data(entry int) string {
	if s.m.IsFile() {
		return s.in(dataName)
	}
	return s.in(dataName) + "/" + s.m.Entries()[entry].Path
}

func (s *Store) selected(entry int) bool {
	return s.o.Selection == nil || s.o.Selection.Entries.Has(entry)
}

// large reports whether a file is made, with its space, before its first chunk
// comes. Small ones are made when their chunk comes, whole.
func (s *Store) large(entry int) bool {
	return s.m.Entries()[entry].Size >= int64(s.m.Cutter().Size())
}

// diskError says what could not be done, to what. A disk that is full is told
// apart: a user can free space.
func (s *Store) diskError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var n *NoSpaceError
	if errors.As(err, &n) {
		return n
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) {
		if n := s.noSpace(); n != nil {
			n.Err = err
			return n
		}
	}
	if errors.Is(err, errNotDir) || errors.Is(err, errNotFile) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%w; move it away and run the same line again", err) // nothing of it is ours
	}
	return &DiskError{Op: op, Path: filepath.Join(s.d.Path(), filepath.FromSlash(name)), Err: err}
}

// noSpace compares what is still to be made with what there is room for. It
// returns nil if that does not explain why a disk says that it is full.
func (s *Store) noSpace() *NoSpaceError {
	need, files := int64(0), int64(0)
	for e, x := range s.m.Entries() {
		if !s.selected(e) {
			continue
		}
		if i, err := s.d.Lstat(s.data(e)); err != nil {
			files++
			need += x.Size
		} else if x.Kind == manifest.File {
			need += max(0, x.Size-i.Size)
		}
	}
	have, free := s.d.Free()
	switch {
	case free >= 0 && free < files:
		return &NoSpaceError{Need: files, Have: free, Files: true, Dir: s.d.Path()}
	case have >= 0 && have < need:
		return &NoSpaceError{Need: need, Have: have, Dir: s.d.Path()}
	}
	return nil
}

// Have returns the chunks that were there when the store was opened.
func (s *Store) Have() *chunk.Bitfield { return s.kept.Clone() }

// Doubtful returns those of Have that were written before the machine was last
// started, and were not hashed since, or nil if there are none. They must be
// hashed before Finish: tell Checked or Drop of each.
func (s *Store) Doubtful() *chunk.Bitfield { return s.doubtful }

// Placing reports whether everything was fetched by an earlier run that was
// stopped while it gave the files their names: only Finish is left to be done.
func (s *Store) Placing() bool { return s.placing }

// Placed returns what Finish did to the files that were there; nil without
// Options.Merge.
func (s *Store) Placed() *Placed { return s.placed }

// Kept returns how much was there when the store was opened.
func (s *Store) Kept() (chunks int, bytes int64) {
	for r := range s.kept.Ranges() {
		if s.o.Selection == nil {
			bytes += s.m.ChunkOffset(r.End()) - s.m.ChunkOffset(r.First)
			continue
		}
		for i := r.First; i < r.End(); i++ {
			for x := range s.m.Extents(i) {
				if s.selected(x.Entry) {
					bytes += int64(x.Len)
				}
			}
		}
	}
	return s.kept.Count(), bytes
}

// Complete reports whether all bytes of chunk i are kept: not if the selection
// leaves out a part of it.
func (s *Store) Complete(i int) bool {
	if s.o.Selection == nil {
		return true
	}
	for x := range s.m.Extents(i) {
		if !s.selected(x.Entry) {
			return false
		}
	}
	return true
}

// ignoreUnsupported forgives file systems that cannot flush: what they hold is
// hashed again after a restart of the machine.
func (s *Store) ignoreUnsupported(err error) error {
	if unsupported(err) {
		s.warnOnce.Do(func() {
			s.o.Warn("this file system cannot flush; after a crash of the machine everything is checked again")
		})
		return nil
	}
	return err
}

func unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}

// Close checkpoints what was written and leaves the part for the next Open.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.journal != nil && s.failed == nil { // else Finish has flushed everything, or it was said what failed
		err = s.Barrier()
	}
	s.closeFiles()
	return errors.Join(err, s.unlock(), s.d.Close())
}
