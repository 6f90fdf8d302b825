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
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// maxYounger is how much younger than the journal a file may be and still count:
// each record follows what it records, so whatever is younger was touched by
// somebody else. It allows for the steps of the kernel's clock.
const maxYounger = int64(100 * time.Millisecond)

// open does what Open does behind the lock: it finds out what an earlier run has
// left, makes what is missing, and leaves a journal that can be appended to.
func (s *Store) open(ctx context.Context, fresh bool) error {
	if err := s.ours(); err != nil {
		return err
	}
	if err := s.place(requestName, s.o.Request); err != nil {
		return err
	}
	if placing, err := s.openMerge(); placing || err != nil {
		return err
	}
	if s.o.Replace {
		if err := s.beginReplacement(); err != nil {
			return err
		}
	}
	if !fresh {
		if err := s.look(); err != nil {
			return err
		}
	}
	c, err := s.claims()
	if err != nil {
		return err
	}
	s.kept = c.trust
	if !c.doubt.None() {
		s.doubtful = c.doubt
	}
	if err := s.layOut(); err != nil {
		return err
	}
	if !fresh && !c.check.None() {
		if err := s.rehash(ctx, c.check); err != nil {
			return err
		}
	}
	s.markUnflushed(c.flushed)
	if s.journal == nil || !c.check.None() {
		err = s.newJournal()
	}
	s.identify()
	s.found = nil
	return err
}

// identify notes which files the large ones are.
func (s *Store) identify() {
	s.ids = make(map[int]fileID)
	for e, x := range s.m.Entries() {
		if x.Kind == manifest.File && s.selected(e) && s.large(e) {
			s.ids[e] = fileID{s.found[e].dev, s.found[e].ino}
		}
	}
}

// ours makes sure that the part is of this share, and has its manifest.
func (s *Store) ours() error {
	text, err := readFile(s.d, s.in(manifestName), manifest.MaxText)
	switch {
	case err == nil && chunk.Sum(text) == s.m.Root():
		return nil
	case err == nil:
		if _, perr := manifest.Parse(text); perr == nil && !s.finished() { // else there is nothing of it
			return fmt.Errorf("%s %w", quote(filepath.Join(s.d.Path(), s.part)), ErrOtherShare)
		}
		// It is damaged.
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errTooLong):
		return s.diskError("read", s.in(manifestName), err)
	}
	return s.place(manifestName, []byte(s.m.Text()))
}

// foreign reports whether the folder with the name of the part is something else,
// in which nothing may be touched. It is a part if it has a manifest or, when that
// is damaged, a journal of this share, and if a run was stopped before it had.
func (s *Store) foreign() bool {
	const start = "shoal-manifest "
	if f, err := s.d.OpenFile(s.in(manifestName), os.O_RDONLY); err == nil {
		p := make([]byte, len(start))
		err = errors.Join(readFull(f, p, 0), f.Close())
		if err == nil && string(p) == start {
			return false
		}
	}
	names, err := s.d.Names(s.part, 8)
	if err != nil || !slices.ContainsFunc(names, func(n string) bool { return n != lockName && n != manifestName+".new" }) {
		return false
	}
	p, err := readFile(s.d, s.in(journalName), maxJournal(s.m.NumChunks()))
	if err != nil {
		return true
	}
	h, err := parseHeader(p)
	return err != nil || h.root != s.m.Root()
}

// place makes a small file of the part, durable and whole or not at all. What
// has its name is replaced in one step.
func (s *Store) place(name string, p []byte) error {
	if old, err := readFile(s.d, s.in(name), int64(len(p))); err == nil && string(old) == string(p) {
		return nil
	}
	f, err := s.write(name, p, int64(len(p)))
	if err != nil {
		return err
	}
	return s.diskError("write", s.in(name), f.Close())
}

// write is place, with room for size bytes. It returns the file, open.
func (s *Store) write(name string, p []byte, size int64) (f File, err error) {
	tmp := s.in(name + ".new")
	if err = removeIfThere(s.d, tmp); err == nil {
		if f, err = s.d.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL); err == nil {
			if size > int64(len(p)) {
				err = f.Allocate(size)
			}
			if err == nil {
				_, err = f.WriteAt(p, 0)
			}
			if err == nil {
				err = s.ignoreUnsupported(f.Sync())
			}
			if err == nil {
				err = s.d.Replace(tmp, s.in(name))
			}
			if err == nil {
				err = s.ignoreUnsupported(s.d.Sync(s.part))
			}
		}
	}
	if err != nil {
		if f != nil {
			_ = f.Close() // it is not used
		}
		return nil, s.diskError("write", s.in(name), err)
	}
	return f, nil
}

func removeIfThere(d Disk, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

var errTooLong = errors.New("is too long")

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
		return nil, fmt.Errorf("%w: it has %d bytes; the limit is %d", errTooLong, i.Size, max)
	}
	p := make([]byte, i.Size)
	n, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return p[:n], nil
}

