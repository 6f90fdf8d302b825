package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

// nextVersion makes another version of a share: a file changed, one new, one gone,
// one that has become a folder.
func nextVersion(t testing.TB, s *share) *share {
	t.Helper()
	n := &share{dir: filepath.Join(t.TempDir(), "tree")}
	must(t, os.CopyFS(n.dir, os.DirFS(s.dir)))
	must(t, os.Chtimes(filepath.Join(n.dir, "b", "large"), time.Time{}, time.Unix(1_700_000_000, 0)))
	must(t, os.WriteFile(filepath.Join(n.dir, "b", "large"), noise(50, 200_000), 0o644))
	must(t, os.WriteFile(filepath.Join(n.dir, "new"), noise(51, 500), 0o644))
	must(t, os.Remove(filepath.Join(n.dir, "a", "half")))
	must(t, os.Remove(filepath.Join(n.dir, "z")))
	must(t, os.Mkdir(filepath.Join(n.dir, "z"), 0o755))
	must(t, os.WriteFile(filepath.Join(n.dir, "z", "in"), noise(52, 5), 0o644))
	var err error
	n.m, n.src, err = manifest.Build(t.Context(), []string{n.dir}, manifest.BuildOptions{})
	must(t, err)
	n.origin = store.NewOrigin(n.m, n.src)
	t.Cleanup(func() { must(t, n.origin.Close()) })
	return n
}

func (s *share) openReplacing(d store.Disk, keep bool, warn func(string)) (*store.Store, error) {
	return store.Open(context.Background(), d, store.Options{Final: "tree", Manifest: s.m, Replace: true, KeepOld: keep, Warn: warn})
}

// update makes the share out of what is there, as a get --update does.
func (s *share) update(t testing.TB, d store.Disk, keep bool, meanwhile func()) (old string, warned []string, err error) {
	t.Helper()
	for range 2 {
		st, err := s.openReplacing(d, keep, func(text string) { warned = append(warned, text) })
		if errors.Is(err, store.ErrExists) && s.is(t, d, "tree") {
			return "", warned, nil
		}
		if errors.Is(err, store.ErrExists) {
			continue
		}
		if err != nil {
			return "", warned, err
		}
		if meanwhile != nil {
			meanwhile()
		}
		if err := s.fill(t, st); err != nil {
			return "", warned, errors.Join(err, st.Close())
		}
		return st.Old(), warned, nil
	}
	return "", warned, store.ErrExists
}

// names lists what is at a name and beneath it.
func names(t testing.TB, d store.Disk, name string) (out []string) {
	t.Helper()
	i, err := d.Lstat(name)
	if name != "." {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		must(t, err)
		out = append(out, name)
	}
	if name == "." || i.Mode.IsDir() {
		ns, err := d.Names(name, -1)
		must(t, err)
		slices.Sort(ns)
		for _, n := range ns {
			out = append(out, names(t, d, strings.TrimPrefix(name+"/"+n, "./"))...)
		}
	}
	return out
}

// is reports whether at name is the share and nothing else.
func (s *share) is(t testing.TB, d store.Disk, name string) bool {
	t.Helper()
	if got := names(t, d, name); len(got) != len(s.m.Entries())+1 {
		return false
	}
	for _, e := range s.m.Entries() {
		at := name + "/" + e.Path
		i, err := d.Lstat(at)
		if err != nil || i.Mode.IsDir() != (e.Kind == manifest.Dir) || i.Mode.IsRegular() != (e.Kind == manifest.File) {
			return false
		}
		if e.Kind == manifest.File {
			want, err := os.ReadFile(filepath.Join(s.dir, e.Path))
			must(t, err)
			if got := content(t, d, at); got != string(want) {
				return false
			}
		}
	}
	return true
}

func content(t testing.TB, d store.Disk, name string) string {
	t.Helper()
	f, err := d.OpenFile(name, os.O_RDONLY)
	must(t, err)
	defer f.Close()
	i, err := f.Info()
	must(t, err)
	p := make([]byte, i.Size)
	n, _ := f.ReadAt(p, 0)
	return string(p[:n])
}

