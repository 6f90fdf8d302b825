package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

// A model is a small share whose contents are in memory, and what is known of one
// transfer of it: enough to judge any state that a crash may leave.
type model struct {
	name   string
	m      *manifest.Manifest
	sel    *manifest.Selection
	chunks [][]byte
	files  map[string][]byte // by path

	d        *memdisk.Disk
	recorded map[int]*chunk.Bitfield // operations done -> chunks that Write has returned for
	flushed  map[int]*chunk.Bitfield // and those that a Barrier has returned for
	base     int                     // operations before it
}

const crashChunk = 1 << 17

// newModel makes a share of all kinds of entries, or of one file.
func newModel(t testing.TB, name string, file bool, only ...string) *model {
	t.Helper()
	s := &model{name: name, files: map[string][]byte{}, recorded: map[int]*chunk.Bitfield{}, flushed: map[int]*chunk.Bitfield{}}
	dir := filepath.Join(t.TempDir(), "tree")
	sizes := map[string]int{"a/empty": 0, "a/one": 1, "a/half": 20_000, "a/other": 25_000, "b/large": crashChunk + 30_000, "c/exact": crashChunk, "z": 700}
	if file {
		sizes = map[string]int{"": 2*crashChunk + 5000}
	} else {
		must(t, os.MkdirAll(filepath.Join(dir, "hollow"), 0o755))
		must(t, os.MkdirAll(filepath.Join(dir, "b"), 0o755))
		must(t, os.Symlink("large", filepath.Join(dir, "b/link")))
	}
	for p, n := range sizes {
		b := noise(uint64(n), n)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, p), b, 0o644))
		s.files[p] = b
	}
	var src *manifest.Source
	var err error
	s.m, src, err = manifest.Build(t.Context(), []string{dir}, manifest.BuildOptions{ChunkSize: crashChunk})
	must(t, err)
	origin := store.NewOrigin(s.m, src)
	for i := range s.m.NumChunks() {
		p := make([]byte, s.m.ChunkLen(i))
		must(t, origin.ReadAt(i, 0, p))
		s.chunks = append(s.chunks, p)
	}
	must(t, origin.Close())
	if file {
		s.files[s.m.Entries()[0].Path] = s.files[""]
	}
	if len(only) > 0 {
		s.sel, err = s.m.Select(only, nil)
		must(t, err)
	}
	s.d = memdisk.New()
	s.bystanders(t)
	return s
}

// others are in the same folder before the transfer begins.
var others = map[string]string{"mine": "my own", "tree2/mine": "mine too", "tree.shoal": "not a part"}

func (s *model) bystanders(t testing.TB) {
	t.Helper()
	must(t, s.d.Mkdir("tree2"))
	for name, text := range others {
		f, err := s.d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		must(t, err)
		_, err = f.WriteAt([]byte(text), 0)
		must(t, err)
		must(t, errors.Join(f.Sync(), f.Close()))
	}
	must(t, s.d.SyncAll())
	s.base = s.d.NumOps()
}

func (s *model) open(d store.Disk) (*store.Store, error) {
	return store.Open(context.Background(), d, store.Options{Final: "tree", Manifest: s.m, Selection: s.sel, Request: []byte("ticket")})
}

func (s *model) wanted(i int) bool { return s.sel == nil || s.sel.Chunks.Has(i) }

// write fetches up to most of the chunks that are missing, with a barrier behind
// each second one. What is known of the transfer is noted.
func (s *model) write(st *store.Store, have *chunk.Bitfield, most int, note bool) error {
	for i := range have.Len() {
		if most == 0 {
			break
		}
		if have.Has(i) || !s.wanted(i) {
			continue
		}
		most--
		if err := st.Write(i, s.chunks[i]); err != nil {
			return err
		}
		have.Set(i)
		if note {
			s.recorded[s.d.NumOps()] = have.Clone()
		}
		if i%2 == 1 {
			if err := st.Barrier(); err != nil {
				return err
			}
			if note {
				s.flushed[s.d.NumOps()] = have.Clone()
			}
		}
	}
	return nil
}

