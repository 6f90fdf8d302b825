package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// A share is a tree, its manifest and its chunks.
type share struct {
	m      *manifest.Manifest
	src    *manifest.Source
	origin *store.Origin
	dir    string
}

func newShare(t testing.TB) *share {
	t.Helper()
	s := &share{dir: filepath.Join(t.TempDir(), "tree")}
	for i, f := range []struct {
		name string
		n    int
	}{
		{"a/empty", 0},
		{"a/one", 1},
		{"a/half", 70_000},
		{"a/straddles", 100_000},
		{"a/third", 90_000},
		{"b/large", 300_000},
		{"c/exact", 131_072},
		{"z", 100},
	} {
		p := filepath.Join(s.dir, f.name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, noise(uint64(i), f.n), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(s.dir, "hollow"), 0o755))
	must(t, os.Symlink("large", filepath.Join(s.dir, "b/link")))
	var err error
	s.m, s.src, err = manifest.Build(t.Context(), []string{s.dir}, manifest.BuildOptions{})
	must(t, err)
	s.origin = store.NewOrigin(s.m, s.src)
	t.Cleanup(func() { must(t, s.origin.Close()) })
	return s
}

func (s *share) chunk(t testing.TB, i int) []byte {
	t.Helper()
	p := make([]byte, s.m.ChunkLen(i))
	must(t, s.origin.ReadAt(i, 0, p))
	return p
}

func (s *share) open(d store.Disk) (*store.Store, error) {
	return store.Open(context.Background(), d, store.Options{Final: "tree", Manifest: s.m, Request: []byte("ticket")})
}

// fill writes what is missing, with a barrier after every few chunks.
func (s *share) fill(t testing.TB, st *store.Store) error {
	have := st.Have()
	for i := range s.m.NumChunks() {
		if have.Has(i) {
			continue
		}
		if err := st.Write(i, s.chunk(t, i)); err != nil {
			return err
		}
		if i%2 == 1 {
			if err := st.Barrier(); err != nil {
				return err
			}
		}
	}
	return st.Finish(context.Background())
}

// right reports whether chunk i of the store is what it should be.
func (s *share) right(st *store.Store, i int) bool {
	p := make([]byte, s.m.ChunkLen(i))
	return st.ReadAt(i, 0, p) == nil && chunk.Sum(p) == s.m.ChunkHash(i)
}

// finished fails unless all files are at their final names, whole, with their
// modes and times.
func (s *share) finished(t testing.TB, d store.Disk) {
	t.Helper()
	for i, e := range s.m.Entries() {
		if e.Kind != manifest.File {
			continue
		}
		f, err := d.OpenFile("tree/"+e.Path, os.O_RDONLY)
		must(t, err)
		p := make([]byte, e.Size)
		if n, _ := f.ReadAt(p, 0); n != len(p) {
			t.Fatalf("%s has %d of %d bytes", e.Path, n, e.Size)
		}
		want, err := os.ReadFile(filepath.Join(s.dir, e.Path))
		must(t, err)
		if string(want) != string(p) {
			t.Fatalf("entry %d, %s, differs", i, e.Path)
		}
		must(t, f.Close())
		if l, err := d.Lstat("tree/" + e.Path); err != nil || l.MTime != e.ModTime().UnixNano() || l.Mode.Perm() != e.Mode {
			t.Fatalf("entry %d, %s, has mode %v and time %d, %v", i, e.Path, l.Mode, l.MTime, err)
		}
	}
	if target, err := d.Readlink("tree/b/link"); err != nil || target != "large" {
		t.Fatalf("link: %q, %v", target, err)
	}
}

func TestRealDisk(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	d, err := store.OpenDisk(dir)
	must(t, err)
	st, err := s.open(d)
	must(t, err)
	must(t, s.fill(t, st))
	must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) { t.Error(d) }))
	names, err := os.ReadDir(dir)
	must(t, err)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestResumeOnRealDisk(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	d, err := store.OpenDisk(dir)
	must(t, err)
	st, err := s.open(d)
	must(t, err)
	must(t, st.Write(2, s.chunk(t, 2)))
	must(t, st.Write(0, s.chunk(t, 0)))
	d2, err := store.OpenDisk(dir)
	must(t, err)
	var locked *store.LockedError
	if _, err := s.open(d2); !errors.As(err, &locked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second get into the same place: %v", err)
	}
	must(t, st.Close())
	parts, err := store.Find(d2)
	must(t, err)
	if len(parts) != 1 || parts[0].Final != "tree" || parts[0].Root != s.m.Root() || string(parts[0].Request) != "ticket" || parts[0].Kept == 0 {
		t.Errorf("found %+v", parts)
	}
	st, err = s.open(d2)
	must(t, err)
	if have := st.Have(); have.Count() != 2 || !have.Has(0) || !have.Has(2) {
		t.Errorf("kept %d chunks", have.Count())
	}
	must(t, s.fill(t, st))
}

// A barrier that begins when the share was finished already has nothing to do.
func TestBarrierAfterTheEnd(t *testing.T) {
	s, d := newShare(t), memdisk.New()
	st, err := s.open(d)
	must(t, err)
	must(t, s.fill(t, st))
	must(t, st.Barrier())
	s.finished(t, d)
}