func edit(t testing.TB, d store.Disk, name, text string) {
	t.Helper()
	f, err := d.OpenFile(name, os.O_RDWR)
	must(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	must(t, errors.Join(err, f.Close()))
}

func withOld(t testing.TB, old *share) *memdisk.Disk {
	t.Helper()
	d := memdisk.New()
	st, err := old.open(d)
	must(t, err)
	must(t, old.fill(t, st))
	return d
}

// What becomes of the old version.
func TestReplaceKeeps(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	for _, tt := range []struct {
		name      string
		keep      bool
		before    func(d store.Disk)
		meanwhile func(d store.Disk)
		kept      string // name
		warned    string
	}{
		{name: "nothing"},
		{name: "kept", keep: true, kept: "tree.old"},
		{name: "kept beside others", keep: true, kept: "tree.old.3", before: func(d store.Disk) {
			must(t, d.Mkdir("tree.old"))
			must(t, d.Symlink("x", "tree.old.2"))
		}},
		{name: "guests are removed", before: func(d store.Disk) { must(t, d.Create("tree/guest", nil, 0o644, time.Now())) }},
		{name: "edited before", before: func(d store.Disk) { edit(t, d, "tree/a/one", "X") }},
		{name: "edited", kept: "tree.old", warned: "was changed", meanwhile: func(d store.Disk) { edit(t, d, "tree/a/one", "X") }},
		{name: "a new file", kept: "tree.old", warned: "was changed", meanwhile: func(d store.Disk) { must(t, d.Create("tree/a/mine", nil, 0o644, time.Now())) }},
		{name: "another", kept: "tree.old", warned: "was changed", meanwhile: func(d store.Disk) {
			must(t, d.Rename("tree", "elsewhere"))
			must(t, d.Create("tree", []byte("mine"), 0o644, time.Now()))
		}},
		{name: "taken away", meanwhile: func(d store.Disk) { must(t, d.Rename("tree", "elsewhere")) }},
		{name: "touched", meanwhile: func(d store.Disk) {
			must(t, d.Create("tree/x", nil, 0o644, time.Now()))
			must(t, d.Remove("tree/x"))
		}},
	} {
		for _, exchange := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", tt.name, exchange), func(t *testing.T) {
				d := withOld(t, old)
				d.NoExchange = !exchange
				if tt.before != nil {
					tt.before(d)
				}
				var was []string
				kept, warned, err := next.update(t, d, tt.keep, func() {
					if tt.meanwhile != nil {
						tt.meanwhile(d)
					}
					was = names(t, d, "tree")
				})
				must(t, err)
				if !next.is(t, d, "tree") {
					t.Errorf("tree holds %q", names(t, d, "tree"))
				}
				if kept != tt.kept || tt.kept != "" && len(names(t, d, kept)) != len(was) {
					t.Errorf("kept as %q, want %q: %q", kept, tt.kept, names(t, d, kept))
				}
				if got := strings.Join(warned, "; "); tt.warned == "" && got != "" || !strings.Contains(got, tt.warned) {
					t.Errorf("warned of %q", got)
				}
				if left, _ := d.Names(".", -1); slices.Contains(left, "tree.shoal-part") {
					t.Errorf("left: %q", left)
				}
			})
		}
	}
}

// The user edits the old version after an update was killed and before it goes on.
func TestReplaceEditedBetweenRuns(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	d := withOld(t, old)
	st, err := next.openReplacing(d, false, nil)
	must(t, err)
	must(t, st.Write(0, next.chunk(t, 0)))
	must(t, st.Close())
	edit(t, d, "tree/a/one", "X")
	kept, warned, err := next.update(t, d, false, nil)
	must(t, err)
	if kept != "tree.old" || content(t, d, "tree.old/a/one") != "X" || !next.is(t, d, "tree") {
		t.Errorf("kept %q, warned of %q", kept, warned)
	}
}

// What cannot be replaced, and what is not ours.
func TestReplaceRefuses(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	d := memdisk.New()
	must(t, d.Symlink("x", "tree"))
	if _, err := next.openReplacing(d, false, nil); !errors.Is(err, store.ErrExists) || !strings.Contains(err.Error(), "neither a file nor a folder") {
		t.Errorf("a link: %v", err)
	}
	d = withOld(t, old)
	must(t, d.Mkdir("tree.shoal-part"))
	must(t, d.Create("tree.shoal-part/mine", nil, 0o644, time.Now()))
	if _, err := next.openReplacing(d, false, nil); !errors.Is(err, store.ErrNotPart) {
		t.Errorf("a folder that is no part: %v", err)
	}
	d = withOld(t, old)
	st, err := next.openReplacing(d, false, nil)
	must(t, err)
	must(t, st.Close())
	// Without --update an interrupted update is not gone on with, nor lost.
	if _, err := next.open(d); !errors.Is(err, store.ErrExists) {
		t.Errorf("without asking: %v", err)
	}
	if !old.is(t, d, "tree") {
		t.Error("the old version has changed")
	}
	if _, err := old.openReplacing(d, false, nil); !errors.Is(err, store.ErrOtherShare) {
		t.Errorf("the part of another version: %v", err)
	}
	must(t, d.Replace("tree.shoal-part/manifest", "tree.shoal-part/replace"))
	if _, err := next.openReplacing(d, false, nil); err == nil || !strings.Contains(err.Error(), "move tree.shoal-part away") {
		t.Errorf("a damaged note: %v", err)
	}
}

