package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// PartSuffix is what the folder of an unfinished share has behind its name. No
// name in a manifest may end in it.
const PartSuffix = ".shoal-part"

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

// maxYounger is how much younger than the journal a file may be and still count:
// each record follows what it records, so whatever is younger was touched by
// somebody else. It allows for the steps of the kernel's clock.
const maxYounger = int64(100 * time.Millisecond)

// Options say what Open opens.
type Options struct {
	Final     string // name of the finished share in the disk's folder
	Manifest  *manifest.Manifest
	Selection *manifest.Selection // nil: everything
	Request   []byte              // kept in the part for Find
	Recheck   bool                // hash what is there again
	Warn      func(text string)   // nil: nobody
}

// A Store holds the chunks of one share that is being fetched. Write, ReadAt,
// Complete, Drop and Barrier may be called by any number of goroutines.
type Store struct {
	d      Disk
	o      Options
	m      *manifest.Manifest
	part   string // name of the part in the disk's folder
	unlock func() error

	kept     *chunk.Bitfield // as of Open
	doubtful *chunk.Bitfield

	jmu     sync.Mutex // guards the journal's end, for one small write at a time
	journal File
	id      [idLen]byte
	seq     uint32
	rec     [recordLen]byte
	failed  error // a flush failed: nothing that is written now would be believed

	fmu   sync.Mutex // guards the open files and what is dirty, never held over I/O
	files map[int]*handle
	clock uint64
	dirty map[int]struct{} // large files written since the last barrier
	small bool             // small files were

	warnOnce sync.Once
	closed   bool
}

// A handle is a large file that is open. Its mu lets one writer in at a time:
// two would spin on the file's lock in the kernel.
type handle struct {
	mu   sync.Mutex
	f    File
	refs int
	used uint64
}

// maxOpen bounds the files that are open at once.
const maxOpen = 24

