package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

// put makes a file with the folders above it.
func put(t testing.TB, d store.Disk, name string, p []byte) {
	t.Helper()
	for i, c := range name {
		if c == '/' {
			if err := d.Mkdir(name[:i]); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	must(t, d.Create(name, p, 0o640, time.Unix(1e9, 0)))
}

func read(t testing.TB, d store.Disk, name string) string {
	t.Helper()
	f, err := d.OpenFile(name, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := f.Info()
	must(t, err)
	p := make([]byte, i.Size)
	if n, _ := f.ReadAt(p, 0); n != len(p) {
		t.Fatalf("%s: %d of %d bytes", name, n, len(p))
	}
	return string(p)
}

// openInto opens the share as a get does that may find something at its final
// name. st is nil if nothing has to be done.
func (s *share) openInto(d store.Disk, how store.Existing) (st *store.Store, v *store.Survey, err error) {
	st, err = s.open(d)
	if !errors.Is(err, store.ErrExists) {
		return st, nil, err
	}
	if v, err = store.Look(context.Background(), d, "tree", s.m, nil, how); err != nil {
		return nil, nil, err
	}
	if err := v.Refused(); err != nil || v.Complete() {
		return nil, v, err
	}
	st, err = store.Open(context.Background(), d, store.Options{
		Final: "tree", Manifest: s.m, Selection: v.Selection(), Merge: v, Request: []byte("ticket"),
	})
	return st, v, err
}

// into does all of a get into what is there. fetched counts the chunks it wrote.
func (s *share) into(t testing.TB, d store.Disk, how store.Existing) (placed *store.Placed, fetched int, err error) {
	t.Helper()
	st, v, err := s.openInto(d, how)
	if err != nil || st == nil {
		return nil, 0, err
	}
	if !st.Placing() {
		have := st.Have()
		for i := range s.m.NumChunks() {
			if have.Has(i) || v != nil && !v.Selection().Chunks.Has(i) {
				continue
			}
			if err := st.Write(i, s.chunk(t, i)); err != nil {
				return nil, fetched, errors.Join(err, st.Close())
			}
			fetched++
		}
	}
	if err := st.Finish(context.Background()); err != nil {
		return nil, fetched, errors.Join(err, st.Close())
	}
	return st.Placed(), fetched, nil
}

// before puts into d what a user may have at the share's place: files that are
// the same, that differ, and others.
func (s *share) before(t testing.TB, d store.Disk) {
	t.Helper()
	for _, e := range s.m.Entries() {
		if e.Path == "b/large" || e.Path == "c/exact" {
			p, err := os.ReadFile(filepath.Join(s.dir, e.Path))
			must(t, err)
			put(t, d, "tree/"+e.Path, p)
		}
	}
	put(t, d, "tree/a/half", []byte("mine"))               // another size
	put(t, d, "tree/a/third", noise(99, 90_000))           // the same size: its chunk must tell
	put(t, d, "tree/b/large.1", []byte("mine too"))        // nothing of the share
	put(t, d, "tree/a/not of it", []byte("not of it"))     //
	put(t, d, "tree/deep/below/too", []byte("deep below")) //
	must(t, d.SyncAll())
}

// users fails if something of the user's is not as it was.
func (s *share) users(t testing.TB, d store.Disk, what string, names ...string) {
	t.Helper()
	for name, want := range map[string]string{"b/large.1": "mine too", "a/not of it": "not of it", "deep/below/too": "deep below"} {
		if got := read(t, d, "tree/"+name); got != want {
			t.Fatalf("%s: %s holds %q", what, name, got)
		}
	}
	for _, name := range names {
		want := "mine"
		if name == "a/third" {
			want = string(noise(99, 90_000))
		}
		if got := read(t, d, "tree/"+name); got != want {
			t.Fatalf("%s: %s of the user is gone", what, name)
		}
	}
}

// content fails unless the share's file lies at name.
func (s *share) content(t testing.TB, d store.Disk, what, path, name string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(s.dir, path))
	must(t, err)
	if read(t, d, name) != string(want) {
		t.Fatalf("%s: %s is not %s", what, name, path)
	}
}

func (s *share) merged(t testing.TB, d store.Disk, how store.Existing, what string) {
	t.Helper()
	for _, e := range s.m.Entries() {
		if e.Kind != manifest.File {
			continue
		}
		switch mine := e.Path == "a/half" || e.Path == "a/third"; {
		case !mine || how == store.Overwrite:
			s.content(t, d, what, e.Path, "tree/"+e.Path)
			s.users(t, d, what)
		case how == store.Rename:
			s.content(t, d, what, e.Path, "tree/"+e.Path+".1")
			s.users(t, d, what, e.Path)
			if _, err := d.Lstat("tree/" + e.Path + ".2"); err == nil {
				t.Fatalf("%s: %s was put there twice", what, e.Path)
			}
		default:
			s.users(t, d, what, e.Path)
		}
	}
	if i, err := d.Lstat("tree/hollow"); err != nil || i.Mode.Perm() != 0o755 {
		t.Fatalf("%s: an empty folder: %v, %v", what, i.Mode, err)
	}
	if target, err := d.Readlink("tree/b/link"); err != nil || target != "large" {
		t.Fatalf("%s: a link: %q, %v", what, target, err)
	}
	if _, err := d.Lstat("tree.shoal-part"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s: the part is left", what)
	}
}

// A get into a folder that is there, killed or with the power cut after each
// operation, is finished by the next one; what is the user's is never touched.
func TestMergeCrashStates(t *testing.T) {
	t.Parallel()
	s := newShare(t)
	rnd := rand.New(rand.NewPCG(7, 2))
	tries := 2
	if testing.Short() {
		tries = 1
	}
	for _, how := range []store.Existing{store.Overwrite, store.Rename, store.Skip} {
		d := memdisk.New()
		s.before(t, d)
		began := d.NumOps()
		_, whole, err := s.into(t, d, how)
		must(t, err)
		s.merged(t, d, how, "undisturbed")
		n := d.NumOps()
		again := func(d *memdisk.Disk, what string) (fetched int) {
			s.users(t, d, what)
			_, fetched, err := s.into(t, d, how)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			s.merged(t, d, how, what)
			return fetched
		}
		for k := began; k <= n; k++ {
			if fetched := again(d.Killed(k), fmt.Sprintf("way %d, killed after %d", how, k)); k == n && how == store.Overwrite && fetched > 0 {
				t.Errorf("a share that is complete was fetched again: %d of %d chunks", fetched, whole)
			}
			for range tries {
				again(d.Crashed(k, rnd), fmt.Sprintf("way %d, power cut after %d", how, k))
			}
		}
		t.Logf("way %d: %d operations", how, n-began)
	}
}

// Each operation fails once; the same get again finishes it.
func TestMergeOperationFails(t *testing.T) {
	s := newShare(t)
	whole := memdisk.New()
	s.before(t, whole)
	began := whole.NumOps()
	_, _, err := s.into(t, whole, store.Overwrite)
	must(t, err)
	for k := began; k < whole.NumOps(); k++ {
		d := memdisk.New()
		s.before(t, d)
		d.Fail = func(i int, _, _ string) error {
			if i == k {
				return syscall.EIO
			}
			return nil
		}
		_, _, err := s.into(t, d, store.Overwrite)
		d.Fail = nil
		what := fmt.Sprintf("failed at %d (%v)", k, err)
		s.users(t, d, what)
		if _, _, err := s.into(t, d, store.Overwrite); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.merged(t, d, store.Overwrite, what)
	}
}

// A survey tells how far it is, of what it has to read and no more.
func TestLookTells(t *testing.T) {
	s, d := newShare(t), memdisk.New()
	s.before(t, d)
	var last, total int64
	calls := 0
	v, err := store.LookAndTell(t.Context(), d, "tree", s.m, nil, store.Refuse, func(done, of int64) {
		if calls++; done < last || done >= of || calls == 1 && done > 0 || calls > 1 && of != total {
			t.Errorf("%d of %d after %d of %d", done, of, last, total)
		}
		last, total = done, of
	})
	must(t, err)
	_, kept := v.Kept()
	if calls == 0 || total < kept || total > s.m.Size() {
		t.Errorf("%d calls, %d bytes of %d, of which %d are the same", calls, total, s.m.Size(), kept)
	}
}

// What is the same is not fetched, and not read again by the next run unless
// somebody has touched it.
func TestMergeKeepsAndRemembers(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	open := func() *store.OSDisk {
		d, err := store.OpenDisk(dir)
		must(t, err)
		return d
	}
	d := open()
	s.before(t, d)
	must(t, os.Symlink("large", filepath.Join(dir, "tree/b/link"))) // the same, and no file
	v, err := store.Look(t.Context(), d, "tree", s.m, nil, store.Refuse)
	must(t, err)
	if files, bytes := v.Kept(); files != 2 || bytes != 300_000+131_072 || v.Other() != 1 || v.Unsure() != 1 {
		t.Errorf("kept %d files with %d bytes, %d others, %d unsure", files, bytes, v.Other(), v.Unsure())
	}
	var c *store.CollisionError
	if _, _, err := s.openInto(d, store.Refuse); !errors.As(err, &c) || c.Num != 1 || c.Paths[0] != "a/half" {
		t.Errorf("refused with %v", err)
	}
	if _, err := d.Lstat("tree.shoal-part"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a part was made for what is refused")
	}
	st, v, err := s.openInto(d, store.Overwrite)
	must(t, err)
	first := v.Selection().Chunks.NextSet(0)
	must(t, st.Write(first, s.chunk(t, first)))
	must(t, st.Close())

	// Other bytes with the times of before: only who reads it could tell.
	d = open()
	large := filepath.Join(dir, "tree/b/large")
	st, v, err = s.openInto(d, store.Overwrite)
	must(t, err)
	if n, _ := st.Kept(); n != 1 {
		t.Errorf("%d chunks kept by the second run", n)
	}
	must(t, st.Close())

	// One that was touched is compared again, and is wanted now.
	must(t, os.WriteFile(large, noise(5, 300_001), 0o644))
	d = open()
	_, v2, err := s.openInto(d, store.Overwrite)
	must(t, err)
	if v2.Selection().Size != v.Selection().Size+300_000 {
		t.Errorf("%d bytes are wanted, %d were before", v2.Selection().Size, v.Selection().Size)
	}
}

// A file that appears while the share is fetched is not replaced, unless it may be.
func TestMergeFileAppears(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "tree"), 0o755))
	open := func(how store.Existing) (*store.Store, *store.Survey) {
		d, err := store.OpenDisk(dir)
		must(t, err)
		st, v, err := s.openInto(d, how)
		must(t, err)
		return st, v
	}
	st, _ := open(store.Refuse)
	for i := range s.m.NumChunks() {
		must(t, st.Write(i, s.chunk(t, i)))
	}
	must(t, os.WriteFile(filepath.Join(dir, "tree/z"), []byte("mine"), 0o644))
	var c *store.CollisionError
	if err := st.Finish(t.Context()); !errors.As(err, &c) || c.Paths[0] != "z" {
		t.Fatalf("finished with %v", err)
	}
	must(t, st.Close())
	if names, _ := os.ReadDir(filepath.Join(dir, "tree")); len(names) != 1 {
		t.Errorf("something was placed: %v", names)
	}
	st, _ = open(store.Overwrite)
	if !st.Placing() {
		t.Error("it does not go on with placing")
	}
	must(t, st.Finish(t.Context()))
	must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) {
		if d.Failed() {
			t.Error(d)
		}
	}))
}

// Something of another kind in the way stays, whatever may be replaced.
func TestMergeBlocked(t *testing.T) {
	for name, block := range map[string]func(t *testing.T, at string){
		"folder": func(t *testing.T, at string) { must(t, os.Mkdir(at, 0o755)) },
		"link":   func(t *testing.T, at string) { must(t, os.Symlink("../elsewhere", at)) },
	} {
		for _, at := range []string{"z", "b", "b/large", "b/link"} {
			if name == "link" && at == "b/link" || name == "folder" && at == "b" {
				continue
			}
			s, dir := newShare(t), t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "elsewhere"), []byte("mine"), 0o644))
			p := filepath.Join(dir, "tree", at)
			must(t, os.MkdirAll(filepath.Dir(p), 0o755))
			block(t, p)
			d, err := store.OpenDisk(dir)
			must(t, err)
			var blocked *store.BlockedError
			if _, _, err := s.openInto(d, store.Overwrite); !errors.As(err, &blocked) {
				t.Errorf("%s at %s: %v", name, at, err)
			}
			must(t, d.Close())
			if names, _ := os.ReadDir(dir); len(names) != 2 {
				t.Errorf("%s at %s: %v", name, at, names)
			}
		}
	}
}