// After any operation of an update the process may be killed, or the power cut.
// What has the final name is then entirely old or entirely new, and the same
// update goes on and leaves the new version alone.
func TestReplaceCrashStates(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	tries := 6
	if testing.Short() {
		tries = 1
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for _, exchange := range []bool{true, false} {
		d := withOld(t, old)
		d.NoExchange = !exchange
		first := d.NumOps()
		_, _, err := next.update(t, d, false, nil)
		must(t, err)
		absent, states := 0, 0
		check := func(d *memdisk.Disk, what string) {
			d.NoExchange = !exchange
			states++
			switch isOld, isNew := old.is(t, d, "tree"), next.is(t, d, "tree"); {
			case isOld, isNew:
			case !exchange && len(names(t, d, "tree")) == 0:
				absent++
				if !next.is(t, d, "tree.shoal-part/data") || !old.is(t, d, "tree.shoal-part/old") {
					t.Fatalf("%s: nothing has the name, and not both are in the part: %q", what, names(t, d, "."))
				}
			default:
				t.Fatalf("%s: half updated: %q", what, names(t, d, "tree"))
			}
			kept, warned, err := next.update(t, d, false, nil)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if left, _ := d.Names(".", -1); !next.is(t, d, "tree") || len(left) != 1 || kept != "" || len(warned) > 0 {
				t.Fatalf("%s: left %q, kept %q, warned of %q", what, left, kept, warned)
			}
		}
		for k := first; k <= d.NumOps(); k++ {
			check(d.Killed(k), fmt.Sprintf("exchange %v, killed after %d", exchange, k))
			for try := range tries {
				check(d.Crashed(k, rnd), fmt.Sprintf("exchange %v, power cut after %d, try %d", exchange, k, try))
			}
		}
		if exchange && absent > 0 || !exchange && absent == 0 {
			t.Errorf("exchange %v: nothing had the name in %d states", exchange, absent)
		}
		t.Logf("exchange %v: %d states after %d operations", exchange, states, d.NumOps()-first)
	}
}

// Every operation of an update fails once. The update says so, and the old
// version, or the new one, is where it was.
func TestReplaceOperationsFail(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	for _, exchange := range []bool{true, false} {
		whole := withOld(t, old)
		whole.NoExchange = !exchange
		first := whole.NumOps()
		_, _, err := next.update(t, whole, false, nil)
		must(t, err)
		for k := first; k < whole.NumOps(); k++ {
			d := withOld(t, old)
			d.NoExchange = !exchange
			d.Fail = func(i int, _, _ string) error {
				if i == k {
					return syscall.EIO
				}
				return nil
			}
			_, _, err := next.update(t, d, false, nil)
			d.Fail = nil
			isOld, isNew := old.is(t, d, "tree"), next.is(t, d, "tree")
			if !isOld && !isNew && (exchange || len(names(t, d, "tree")) > 0) || err == nil && !isNew {
				t.Fatalf("operation %d failed (%v): tree holds %q", k, err, names(t, d, "tree"))
			}
			if _, _, err := next.update(t, d, false, nil); err != nil || !next.is(t, d, "tree") {
				t.Fatalf("operation %d failed (%v): then %v", k, err, err)
			}
		}
	}
}

// What has the final name between the two renames, while nobody was there to
// prevent it, is not lost either.
func TestReplaceNameTakenBetweenRenames(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	d := withOld(t, old)
	d.NoExchange = true
	first := d.NumOps()
	_, _, err := next.update(t, d, false, nil)
	must(t, err)
	tested := 0
	for k := first; k <= d.NumOps(); k++ {
		c := d.Killed(k)
		c.NoExchange = true
		if len(names(t, c, "tree")) > 0 {
			continue
		}
		tested++
		must(t, c.Create("tree", []byte("mine"), 0o644, time.Now()))
		_, _, err := next.update(t, c, false, nil)
		must(t, err)
		if !next.is(t, c, "tree") || !old.is(t, c, "tree.old") || content(t, c, "tree.old.2") != "mine" {
			t.Errorf("left: %q", names(t, c, "."))
		}
	}
	if tested == 0 {
		t.Error("the name was never free")
	}
}

// The exchange, and the two renames, on a real file system.
func TestReplaceOnRealDisk(t *testing.T) {
	old := newShare(t)
	next := nextVersion(t, old)
	dir := t.TempDir()
	open := func() *store.OSDisk {
		d, err := store.OpenDisk(dir)
		must(t, err)
		return d
	}
	st, err := old.open(open())
	must(t, err)
	must(t, old.fill(t, st))
	must(t, os.Chmod(filepath.Join(dir, "tree", "a"), 0o500))
	for i, s := range []*share{next, old, next} {
		keep := false
		if i == 2 {
			keep = true
		}
		kept, warned, err := s.update(t, open(), keep, nil)
		must(t, err)
		must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) { t.Error(d) }))
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) != 1+i/2 || (kept == "tree.old") != (i == 2) || len(warned) > 0 {
			t.Errorf("left %v, kept %q, warned of %q", left, kept, warned)
		}
	}
	must(t, manifest.Verify(t.Context(), old.m, nil, filepath.Join(dir, "tree.old"), func(d manifest.Difference) { t.Error(d) }))
}