// Open creates the part of a share, or goes on with the one that is there. The
// part is locked until Finish or Close.
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
	if err == nil && !s.finished() {
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
		return nil, s.diskError("create a folder in", "", err)
	} else if i, err := d.Lstat(s.part); err != nil || !i.Mode.IsDir() {
		return nil, s.diskError("use", s.part, errors.Join(err, errNotDir))
	}
	if s.unlock, err = d.Lock(s.in(lockName)); err != nil {
		var locked *LockedError
		if errors.As(err, &locked) {
			return nil, locked
		}
		return nil, s.diskError("lock", s.in(lockName), err)
	}
	if exists { // a run that was stopped between its last two steps
		s.removePart()
		return nil, errors.Join(final, s.unlock())
	}
	if err := s.open(ctx, fresh); err != nil {
		s.closeFiles()
		if fresh {
			s.removePart()
		}
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

func (s *Store) in(name string) string { return s.part + "/" + name }

func (s *Store) diskError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var n *NoSpaceError
	if errors.As(err, &n) {
		return n
	}
	return &DiskError{Op: op, Path: filepath.Join(s.d.Path(), filepath.FromSlash(name)), Err: err}
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

func (s *Store) open(ctx context.Context, fresh bool) error {
	text, err := readFile(s.d, s.in(manifestName), manifest.MaxText)
	switch {
	case err == nil && chunk.Sum(text) != s.m.Root():
		if _, perr := manifest.Parse(text); perr == nil {
			return fmt.Errorf("%s %w", quote(filepath.Join(s.d.Path(), s.part)), ErrOtherShare)
		}
		if err := s.d.Remove(s.in(manifestName)); err != nil { // damaged
			return s.diskError("remove", s.in(manifestName), err)
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		if err := s.place(manifestName, []byte(s.m.Text())); err != nil {
			return err
		}
	case err != nil:
		return s.diskError("read", s.in(manifestName), err)
	}
	if err := s.place(requestName, s.o.Request); err != nil {
		return err
	}
	trust, check, err := s.claims()
	if err != nil {
		return err
	}
	s.kept = trust
	if err := s.layOut(); err != nil {
		return err
	}
	if !fresh {
		if err := s.rehash(ctx, check); err != nil {
			return err
		}
	}
	if s.journal != nil && check.None() {
		return nil
	}
	return s.newJournal()
}

// place makes a small file of the part, durable and whole or not at all.
func (s *Store) place(name string, p []byte) error {
	if old, err := readFile(s.d, s.in(name), int64(len(p))); err == nil && string(old) == string(p) {
		return nil
	}
	tmp := s.in(name + ".new")
	err := func() error {
		if err := removeIfThere(s.d, tmp); err != nil {
			return err
		}
		f, err := s.d.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(p, 0)
		if err == nil {
			err = s.ignoreUnsupported(f.Sync())
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := removeIfThere(s.d, s.in(name)); err != nil {
			return err
		}
		if err := s.d.Rename(tmp, s.in(name)); err != nil {
			return err
		}
		return s.ignoreUnsupported(s.d.SyncDir(s.part))
	}()
	return s.diskError("write", s.in(name), err)
}

func removeIfThere(d Disk, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readFile returns what a file of the part holds, if it is not longer than max.
func readFile(d Disk, name string, max int64) ([]byte, error) {
	f, err := d.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Info()
	if err != nil {
		return nil, err
	}
	if i.Size > max {
		return nil, fmt.Errorf("has %d bytes; the limit is %d", i.Size, max)
	}
	p := make([]byte, i.Size)
	n, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p[:n], nil
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

// claims reads the journal. It returns the chunks that count as they are, and
// those that may be there but must be hashed first: all, if there is no journal
// that can be believed.
func (s *Store) claims() (trust, check *chunk.Bitfield, err error) {
	n := s.m.NumChunks()
	none, all := chunk.NewBitfield(n), chunk.NewBitfield(n)
	all.Fill()
	f, err := s.d.OpenFile(s.in(journalName), os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return none, all, nil
	}
	if err != nil {
		return nil, nil, s.diskError("open", s.in(journalName), err)
	}
	defer func() {
		if s.journal == nil {
			err = errors.Join(err, s.diskError("close", s.in(journalName), f.Close()))
		}
	}()
	i, err := f.Info()
	if err != nil {
		return nil, nil, s.diskError("read", s.in(journalName), err)
	}
	if i.Size > maxJournal(n) {
		return none, all, nil
	}
	p := make([]byte, i.Size)
	k, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, s.diskError("read", s.in(journalName), err)
	}
	h, err := parseHeader(p[:k])
	if err != nil || h.root != s.m.Root() || !sameHash(h.choice, s.choice()) || !sameHash(h.parts, s.parts()) || s.o.Recheck {
		return none, all, nil
	}
	have, flushed, count := replay(p[headerLen:k], &h.id, n)
	if boot := bootHash(s.d.BootID()); boot == ([16]byte{}) || h.boot != boot {
		s.doubtful = s.intact(flushed, maxTime)
		return s.doubtful.Clone(), chunk.NewBitfield(n), nil
	}
	trust = s.intact(have, i.CTime+maxYounger)
	check = have
	for r := range trust.Ranges() {
		for c := r.First; c < r.End(); c++ {
			check.Clear(c)
		}
	}
	// Go on behind the last record that counts; what stands there is void.
	if err := f.Truncate(int64(headerLen + count*recordLen)); err != nil {
		return nil, nil, s.diskError("write", s.in(journalName), err)
	}
	s.journal, s.id, s.seq = f, h.id, uint32(count)
	return trust, check, nil
}

const maxTime = int64(1<<63 - 1)

// maxJournal is the length in bytes beyond which a journal is not read but
// written anew. Each chunk has one record, a few more when it was dropped, and
// barriers are rare.
func maxJournal(num int) int64 { return headerLen + recordLen*(4*int64(num)+1<<16) }

// intact returns those of the chunks whose files are there, regular, of the
// right size, without another name, and not changed after the time latest.
func (s *Store) intact(have *chunk.Bitfield, latest int64) *chunk.Bitfield {
	good := chunk.NewBitfield(have.Len())
	last, fine := -1, false
	for r := range have.Ranges() {
	chunks:
		for i := r.First; i < r.End(); i++ {
			for x := range s.m.Extents(i) {
				if !s.selected(x.Entry) {
					continue
				}
				if x.Entry != last {
					last = x.Entry
					info, err := s.d.Lstat(s.data(x.Entry))
					fine = err == nil && info.Mode.IsRegular() && info.Nlink <= 1 && info.CTime <= latest &&
						info.Size == s.m.Entries()[x.Entry].Size
				}
				if !fine {
					continue chunks
				}
			}
			good.Set(i)
		}
	}
	return good
}

// parts returns a hash of which files the large ones are on this disk: if one
// was exchanged, nothing that the journal says holds any more.
func (s *Store) parts() chunk.Hash {
	var p []byte
	for e, x := range s.m.Entries() {
		if x.Kind != manifest.File || !s.selected(e) || !s.large(e) {
			continue
		}
		i, err := s.d.Lstat(s.data(e))
		if err != nil {
			continue
		}
		p = binary.LittleEndian.AppendUint64(p, uint64(e))
		p = binary.LittleEndian.AppendUint64(p, i.Dev)
		p = binary.LittleEndian.AppendUint64(p, i.Ino)
	}
	return chunk.Sum(p)
}

// choice returns a hash of what was selected.
func (s *Store) choice() chunk.Hash {
	if s.o.Selection == nil {
		return chunk.Hash{}
	}
	words := s.o.Selection.Entries.Words()
	p := make([]byte, 0, 8*len(words))
	for _, w := range words {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	return chunk.Sum(p)
}

// layOut makes the directories and the large files, with their space.
func (s *Store) layOut() error {
	need := int64(0)
	var make []int
	if !s.m.IsFile() {
		if err := s.mkdir(s.in(dataName)); err != nil {
			return err
		}
	}
	for e, x := range s.m.Entries() {
		switch {
		case !s.selected(e):
		case x.Kind == manifest.Dir:
			if err := s.mkdir(s.data(e)); err != nil {
				return err
			}
		case x.Kind == manifest.File:
			i, err := s.d.Lstat(s.data(e))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				need += x.Size
				if s.large(e) {
					make = append(make, e)
				}
			case err != nil:
				return s.diskError("look at", s.data(e), err)
			case !i.Mode.IsRegular():
				return s.diskError("use", s.data(e), errNotFile)
			case s.large(e) && i.Size != x.Size:
				make = append(make, e)
			}
		}
	}
	if have := s.d.Free(); have >= 0 && have < need {
		return &NoSpaceError{Need: need, Have: have, Dir: s.d.Path()}
	}
	for _, e := range make {
		if err := s.allocate(e); err != nil {
			return err
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

func (s *Store) allocate(e int) error {
	name, size := s.data(e), s.m.Entries()[e].Size
	f, err := s.openData(name)
	if err == nil {
		if err = f.Truncate(size); err == nil {
			err = f.Allocate(size)
		}
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, syscall.ENOSPC) {
		return &NoSpaceError{Need: size, Have: max(0, s.d.Free()), Dir: s.d.Path()}
	}
	return s.diskError("create", name, err)
}

// openData opens a file of the share to write, and makes it if it is not there.
func (s *Store) openData(name string) (File, error) {
	f, err := s.d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	f, err = s.d.OpenFile(name, os.O_RDWR)
	if errors.Is(err, fs.ErrPermission) { // it has its final mode already
		if err := s.d.SetMeta(name, 0o600, time.Now()); err != nil {
			return nil, err
		}
		f, err = s.d.OpenFile(name, os.O_RDWR)
	}
	if err != nil {
		return nil, err
	}
	if i, err := f.Info(); err != nil || i.Nlink > 1 {
		_ = f.Close()
		return nil, errors.Join(err, errors.New("has another name too (a hard link)"))
	}
	return f, nil
}

// rehash keeps those of the chunks that are on disk as they should be.
func (s *Store) rehash(ctx context.Context, check *chunk.Bitfield) error {
	buf := make([]byte, 256<<10)
	h := chunk.NewHasher()
	defer h.Release()
	for r := range check.Ranges() {
		for i := r.First; i < r.End(); i++ {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if s.o.Selection != nil && !s.o.Selection.Chunks.Has(i) || !s.Complete(i) {
				continue
			}
			h.Reset()
			n := s.m.ChunkLen(i)
			off := 0
			for ; off < n; off += len(buf) {
				p := buf[:min(len(buf), n-off)]
				if s.ReadAt(i, off, p) != nil {
					break // not there, or not whole
				}
				_, _ = h.Write(p) // a hash takes everything
			}
			if off >= n && h.Sum() == s.m.ChunkHash(i) {
				s.kept.Set(i)
			}
		}
	}
	return nil
}

// newJournal writes a journal that says what is kept, in place of any other.
func (s *Store) newJournal() error {
	if s.journal != nil {
		if err := s.journal.Close(); err != nil {
			return s.diskError("close", s.in(journalName), err)
		}
		s.journal = nil
	}
	h := newHeader()
	h.root, h.boot, h.choice, h.parts = s.m.Root(), bootHash(s.d.BootID()), s.choice(), s.parts()
	if err := s.flushAll(); err != nil { // its records must not be younger than the data
		return err
	}
	p := h.encode()
	n := uint32(0)
	add := func(kind byte, i uint32) {
		var r [recordLen]byte
		putRecord(r[:], kind, i, n, &h.id)
		p = append(p, r[:]...)
		n++
	}
	for r := range s.kept.Ranges() {
		for i := r.First; i < r.End(); i++ {
			add(recWritten, uint32(i))
		}
	}
	add(recBarrier, n)
	if err := s.place(journalName, p); err != nil {
		return err
	}
	f, err := s.d.OpenFile(s.in(journalName), os.O_RDWR)
	if err != nil {
		return s.diskError("open", s.in(journalName), err)
	}
	s.journal, s.id, s.seq = f, h.id, n
	return nil
}

// Have returns the chunks that were there when the store was opened.
func (s *Store) Have() *chunk.Bitfield { return s.kept.Clone() }

// Doubtful returns those of Have that were written before the machine was last
// started, or nil if there are none: they must be hashed before Finish.
func (s *Store) Doubtful() *chunk.Bitfield { return s.doubtful }

// Kept returns how much was there when the store was opened.
func (s *Store) Kept() (chunks int, bytes int64) {
	for r := range s.kept.Ranges() {
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
	return s.record(recWritten, uint32(i))
}

func (s *Store) writeLarge(x manifest.Extent, p []byte) error {
	h, err := s.use(x.Entry)
	if err != nil {
		return err
	}
	defer s.unuse(h)
	s.fmu.Lock()
	s.dirty[x.Entry] = struct{}{}
	s.fmu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err = h.f.WriteAt(p, x.Off)
	return err
}

func (s *Store) writeSmall(x manifest.Extent, p []byte) error {
	s.fmu.Lock()
	s.small = true
	s.fmu.Unlock()
	f, err := s.openData(s.data(x.Entry))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, x.Off)
	if e := &s.m.Entries()[x.Entry]; err == nil && int64(x.Len) == e.Size {
		err = f.SetMeta(fileMode(e.Mode), e.ModTime())
	}
	return errors.Join(err, f.Close())
}

// fileMode and dirMode keep what is received readable by its owner.
func fileMode(m fs.FileMode) fs.FileMode { return m&0o777 | 0o400 }
func dirMode(m fs.FileMode) fs.FileMode  { return m&0o777 | 0o700 }

// record appends to the journal.
func (s *Store) record(kind byte, n uint32) error {
	s.jmu.Lock()
	defer s.jmu.Unlock()
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

// use opens a large file, or finds it open; unuse must follow.
func (s *Store) use(entry int) (*handle, error) {
	s.fmu.Lock()
	defer s.fmu.Unlock()
	s.clock++
	if h := s.files[entry]; h != nil {
		h.refs++
		h.used = s.clock
		return h, nil
	}
	if len(s.files) >= maxOpen {
		oldest := -1
		for e, h := range s.files {
			if h.refs == 0 && (oldest < 0 || h.used < s.files[oldest].used) {
				oldest = e
			}
		}
		if oldest >= 0 {
			h := s.files[oldest]
			delete(s.files, oldest)
			if err := h.f.Close(); err != nil {
				return nil, err
			}
		}
	}
	f, err := s.d.OpenFile(s.data(entry), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	h := &handle{f: f, refs: 1, used: s.clock}
	s.files[entry] = h
	return h, nil
}

func (s *Store) unuse(h *handle) {
	s.fmu.Lock()
	h.refs--
	s.fmu.Unlock()
}

func (s *Store) closeFiles() {
	s.fmu.Lock()
	defer s.fmu.Unlock()
	for e, h := range s.files {
		_ = h.f.Close() // flushed before, if it matters
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

// Barrier makes everything durable that was written before it was called.
// Writes may go on meanwhile. If the disk refuses, what was written since the
// last barrier is taken back, since it may be in memory only, and the store
// takes no more.
func (s *Store) Barrier() error {
	s.jmu.Lock()
	covers, failed := s.seq, s.failed
	s.jmu.Unlock()
	if failed != nil {
		return failed
	}
	if err := s.flushAll(); err != nil {
		if unsupported(err) {
			return s.ignoreUnsupported(err)
		}
		_ = s.record(recTaint, 0) // it may fail as well; nothing is claimed as flushed then
		s.jmu.Lock()
		s.failed = err
		s.jmu.Unlock()
		return err
	}
	if err := s.record(recBarrier, covers); err != nil {
		return err
	}
	return s.diskError("flush", s.in(journalName), s.ignoreUnsupported(s.journal.Sync()))
}

// flushAll flushes the files that were written since it was last called.
func (s *Store) flushAll() error {
	s.fmu.Lock()
	dirty, small := s.dirty, s.small
	s.dirty, s.small = map[int]struct{}{}, false
	s.fmu.Unlock()
	if small || len(dirty) > maxOpen {
		err := s.d.SyncAll()
		if err == nil || !unsupported(err) {
			return s.diskError("flush", s.part, err)
		}
		return err
	}
	for e := range dirty {
		h, err := s.use(e)
		if err != nil {
			return s.diskError("flush", s.data(e), err)
		}
		err = h.f.Sync()
		s.unuse(h)
		if err != nil {
			if unsupported(err) {
				return err
			}
			return s.diskError("flush", s.data(e), err)
		}
	}
	return nil
}

// Close checkpoints what was written and leaves the part for the next Open.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.journal != nil { // else Finish has flushed everything
		err = s.Barrier()
	}
	s.closeFiles()
	return errors.Join(err, s.unlock(), s.d.Close())
}

// Finish makes what is missing but has no content, sets modes and times, flushes
// everything and gives the share its final name, where nothing is replaced. All
// selected chunks must have been written. If it is stopped at any point, it can
// be done again.
func (s *Store) Finish(ctx context.Context) error {
	var links []int
	entries := s.m.Entries()
	for e := range entries {
		if !s.selected(e) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if entries[e].Kind == manifest.Symlink {
			links = append(links, e)
		} else if err := s.settle(e); err != nil {
			return err
		}
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
	data := s.in(dataName)
	if !s.m.IsFile() {
		mode, mtime := s.m.Top()
		if err := s.d.SetMeta(data, dirMode(mode), mtime); err != nil {
			return s.diskError("set the time of", data, err)
		}
		s.small = true // the names are to be flushed too
	} else {
		s.dirty[0] = struct{}{}
	}
	if err := s.Barrier(); err != nil {
		return err
	}
	s.closeFiles()
	if err := s.d.Rename(data, s.o.Final); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s %w; what was fetched is kept in %s",
				quote(filepath.Join(s.d.Path(), s.o.Final)), ErrExists, quote(filepath.Join(s.d.Path(), s.part)))
		}
		return s.diskError("rename", data, err)
	}
	if err := s.ignoreUnsupported(s.d.SyncDir(".")); err != nil {
		return s.diskError("flush", "", err)
	}
	s.removePart()
	s.closed = true
	return errors.Join(s.unlock(), s.d.Close())
}

// settle makes a file without content, and sets the mode and the time of one
// that did not come in one piece.
func (s *Store) settle(e int) error {
	x := &s.m.Entries()[e]
	if x.Kind != manifest.File {
		return nil
	}
	first, end := s.m.Chunks(e)
	if end-first == 1 && !s.large(e) {
		return nil // Write has done it
	}
	f, err := s.openData(s.data(e))
	if err != nil {
		return s.diskError("open", s.data(e), err)
	}
	err = errors.Join(f.SetMeta(fileMode(x.Mode), x.ModTime()), f.Close())
	return s.diskError("set the mode of", s.data(e), err)
}

func (s *Store) link(e int) error {
	x := &s.m.Entries()[e]
	name := s.data(e)
	if target, err := s.d.Readlink(name); err == nil && target == x.Target {
		return nil
	}
	return s.diskError("create the link", name, s.d.Symlink(x.Target, name))
}

// removePart removes what the part consists of besides the data. What else
// somebody put there stays, and the folder with it.
func (s *Store) removePart() {
	names := []string{journalName, journalName + ".new", requestName, requestName + ".new", manifestName, manifestName + ".new", lockName}
	for _, name := range names {
		_ = s.d.Remove(s.in(name)) // what stays is harmless: the next get removes it
	}
	_ = s.d.Remove(s.part)
}