// Files whose chunk was written, but not recorded, are kept by their hash; they
// have neither mode nor time yet.
func TestRehashedFilesGetModeAndTime(t *testing.T) {
	s, d := newShare(t), memdisk.New()
	st, err := s.open(d)
	must(t, err)
	for i := range s.m.NumChunks() {
		must(t, st.Write(i, s.chunk(t, i)))
	}
	must(t, st.Close())
	must(t, d.SetMeta("tree.shoal-part/data/a/one", 0o600, time.Unix(1, 0)))
	must(t, d.SetMeta("tree.shoal-part/data/z", 0o600, time.Unix(1, 0)))
	must(t, d.Remove("tree.shoal-part/journal"))
	st, err = s.open(d)
	must(t, err)
	if n, _ := st.Kept(); n != s.m.NumChunks() {
		t.Fatalf("%d of %d chunks kept", n, s.m.NumChunks())
	}
	must(t, st.Close()) // a run that ends here leaves a journal that is believed
	st, err = s.open(d)
	must(t, err)
	must(t, st.Finish(t.Context()))
	s.finished(t, d)
}

// What somebody else did to a part must never be believed.
func TestD12TamperedPart(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, part string)
	}{
		{"journal gone", func(t *testing.T, part string) { must(t, os.Remove(filepath.Join(part, "journal"))) }},
		{"journal empty", func(t *testing.T, part string) { must(t, os.Truncate(filepath.Join(part, "journal"), 0)) }},
		{"journal zeros", func(t *testing.T, part string) {
			must(t, os.WriteFile(filepath.Join(part, "journal"), make([]byte, 4096), 0o600))
		}},
		{"part gone", func(t *testing.T, part string) { must(t, os.RemoveAll(filepath.Join(part, "data"))) }},
		{"part truncated", func(t *testing.T, part string) { must(t, os.Truncate(filepath.Join(part, "data/b/large"), 5)) }},
		{"part extended", func(t *testing.T, part string) {
			must(t, os.Truncate(filepath.Join(part, "data/b/large"), 400_000))
			must(t, os.Truncate(filepath.Join(part, "data/a/half"), 80_000))
		}},
		{"file deleted", func(t *testing.T, part string) {
			must(t, os.Remove(filepath.Join(part, "data/b/large")))
			must(t, os.Remove(filepath.Join(part, "data/a/half")))
		}},
		{"files exchanged", func(t *testing.T, part string) {
			a, b := filepath.Join(part, "data/a/third"), filepath.Join(part, "data/a/straddles")
			must(t, os.Rename(a, a+".x"))
			must(t, os.Rename(b, a))
			must(t, os.Rename(a+".x", b))
		}},
		{"part swapped", func(t *testing.T, part string) {
			must(t, os.WriteFile(filepath.Join(part, "x"), make([]byte, 300_000), 0o600))
			must(t, os.Rename(filepath.Join(part, "x"), filepath.Join(part, "data/b/large")))
		}},
		{"hard link", func(t *testing.T, part string) {
			must(t, os.Link(filepath.Join(part, "data/b/large"), filepath.Join(part, "..", "other")))
			must(t, os.Link(filepath.Join(part, "data/z"), filepath.Join(part, "..", "another")))
		}},
		{"manifest damaged", func(t *testing.T, part string) {
			must(t, os.WriteFile(filepath.Join(part, "manifest"), []byte("junk"), 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := newShare(t), t.TempDir()
			d, err := store.OpenDisk(dir)
			must(t, err)
			st, err := s.open(d)
			must(t, err)
			for i := range s.m.NumChunks() {
				must(t, st.Write(i, s.chunk(t, i)))
			}
			must(t, st.Close())
			c.do(t, filepath.Join(dir, "tree.shoal-part"))
			d, err = store.OpenDisk(dir)
			must(t, err)
			st, err = s.open(d)
			must(t, err)
			have := st.Have()
			for r := range have.Ranges() {
				for i := r.First; i < r.End(); i++ {
					if !s.right(st, i) {
						t.Errorf("chunk %d is claimed and wrong", i)
					}
				}
			}
			must(t, s.fill(t, st))
			must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) { t.Error(d) }))
		})
	}
}

// Nothing is written through a link that somebody has put into the way.
func TestPlantedLinks(t *testing.T) {
	for _, at := range []string{"tree.shoal-part", "tree.shoal-part/data", "tree.shoal-part/data/b", "tree.shoal-part/data/b/large", "tree.shoal-part/data/a/half"} {
		s, dir, out := newShare(t), t.TempDir(), t.TempDir()
		inside := filepath.Join(dir, "mine")
		must(t, os.Mkdir(inside, 0o755))
		for _, target := range []string{out, "../../mine", "../mine", "mine"} {
			p := filepath.Join(dir, at)
			must(t, os.MkdirAll(filepath.Dir(p), 0o755))
			must(t, os.Symlink(target, p))
			d, err := store.OpenDisk(dir)
			must(t, err)
			if st, err := s.open(d); err == nil {
				if err = s.fill(t, st); err == nil {
					t.Errorf("link at %s to %s: fetched through it", at, target)
				}
				_ = st.Close()
			} else {
				_ = d.Close()
			}
			for _, o := range []string{out, inside} {
				if left, _ := os.ReadDir(o); len(left) > 0 {
					t.Errorf("link at %s to %s: wrote %v", at, target, left)
				}
			}
			must(t, os.RemoveAll(filepath.Join(dir, "tree.shoal-part")))
		}
	}
}

