package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestCompare(t *testing.T) {
	const large = 400_000
	fill := func(n, seed int) []byte {
		p := make([]byte, n)
		x := uint32(seed + 1)
		for i := range p {
			x ^= x << 13
			x ^= x >> 17
			x ^= x << 5
			p[i] = byte(x)
		}
		return p
	}
	tree := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "t")
		for i, f := range []struct {
			name string
			n    int
		}{{"big", large}, {"d/other", large}, {"s/a", 10}, {"s/b", 2000}, {"s/c", 3000}, {"z", 5}} {
			name := filepath.Join(dir, f.name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, fill(f.n, i), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9+int64(i), 5)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("big", filepath.Join(dir, "link")); err != nil {
			t.Skip(err)
		}
		return dir
	}
	build := func(t *testing.T, dir, cutter string) *Manifest {
		m, _, err := Build(t.Context(), []string{dir}, BuildOptions{Cutter: cutter})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ok := func(t *testing.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		do     func(t *testing.T, dir string)
		cutter string
		want   []string // kind, path, and "from", fetched bytes of a file, whether it is sure
		fetch  int64
	}{
		{"nothing", func(*testing.T, string) {}, "", nil, 0},
		{"one byte of a large file, and its time", func(t *testing.T, dir string) {
			p := fill(large, 0)
			p[200_000]++
			ok(t, os.WriteFile(filepath.Join(dir, "big"), p, 0o644))
		}, "", []string{`changed "big" "" 131072 true`}, 131072},
		{"moved", func(t *testing.T, dir string) {
			ok(t, os.Rename(filepath.Join(dir, "big"), filepath.Join(dir, "d", "new")))
		}, "", []string{`moved "d/new" "big" 0 true`}, 0},
		{"a small one moved", func(t *testing.T, dir string) {
			ok(t, os.Rename(filepath.Join(dir, "s", "b"), filepath.Join(dir, "d", "b")))
		}, "", []string{`moved "d/b" "s/b" 2000 false`}, 5015},
		{"a small one changed", func(t *testing.T, dir string) {
			ok(t, os.WriteFile(filepath.Join(dir, "s", "b"), fill(2000, 77), 0o644))
		}, "", []string{`changed "s/b" "" 2000 false`}, 5015},
		{"added and removed", func(t *testing.T, dir string) {
			ok(t, os.Remove(filepath.Join(dir, "z")))
			ok(t, os.WriteFile(filepath.Join(dir, "y"), fill(7, 9), 0o644))
		}, "", []string{`added "y" "" 7 true`, `removed "z" "" 0 true`}, 5017},
		{"kinds and links", func(t *testing.T, dir string) {
			ok(t, os.Remove(filepath.Join(dir, "link")))
			ok(t, os.Symlink("z", filepath.Join(dir, "link")))
			ok(t, os.Remove(filepath.Join(dir, "d", "other")))
			ok(t, os.Mkdir(filepath.Join(dir, "d", "other"), 0o755))
			ok(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
		}, "", []string{`changed "d/other" "" 0 true`, `added "empty" "" 0 true`, `changed "link" "" 0 true`}, 0},
		{"mode only", func(t *testing.T, dir string) {
			ok(t, os.Chmod(filepath.Join(dir, "big"), 0o600))
		}, "", []string{`meta "big" "" 0 true`}, 0},
		{"other cutters", func(t *testing.T, dir string) {
			ok(t, os.WriteFile(filepath.Join(dir, "s", "b"), fill(2000, 77), 0o644))
		}, "fastcdc", []string{`changed "s/b" "" 2000 false`}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t)
			a := build(t, dir, "fixed")
			tt.do(t, dir)
			b := build(t, dir, tt.cutter)
			c := Compare(a, b)
			var got []string
			for _, d := range c.Changes {
				if d.Kind == MetaChanged && d.Entry.New == Dir { // their times change with what is in them
					continue
				}
				got = append(got, fmt.Sprintf("%s %q %q %d %t", d.Kind, d.Path, d.From, d.Fetch, d.Sure))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.fetch >= 0 && c.Fetch != tt.fetch {
				t.Errorf("%d bytes to fetch, want %d", c.Fetch, tt.fetch)
			}
		})
	}
}
