package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

// filled is a model whose part has all chunks, flushed, and is not finished.
func filled(t testing.TB) *model {
	t.Helper()
	s := newModel(t, "filled", false)
	st, err := s.open(s.d)
	must(t, err)
	must(t, s.write(st, st.Have(), -1, false))
	must(t, st.Close())
	return s
}

// places are where bytes of chunks lie in the part: file and offset.
func (s *model) places(rnd *rand.Rand) (entry int, off int64) {
	for {
		e := rnd.IntN(len(s.m.Entries()))
		if x := &s.m.Entries()[e]; x.Kind == manifest.File && x.Size > 0 {
			return e, rnd.Int64N(x.Size)
		}
	}
}

func (s *model) chunkAt(entry int, off int64) int {
	for i := range s.m.NumChunks() {
		for x := range s.m.Extents(i) {
			if x.Entry == entry && x.Off <= off && off < x.Off+int64(x.Len) {
				return i
			}
		}
	}
	return -1
}

// TestD08BitFlips flips a bit of what was fetched, at 1,000 places, as a disk does:
// no time changes. With Recheck it must be found at once; after a restart before
// the share is finished. Only the chunk that has it is fetched again.
func TestD08BitFlips(t *testing.T) {
	s := filled(t)
	rnd := rand.New(rand.NewPCG(8, 8))
	n := 1000
	if testing.Short() {
		n = 50
	}
	for k := range n {
		e, off := s.places(rnd)
		name := "tree.shoal-part/data/" + s.m.Entries()[e].Path
		wrong := s.chunkAt(e, off)
		d := s.d.Killed(s.d.NumOps())
		d.Flip(name, off, byte(1<<rnd.IntN(8)))
		st, err := store.Open(t.Context(), d, store.Options{Final: "tree", Manifest: s.m, Request: []byte("ticket"), Recheck: k%2 == 0})
		if k%2 == 1 {
			must(t, err)
			must(t, st.Close())
			d.Restart()
			st, err = s.open(d)
		}
		must(t, err)
		have := st.Have()
		must(t, s.settle(st, have))
		if have.Has(wrong) || have.Count() != s.m.NumChunks()-1 {
			t.Fatalf("%s at %d: chunk %d is kept: %v; %d of %d", name, off, wrong, have.Has(wrong), have.Count(), s.m.NumChunks())
		}
		must(t, s.write(st, have, -1, false))
		must(t, st.Finish(t.Context()))
		must(t, s.whole(d))
	}
}

// TestD08Verify flips a bit of the finished share at 1,000 places: each is found,
// with its file and chunk.
func TestD08Verify(t *testing.T) {
	s, dir := filled(t), t.TempDir()
	for p, b := range s.files {
		name := filepath.Join(dir, "tree", p)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, b, 0o644))
	}
	rnd := rand.New(rand.NewPCG(8, 9))
	n := 1000
	if testing.Short() {
		n = 50
	}
	for range n {
		e, off := s.places(rnd)
		p := s.m.Entries()[e].Path
		f, err := os.OpenFile(filepath.Join(dir, "tree", p), os.O_WRONLY, 0)
		must(t, err)
		old := s.files[p][off]
		_, err = f.WriteAt([]byte{old ^ 1<<rnd.IntN(8)}, off)
		must(t, err)
		var found []int
		must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) {
			if d.Failed() && d.Chunk >= 0 { // links and empty folders are not there
				found = append(found, d.Chunk)
			}
		}))
		if len(found) != 1 || found[0] != s.chunkAt(e, off) {
			t.Fatalf("%s at %d, chunk %d: found %d", p, off, s.chunkAt(e, off), found)
		}
		_, err = f.WriteAt([]byte{old}, off)
		must(t, errors.Join(err, f.Close()))
	}
}