// settle tells the store of each doubtful chunk what its hash says.
func (s *model) settle(st *store.Store, have *chunk.Bitfield) error {
	if st.Doubtful() == nil {
		return nil
	}
	for r := range st.Doubtful().Ranges() {
		for i := r.First; i < r.End(); i++ {
			if s.right(st, i) {
				if err := st.Checked(i); err != nil {
					return err
				}
				continue
			}
			have.Clear(i)
			if err := st.Drop(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *model) right(st *store.Store, i int) bool {
	p := make([]byte, s.m.ChunkLen(i))
	return st.ReadAt(i, 0, p) == nil && bytes.Equal(p, s.chunks[i])
}

// check holds the invariants I1 to I5 of a state that a kill, or a power cut, has
// left; least are the chunks that must still be there (nil: none).
func (s *model) check(d *memdisk.Disk, cut bool, least *chunk.Bitfield) error {
	before := s.strangers(d)
	if _, err := d.Lstat("tree"); err == nil { // I3: what has the name is whole
		if err := s.whole(d); err != nil {
			return fmt.Errorf("I3: %w", err)
		}
	}
	st, err := s.open(d)
	switch {
	case err == nil:
		have := st.Have()
		for r := range have.Ranges() {
			for i := r.First; i < r.End(); i++ {
				if !s.right(st, i) && (s.sel == nil || st.Complete(i)) {
					return fmt.Errorf("I1: chunk %d is claimed and wrong", i)
				}
			}
		}
		if least != nil {
			for r := range least.Ranges() {
				for i := r.First; i < r.End(); i++ {
					if !have.Has(i) && (st.Complete(i) || !cut) { // else it cannot be hashed
						return fmt.Errorf("I2: chunk %d is lost", i)
					}
				}
			}
		}
		if d.NumOps()%3 == 0 { // I5: killed here and opened again, it loses nothing
			d = d.Killed(d.NumOps())
			if st, err = s.open(d); err != nil {
				break
			}
			for r := range have.Ranges() {
				for i := r.First; i < r.End(); i++ {
					if !st.Have().Has(i) {
						return fmt.Errorf("I5: chunk %d is lost by opening it again", i)
					}
				}
			}
			have = st.Have()
		}
		if err = s.settle(st, have); err == nil {
			err = s.write(st, have, -1, false)
		}
		if err == nil {
			err = st.Finish(context.Background())
		}
	}
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("I5: %w", err)
	}
	if err := s.whole(d); err != nil {
		return fmt.Errorf("I5: %w", err)
	}
	if _, err := d.Lstat("tree.shoal-part"); err == nil && len(s.sub(d, "tree.shoal-part")) > 0 {
		return fmt.Errorf("I5: left behind: %q", s.sub(d, "tree.shoal-part"))
	}
	if after := s.strangers(d); after != before {
		return fmt.Errorf("I4: there was %s; now %s", before, after)
	}
	return nil
}

func (s *model) sub(d *memdisk.Disk, name string) []string {
	names, _ := d.Names(name, -1)
	return names
}

// strangers describes all that is not of the transfer.
func (s *model) strangers(d *memdisk.Disk) string {
	var b strings.Builder
	for _, n := range s.sub(d, ".") {
		if n != "tree" && n != "tree.shoal-part" {
			fmt.Fprintf(&b, "%s ", n)
		}
	}
	for name, text := range others {
		if i, err := d.Lstat(name); err != nil || string(readAll(d, name)) != text || !i.Mode.IsRegular() {
			fmt.Fprintf(&b, "%s is %q, %v ", name, readAll(d, name), err)
		}
	}
	return b.String()
}

func readAll(d *memdisk.Disk, name string) []byte {
	i, err := d.Lstat(name)
	if err != nil {
		return nil
	}
	f, err := d.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil
	}
	p := make([]byte, i.Size)
	n, _ := f.ReadAt(p, 0)
	return p[:n]
}

// whole returns an error unless the share is at its final name, all of it.
func (s *model) whole(d *memdisk.Disk) error {
	for e, x := range s.m.Entries() {
		if s.sel != nil && !s.sel.Entries.Has(e) {
			if _, err := d.Lstat(path.Join("tree", x.Path)); err == nil {
				return fmt.Errorf("%s was not chosen and is there", x.Path)
			}
			continue
		}
		name := path.Join("tree", x.Path)
		if s.m.IsFile() {
			name = "tree"
		}
		i, err := d.Lstat(name)
		switch {
		case err != nil:
			return err
		case x.Kind == manifest.Dir && !i.Mode.IsDir(), x.Kind == manifest.Symlink && i.Mode.Type() != fs.ModeSymlink:
			return fmt.Errorf("%s is a %v", name, i.Mode)
		case x.Kind == manifest.Symlink:
			if target, err := d.Readlink(name); err != nil || target != x.Target {
				return fmt.Errorf("%s leads to %q, %v", name, target, err)
			}
		case x.Kind == manifest.File:
			if !bytes.Equal(readAll(d, name), s.files[x.Path]) {
				return fmt.Errorf("%s is wrong", name)
			}
			if i.MTime != x.ModTime().UnixNano() || i.Mode.Perm() != x.Mode {
				return fmt.Errorf("%s has mode %v and time %d", name, i.Mode, i.MTime)
			}
		}
	}
	return nil
}

// traces are real transfers, recorded.
func traces(t testing.TB) []*model {
	t.Helper()
	open := func(s *model) (*store.Store, *chunk.Bitfield) {
		st, err := s.open(s.d)
		must(t, err)
		return st, st.Have()
	}
	finish := func(s *model, st *store.Store, have *chunk.Bitfield) {
		must(t, s.settle(st, have))
		must(t, s.write(st, have, -1, true))
		must(t, st.Finish(context.Background()))
	}

	straight := newModel(t, "a tree, in one go", false)
	st, have := open(straight)
	finish(straight, st, have)

	resumed := newModel(t, "a tree, stopped and gone on with", false)
	st, have = open(resumed)
	must(t, resumed.write(st, have, 2, true))
	must(t, st.Close())
	st, have = open(resumed)
	finish(resumed, st, have)

	rebooted := newModel(t, "a tree, gone on with after a restart", false)
	st, have = open(rebooted)
	must(t, rebooted.write(st, have, 3, true))
	rebooted.d.Restart()
	st, have = open(rebooted)
	finish(rebooted, st, have)

	file := newModel(t, "one file", true)
	st, have = open(file)
	finish(file, st, have)

	chosen := newModel(t, "a part of a tree", false, "large", "half", "z")
	st, have = open(chosen)
	finish(chosen, st, have)

	lost := newModel(t, "a tree whose journal was lost", false)
	st, have = open(lost)
	must(t, lost.write(st, have, -1, true))
	must(t, st.Close())
	must(t, lost.d.Remove("tree.shoal-part/journal"))
	st, have = open(lost)
	finish(lost, st, have)
	return []*model{straight, resumed, rebooted, file, chosen, lost}
}

// TestC04CrashStates takes recorded transfers, and looks at what may lie on the
// disk after each of their operations: all of it, if the process is killed; some
// of it, torn at 512 bytes or 4 KiB, if the power is cut. In each of these states
// the invariants of FAULTS, section 2, must hold: what is claimed is right (I1),
// what was recorded, or flushed, is kept (I2), what has the final name is whole
// (I3), nothing else has changed (I4), and it can be gone on with, also after
// another crash (I5).
func TestC04CrashStates(t *testing.T) {
	want := 8_000
	switch {
	case testing.Short():
		want = 2_000
	case os.Getenv("SHOAL_CI") != "", os.Getenv("SHOAL_SOAK") != "":
		want = 100_000
	}
	all := traces(t)
	num := 0
	for _, s := range all {
		num += s.d.NumOps() - s.base + 1
	}
	tries := (want + num - 1) / num
	type state struct {
		s *model
		k int
	}
	todo := make(chan state)
	var states atomic.Int64
	var failed atomic.Bool
	var crew sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		crew.Go(func() {
			disks := map[*model]*memdisk.Disk{} // own ones: they lock
			for x := range todo {
				if disks[x.s] == nil {
					disks[x.s] = x.s.d.Killed(x.s.d.NumOps())
				}
				for try := range tries {
					if failed.Load() {
						return
					}
					states.Add(1)
					if what, err := x.s.crash(disks[x.s], x.k, try); err != nil {
						failed.Store(true)
						t.Errorf("%s, %s after operation %d of %d: %v", x.s.name, what, x.k, x.s.d.NumOps(), err)
					}
				}
			}
		})
	}
	for _, s := range all {
		for k := s.base; k <= s.d.NumOps() && !failed.Load(); k++ {
			todo <- state{s, k}
		}
	}
	close(todo)
	crew.Wait()
	t.Logf("%d states after %d operations of %d transfers", states.Load(), num, len(all))
}

// crash makes state number try after operation k, and judges it. The first is
// that of a kill, the others are of power cuts.
func (s *model) crash(d *memdisk.Disk, k, try int) (what string, err error) {
	known := func(at map[int]*chunk.Bitfield) (b *chunk.Bitfield) {
		for n := k; n > 0 && b == nil; n-- {
			b = at[n]
		}
		return b
	}
	if try == 0 {
		return "killed", s.check(d.Killed(k), false, known(s.recorded))
	}
	return fmt.Sprintf("power cut %d", try), s.check(d.Crashed(k, rand.New(rand.NewPCG(uint64(k), uint64(try)))), true, known(s.flushed))
}