func TestFinalNameAppears(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	d, err := store.OpenDisk(dir)
	must(t, err)
	st, err := s.open(d)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tree"), []byte("mine"), 0o644))
	if err := s.fill(t, st); !errors.Is(err, store.ErrExists) {
		t.Errorf("finish onto a file that has appeared: %v", err)
	}
	must(t, st.Close())
	if p, err := os.ReadFile(filepath.Join(dir, "tree")); err != nil || string(p) != "mine" {
		t.Error("the file is gone")
	}
	must(t, os.Remove(filepath.Join(dir, "tree")))
	d, err = store.OpenDisk(dir)
	must(t, err)
	st, err = s.open(d)
	must(t, err)
	must(t, s.fill(t, st))
}

func TestNoSpace(t *testing.T) {
	s, d := newShare(t), memdisk.New()
	d.Space = s.m.Size() - 1
	var no *store.NoSpaceError
	if _, err := s.open(d); !errors.As(err, &no) || no.Need != s.m.Size() || no.Have != s.m.Size()-1 {
		t.Errorf("open without space: %v", err)
	}
}

// Every operation fails once, with each error: the store must say so or be
// right, claim nothing false, and finish once the disk works again.
func TestD03EveryOperationFails(t *testing.T) {
	s := newShare(t)
	whole := memdisk.New()
	st, err := s.open(whole)
	must(t, err)
	must(t, s.fill(t, st))
	n := whole.NumOps()
	for _, e := range []error{syscall.EIO, syscall.ENOSPC} {
		for k := range n {
			d := memdisk.New()
			d.Fail = func(i int, _, _ string) error {
				if i >= k && i < k+3 {
					return e
				}
				return nil
			}
			failing, err := s.open(d)
			if err == nil {
				if err = s.fill(t, failing); err != nil {
					_ = failing.Close()
				}
			}
			d.Fail = nil
			s.recovers(t, d, fmt.Sprintf("%v at operation %d (%v)", e, k, err))
		}
	}
}

// recovers opens what is there, checks what it claims, and finishes it.
func (s *share) recovers(t testing.TB, d *memdisk.Disk, what string) (kept *chunk.Bitfield) {
	t.Helper()
	if _, err := d.Lstat("tree"); err == nil { // a final name: all must be there
		s.finished(t, d)
		return nil
	}
	st, err := s.open(d)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	kept = st.Have()
	for r := range kept.Ranges() {
		for i := r.First; i < r.End(); i++ {
			if !s.right(st, i) {
				t.Fatalf("%s: chunk %d is claimed and wrong", what, i)
			}
		}
	}
	if err := s.fill(t, st); err != nil {
		t.Fatalf("%s: finish: %v", what, err)
	}
	s.finished(t, d)
	return kept
}

func TestOriginServesOnlyWhatWasHashed(t *testing.T) {
	s := newShare(t)
	file := filepath.Join(s.dir, "b/large")
	var i int
	for e, x := range s.m.Entries() {
		if x.Path == "b/large" {
			i, _ = s.m.Chunks(e)
		}
	}
	fi, err := os.Stat(file)
	must(t, err)
	must(t, os.Chtimes(file, fi.ModTime(), fi.ModTime().Add(5e9)))
	if got := s.chunk(t, i); chunk.Sum(got) != s.m.ChunkHash(i) {
		t.Error("a touched file gives other bytes")
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("x"), 10)
	must(t, errors.Join(err, f.Close()))
	var changed *manifest.ChangedError
	if err := s.origin.ReadAt(i, 0, make([]byte, 100)); !errors.As(err, &changed) {
		t.Errorf("a changed chunk: %v", err)
	}
	if err := s.origin.ReadAt(i+1, 0, make([]byte, 100)); err != nil {
		t.Errorf("another chunk of a changed file: %v", err)
	}
	must(t, os.Truncate(file, 1000))
	if err := s.origin.ReadAt(i+1, 0, make([]byte, 100)); !errors.As(err, &changed) {
		t.Errorf("a chunk that was cut off: %v", err)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Getuid() == 0 {
		d := memdisk.New()
		d.Fail = func(int, string, string) error { return fs.ErrPermission }
		var disk *store.DiskError
		if _, err := newShare(t).open(d); !errors.As(err, &disk) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("open in a read-only folder: %v", err)
		}
		return
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o500))
	d, err := store.OpenDisk(dir)
	must(t, err)
	defer d.Close()
	if _, err := newShare(t).open(d); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), dir) {
		t.Errorf("open in a read-only folder: %v", err)
	}
}