// found is what lies in the part at an entry's place.
type found struct {
	size, ctime int64
	dev, ino    uint64
	there       bool
	alone       bool // and has no other name
}

// look fills s.found: each name is looked at once. What is there must be what
// the manifest has at this place; a link above all must not be.
func (s *Store) look() error {
	s.found = make([]found, len(s.m.Entries()))
	for e, x := range s.m.Entries() {
		if x.Kind == manifest.Symlink {
			continue // Finish makes it anew
		}
		i, err := s.d.Lstat(s.data(e))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return s.diskError("look at", s.data(e), err)
		case x.Kind == manifest.File && !i.Mode.IsRegular():
			return s.diskError("use", s.data(e), errNotFile)
		case x.Kind == manifest.Dir && !i.Mode.IsDir():
			return s.diskError("use", s.data(e), errNotDir)
		case x.Kind == manifest.File && i.Nlink > 1:
			// What is written here must not show elsewhere: the other name keeps it.
			if err := s.d.Remove(s.data(e)); err != nil {
				return s.diskError("remove", s.data(e), err)
			}
		default:
			s.found[e] = found{i.Size, i.CTime, i.Dev, i.Ino, true, i.Nlink <= 1}
		}
	}
	return nil
}

// claims are what a journal says, held against what is there.
type claims struct {
	trust   *chunk.Bitfield // count as they are
	doubt   *chunk.Bitfield // those of trust that must be hashed before the share is finished
	flushed *chunk.Bitfield // those of trust that a power cut cannot take
	check   *chunk.Bitfield // may be there, but must be hashed first
}

// claims reads the journal. All chunks are to be checked if there is none that
// can be believed; if it can be gone on with, s.journal is open afterwards.
func (s *Store) claims() (c claims, err error) {
	n := s.m.NumChunks()
	c = claims{chunk.NewBitfield(n), chunk.NewBitfield(n), chunk.NewBitfield(n), chunk.NewBitfield(n)}
	nothing := c
	nothing.check = chunk.NewBitfield(n)
	nothing.check.Fill()
	f, err := s.d.OpenFile(s.in(journalName), os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	}
	if err != nil {
		return c, s.diskError("open", s.in(journalName), err)
	}
	defer func() {
		if s.journal == nil {
			err = errors.Join(err, s.diskError("close", s.in(journalName), f.Close()))
		}
	}()
	info, err := f.Info()
	if err != nil {
		return c, s.diskError("read", s.in(journalName), err)
	}
	if info.Size > maxJournal(n) || info.Nlink > 1 { // or what is appended would show under another name
		return nothing, nil
	}
	p := make([]byte, info.Size)
	k, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return c, s.diskError("read", s.in(journalName), err)
	}
	h, err := parseHeader(p[:k])
	if err != nil || h.root != s.m.Root() || !sameHash(h.choice, s.choice()) || !sameHash(h.parts, s.parts()) || s.o.Recheck {
		return nothing, nil
	}
	r := replay(p[headerLen:k], &h.id, n)
	boot := bootHash(s.d.BootID())
	same := boot != [16]byte{} && h.boot == boot
	if same {
		c.trust = s.intact(r.have, info.CTime+maxYounger)
		c.doubt = common(c.trust, r.doubt)
	} else {
		// What came after the last barrier may be there too. It is not much,
		// unless this file system cannot flush.
		c.trust = s.intact(r.flushed, maxTime)
		for i := range each(c.trust) {
			if !s.Complete(i) { // it cannot be hashed
				c.trust.Clear(i)
			}
		}
		c.doubt = c.trust.Clone()
	}
	c.flushed = common(c.trust, r.flushed)
	c.check = r.have
	if r.more && !r.tainted { // it is damaged: what it said may be there all the same
		c.check.Fill()
	}
	for i := range each(c.trust) {
		c.check.Clear(i)
	}
	if !same {
		return c, nil // a new journal, with the new boot
	}
	// Go on behind the last record that counts; what stands there is void.
	end := int64(headerLen + r.count*recordLen)
	if info.Size > end {
		err = f.Truncate(end)
	}
	if err == nil {
		err = f.Allocate(max(end, s.journalRoom()))
	}
	if err != nil {
		return c, s.diskError("write", s.in(journalName), err)
	}
	s.journal, s.id, s.seq, s.covered = f, h.id, uint32(r.count), uint32(r.covered)
	return c, nil
}

const maxTime = int64(1<<63 - 1)

// each yields the indexes in a set. It may clear the one it was given.
func each(b *chunk.Bitfield) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := b.NextSet(0); i >= 0; i = b.NextSet(i + 1) {
			if !yield(i) {
				return
			}
		}
	}
}

func common(a, b *chunk.Bitfield) *chunk.Bitfield {
	c := chunk.NewBitfield(a.Len())
	if b.None() {
		return c
	}
	for i := range each(a) {
		if b.Has(i) {
			c.Set(i)
		}
	}
	return c
}