// survives opens d, whose journal was damaged, holds what is claimed against the
// content, and finishes it.
func (s *model) survives(t testing.TB, d *memdisk.Disk, what string) {
	t.Helper()
	if err := s.check(d, false, nil); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestD13Journal damages the journal in every way: each bit that flips, each cut,
// zeros, garbage, the journal of another transfer, and one of a newer version
// (C09). Nothing false may be claimed, nothing crashes, and what is there is kept
// by its hash.
func TestD13Journal(t *testing.T) {
	s := filled(t)
	// Behind the last barrier there is something that was never flushed.
	name := "tree.shoal-part/journal"
	good := readAll(s.d, name)
	used := len(bytes.TrimRight(good, "\x00"))
	with := func(p []byte) *memdisk.Disk {
		d := s.d.Killed(s.d.NumOps())
		must(t, d.Remove(name))
		f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		must(t, err)
		_, err = f.WriteAt(p, 0)
		must(t, errors.Join(err, f.Close()))
		// Chunks that are not there: nothing may claim them.
		for _, gone := range []string{"a/half", "c/exact"} {
			d.Flip("tree.shoal-part/data/"+gone, 5, 0xff)
		}
		return d
	}
	kept := func(p []byte, what string) {
		t.Helper()
		d := with(p)
		st, err := s.open(d)
		must(t, err)
		if n := st.Have().Count(); n != s.m.NumChunks()-2 {
			t.Errorf("%s: %d of %d chunks are kept; 2 are damaged", what, n, s.m.NumChunks())
		}
		must(t, st.Close())
		s.survives(t, d, what)
	}
	other := filled(t)
	newer := bytes.Clone(good)
	copy(newer, "shoal-journal 2\n")
	garbage := noise(3, 5000)
	kept(nil, "empty")
	kept(make([]byte, len(good)), "zeros")
	kept(garbage, "garbage")
	kept(newer, "a newer version")
	foreign := readAll(other.d, name)
	foreign[20] ^= 1 // its root
	kept(foreign, "of another transfer")
	kept(append(bytes.Clone(good[:128]), garbage...), "a header with garbage behind it")

	// With a journal that is believed, damage on the disk is not looked for, so
	// here nothing is damaged.
	step := 5
	if testing.Short() {
		step = 97
	}
	replace := func(p []byte) *memdisk.Disk {
		d := s.d.Killed(s.d.NumOps())
		f, err := d.OpenFile(name, os.O_RDWR)
		must(t, err)
		must(t, f.Truncate(0))
		_, err = f.WriteAt(p, 0)
		must(t, errors.Join(err, f.Close()))
		return d
	}
	for bit := 0; bit < used*8; bit += step {
		p := bytes.Clone(good)
		p[bit/8] ^= 1 << (bit % 8)
		s.survives(t, replace(p), fmt.Sprintf("bit %d flipped", bit))
	}
	for n := 0; n < used; n++ {
		s.survives(t, replace(good[:n]), fmt.Sprintf("cut at %d", n))
	}
}

// TestD13HugeJournal puts a gigabyte of garbage in the journal's place: it is not
// even read.
func TestD13HugeJournal(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	d, err := store.OpenDisk(dir)
	must(t, err)
	st, err := s.open(d)
	must(t, err)
	must(t, st.Write(0, s.chunk(t, 0)))
	must(t, st.Close())
	journal := filepath.Join(dir, "tree.shoal-part/journal")
	f, err := os.OpenFile(journal, os.O_WRONLY, 0)
	must(t, err)
	_, err = io.Copy(f, io.LimitReader(rand.NewChaCha8([32]byte{}), 1<<20))
	must(t, errors.Join(err, f.Truncate(1<<30), f.Close()))
	d, err = store.OpenDisk(dir)
	must(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	st, err = s.open(d)
	must(t, err)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated for it", n)
	}
	if have := st.Have(); have.Count() != 1 || !have.Has(0) {
		t.Errorf("%d chunks are kept", have.Count())
	}
	must(t, s.fill(t, st))
}

// TestD05FlushUnsupported fetches to a disk that cannot flush. That is told of
// once; after a restart all is hashed again, and nothing is lost.
func TestD05FlushUnsupported(t *testing.T) {
	for _, e := range []error{syscall.ENOTSUP, syscall.EINVAL, errors.ErrUnsupported} {
		s := newModel(t, "cannot flush", false)
		s.d.Fail = func(_ int, what, _ string) error {
			if strings.Contains(what, "sync") {
				return e
			}
			return nil
		}
		var warned []string
		o := store.Options{Final: "tree", Manifest: s.m, Warn: func(w string) { warned = append(warned, w) }}
		st, err := store.Open(t.Context(), s.d, o)
		must(t, err)
		must(t, s.write(st, st.Have(), 3, false))
		must(t, st.Close())
		if len(warned) != 1 || !strings.Contains(warned[0], "cannot flush") {
			t.Errorf("%v: warnings: %q", e, warned)
		}
		st, err = store.Open(t.Context(), s.d, o)
		must(t, err)
		if n, _ := st.Kept(); n != 3 {
			t.Errorf("%v: in the same boot %d of 3 chunks are kept", e, n)
		}
		must(t, st.Close())
		s.d.Restart()
		s.d.Flip("tree.shoal-part/data/a/half", 0, 1)
		st, err = store.Open(t.Context(), s.d, o)
		must(t, err)
		have := st.Have()
		must(t, s.settle(st, have))
		if have.Count() != 2 {
			t.Errorf("%v: after a restart %d of 2 chunks are kept", e, have.Count())
		}
		must(t, s.write(st, have, -1, false))
		must(t, st.Finish(t.Context()))
		must(t, s.whole(s.d))
	}
}

// TestC09OtherVersion goes on with a part that a newer version of shoal has left,
// whose journal and request it cannot read: all that is there is kept by its hash.
func TestC09OtherVersion(t *testing.T) {
	s := filled(t)
	for name, text := range map[string]string{"journal": "shoal-journal 2\nand whatever it likes", "request": `{"shoal":2}`} {
		must(t, s.d.Remove("tree.shoal-part/"+name))
		f, err := s.d.OpenFile("tree.shoal-part/"+name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		must(t, err)
		_, err = f.WriteAt([]byte(text), 0)
		must(t, errors.Join(err, f.Close()))
	}
	st, err := s.open(s.d)
	must(t, err)
	if n, _ := st.Kept(); n != s.m.NumChunks() {
		t.Errorf("%d of %d chunks are kept", n, s.m.NumChunks())
	}
	must(t, st.Finish(t.Context()))
	must(t, s.whole(s.d))
}
