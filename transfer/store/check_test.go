package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// What is done to a part while it is being filled must never come to the final
// name. The get ends with an error that names the file, and the next one heals it.
func TestPartChangedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(part string) error
		heals bool // by itself, else the next run does
	}{
		{"data gone", func(p string) error { return os.RemoveAll(filepath.Join(p, "data")) }, false},
		{"part gone", func(p string) error { return os.RemoveAll(p) }, false},
		{"part moved", func(p string) error { return os.Rename(p, p+".moved") }, false},
		{"folder gone", func(p string) error { return os.RemoveAll(filepath.Join(p, "data/b")) }, false},
		{"folder moved", func(p string) error { return os.Rename(filepath.Join(p, "data/a"), filepath.Join(p, "a")) }, false},
		{"large gone", func(p string) error { return os.Remove(filepath.Join(p, "data/b/large")) }, false},
		{"large cut", func(p string) error { return os.Truncate(filepath.Join(p, "data/b/large"), 100) }, false},
		{"large emptied", func(p string) error { return os.Truncate(filepath.Join(p, "data/b/large"), 0) }, false},
		{"large replaced", func(p string) error { return replace(filepath.Join(p, "data/b/large"), make([]byte, 300_000)) }, false},
		{"large copied", func(p string) error {
			b, err := os.ReadFile(filepath.Join(p, "data/b/large"))
			return errors.Join(err, replace(filepath.Join(p, "data/b/large"), b))
		}, true},
		{"large linked", func(p string) error {
			return os.Link(filepath.Join(p, "data/b/large"), filepath.Join(filepath.Dir(p), "link"))
		}, false},
		{"small gone", func(p string) error { return os.Remove(filepath.Join(p, "data/a/one")) }, false},
		{"small cut", func(p string) error { return os.Truncate(filepath.Join(p, "data/a/half"), 10) }, false},
		{"small written to", func(p string) error {
			f, err := os.OpenFile(filepath.Join(p, "data/a/half"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("mine"), 100)
			return errors.Join(err, f.Close())
		}, false},
		{"small replaced by a link", func(p string) error {
			name := filepath.Join(p, "data/a/half")
			return errors.Join(os.Remove(name), os.Symlink("one", name))
		}, false},
		{"small copied", func(p string) error {
			b, err := os.ReadFile(filepath.Join(p, "data/a/half"))
			return errors.Join(err, replace(filepath.Join(p, "data/a/half"), b))
		}, true},
	} {
		for _, at := range []string{"midway", "at the end"} {
			t.Run(c.name+" "+at, func(t *testing.T) {
				s, dir := newShare(t), t.TempDir()
				d, err := store.OpenDisk(dir)
				must(t, err)
				st, err := s.open(d)
				must(t, err)
				n := s.m.NumChunks()
				err = nil
				for i := range n {
					if err == nil && (i != n-1 || at != "midway") {
						err = st.Write(i, s.chunk(t, i))
					}
				}
				must(t, err)
				must(t, c.do(filepath.Join(dir, "tree.shoal-part")))
				if at == "midway" {
					err = st.Write(n-1, s.chunk(t, n-1))
				}
				if err == nil {
					err = st.Finish(t.Context())
				}
				if err != nil && c.heals {
					t.Fatalf("an equal copy was refused: %v", err)
				}
				if err == nil && !c.heals {
					t.Error("finished")
				}
				if err != nil {
					if !strings.Contains(err.Error(), dir) {
						t.Errorf("the error does not say where: %v", err)
					}
					if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
						t.Error("the final name is taken")
					}
					_ = st.Close()
					if i, err := os.Lstat(filepath.Join(dir, "tree.shoal-part/data/a/half")); err == nil && !i.Mode().IsRegular() {
						must(t, os.Remove(filepath.Join(dir, "tree.shoal-part/data/a/half"))) // the user does as he was told
					}
					d, err := store.OpenDisk(dir)
					must(t, err)
					st, err := s.open(d)
					must(t, err)
					must(t, s.fill(t, st))
				}
				must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) { t.Error(d) }))
			})
		}
	}
}

func replace(name string, p []byte) error {
	return errors.Join(os.WriteFile(name+".copy", p, 0o644), os.Rename(name+".copy", name))
}

// What has the name of a part and is none is not touched.
func TestForeignPart(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	part := filepath.Join(dir, "tree.shoal-part")
	for _, name := range []string{"data/mine", "lock", "journal", "manifest", "request"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(part, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(part, name), []byte("mine"), 0o644))
		d, err := store.OpenDisk(dir)
		must(t, err)
		if name != "lock" { // alone it may be what a run has left that was stopped there
			if _, err := s.open(d); !errors.Is(err, store.ErrNotPart) {
				t.Errorf("with %s: %v", name, err)
			}
			if b, err := os.ReadFile(filepath.Join(part, name)); err != nil || string(b) != "mine" {
				t.Errorf("%s was changed: %q, %v", name, b, err)
			}
		}
		must(t, d.Close())
		must(t, os.RemoveAll(part))
	}
	must(t, os.Mkdir(part, 0o755)) // an empty one may be ours
	d, err := store.OpenDisk(dir)
	must(t, err)
	st, err := s.open(d)
	must(t, err)
	must(t, s.fill(t, st))
}

// Files that somebody has put into the part stay, and are told of.
func TestGuests(t *testing.T) {
	s, dir := newShare(t), t.TempDir()
	d, err := store.OpenDisk(dir)
	must(t, err)
	var warned []string
	st, err := store.Open(t.Context(), d, store.Options{Final: "tree", Manifest: s.m, Warn: func(w string) { warned = append(warned, w) }})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tree.shoal-part/data/b/guest"), nil, 0o644))
	must(t, s.fill(t, st))
	if len(warned) != 1 || !strings.Contains(warned[0], "b/guest") {
		t.Errorf("warnings: %q", warned)
	}
	if _, err := os.Stat(filepath.Join(dir, "tree/b/guest")); err != nil {
		t.Error(err)
	}
}