// maxJournal is the length in bytes beyond which a journal is not read but
// written anew. Each chunk has one record, a few more when it was dropped, and
// barriers are rare.
func maxJournal(num int) int64 { return headerLen + recordLen*(4*int64(num)+1<<16) }

// journalRoom is the space in bytes that a journal gets from the start: on a disk
// that fills up it must not be what fails. Records of zeros end it.
func (s *Store) journalRoom() int64 {
	return headerLen + recordLen*(int64(s.m.NumChunks())+int64(s.m.NumChunks())/8+64)
}

// intact returns those of the chunks whose files are there, of the right size,
// without another name, and not changed after the time latest.
func (s *Store) intact(have *chunk.Bitfield, latest int64) *chunk.Bitfield {
	good := chunk.NewBitfield(have.Len())
	if s.found == nil {
		return good
	}
	fine := func(e int) bool {
		f := &s.found[e]
		return f.there && f.alone && f.ctime <= latest && f.size == s.m.Entries()[e].Size
	}
	if s.m.IsFile() { // a million chunks in one file
		if fine(0) {
			return have.Clone()
		}
		return good
	}
next:
	for i := range each(have) {
		for x := range s.m.Extents(i) {
			if s.selected(x.Entry) && !fine(x.Entry) {
				continue next
			}
		}
		good.Set(i)
	}
	return good
}

// parts returns a hash of which files the large ones are on this disk: if one
// was exchanged, nothing that the journal says holds any more.
func (s *Store) parts() chunk.Hash {
	var p []byte
	for e, x := range s.m.Entries() {
		if x.Kind != manifest.File || !s.selected(e) || !s.large(e) || !s.found[e].there {
			continue
		}
		p = binary.LittleEndian.AppendUint64(p, uint64(e))
		p = binary.LittleEndian.AppendUint64(p, s.found[e].dev)
		p = binary.LittleEndian.AppendUint64(p, s.found[e].ino)
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

// rehash keeps those of the chunks that are on disk as they should be.
func (s *Store) rehash(ctx context.Context, check *chunk.Bitfield) error {
	buf := make([]byte, 256<<10)
	h := chunk.NewHasher()
	defer h.Release()
	for i := range each(check) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.o.Selection != nil && !s.o.Selection.Chunks.Has(i) || !s.Complete(i) || !s.present(i) {
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
		if off < n || h.Sum() != s.m.ChunkHash(i) {
			continue
		}
		if err := s.dress(i); err != nil {
			return err
		}
		s.kept.Set(i)
	}
	return nil
}

// dress gives the small files of chunk i, whose content was found to be right,
// the mode and the time that Write would have given them.
func (s *Store) dress(i int) error {
	for x := range s.m.Extents(i) {
		if e := &s.m.Entries()[x.Entry]; s.inOnePiece(x.Entry) {
			if err := s.d.SetMeta(s.data(x.Entry), fileMode(e.Mode), e.ModTime()); err != nil {
				return s.diskError("set the mode of", s.data(x.Entry), err)
			}
		}
	}
	return nil
}

// present reports whether the files of chunk i were there when Open began.
func (s *Store) present(i int) bool {
	for x := range s.m.Extents(i) {
		if !s.found[x.Entry].there {
			return false
		}
	}
	return true
}

// markUnflushed makes the next barrier flush what is kept of an earlier run that
// did not come to its own.
func (s *Store) markUnflushed(flushed *chunk.Bitfield) {
	for i := range each(s.kept) {
		if !flushed.Has(i) {
			s.markDirty(i)
			s.names = true
		}
	}
}

// newJournal writes a journal that says what is kept, in place of any other.
func (s *Store) newJournal() error {
	if s.journal != nil {
		f := s.journal
		s.journal = nil
		if err := f.Close(); err != nil {
			return s.diskError("close", s.in(journalName), err)
		}
	}
	h := newHeader()
	h.root, h.boot, h.choice, h.parts = s.m.Root(), bootHash(s.d.BootID()), s.choice(), s.parts()
	p := h.encode()
	n := uint32(0)
	add := func(kind byte, i uint32) {
		var r [recordLen]byte
		putRecord(r[:], kind, i, n, &h.id)
		p = append(p, r[:]...)
		n++
	}
	for i := range each(s.kept) {
		if s.doubtful != nil && s.doubtful.Has(i) {
			add(recKept, uint32(i))
		} else {
			add(recWritten, uint32(i))
		}
	}
	if !s.kept.None() { // a barrier, so what it covers must be flushed
		switch err := s.flush(); {
		case err == nil:
			add(recBarrier, n)
		case unsupported(err):
			_ = s.ignoreUnsupported(err)
		default:
			return err
		}
	}
	f, err := s.write(journalName, p, s.journalRoom())
	if err != nil {
		return err
	}
	s.journal, s.id, s.seq, s.covered = f, h.id, n, n
	return nil
}
