package state

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// sampleFile returns a file with a page of each kind: meta, free, branch, leaf,
// values that flow over, and a bucket that is small enough to have no page.
func sampleFile(t testing.TB) []byte {
	t.Helper()
	s := New(t.TempDir(), nil)
	for range 2 { // the second time something is free
		c := s.Cache()
		for i := range 12 {
			c.Put(key(i), bytes.Repeat([]byte{1}, 700))
		}
		c.Put(key(100), bytes.Repeat([]byte{2}, 5000))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Add(Transfer{Part: "/a", Dest: "/b"}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	var kinds []byte
	for at := 0; at < len(p); at += pageSize {
		kinds = append(kinds, p[at+8])
	}
	for _, k := range []byte{flagBranch, flagLeaf, flagFreelist} {
		if !slices.Contains(kinds, k) {
			t.Fatalf("the file has no page of kind %d: %d", k, kinds)
		}
	}
	return p
}

var pageSize = os.Getpagesize()

// survives uses a store whose file is damaged: nothing may fail, and what cannot
// be read is set aside. write says whether to write to it too.
func survives(t *testing.T, dir string, write bool) (whole bool) {
	t.Helper()
	var warnings []string
	s := New(dir, func(w string) { warnings = append(warnings, w) })
	c := s.Cache()
	for _, i := range []int{0, 5, 11, 100, 200} {
		if v, ok := c.Get(key(i)); ok && len(v) != 700 && len(v) != 5000 {
			t.Errorf("Get(%d) gave %d bytes", i, len(v))
		}
	}
	if _, err := s.Transfers(); err != nil {
		t.Errorf("Transfers: %v", err)
	}
	if write {
		c.Put(key(1), []byte("new"))
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := s.Add(Transfer{Part: "/new"}); err != nil {
			t.Errorf("Add: %v", err)
		}
		ts, err := s.Transfers()
		if err != nil || !slices.ContainsFunc(ts, func(t Transfer) bool { return t.Part == "/new" }) {
			t.Errorf("Transfers after Add: %v, %v", ts, err)
		}
		// With a key out of order it may not be found, which costs only time.
		if v, ok := s.Cache().Get(key(1)); ok && string(v) != "new" {
			t.Errorf("Get after Put: %q", v)
		}
	}
	aside, err := filepath.Glob(s.Path() + ".damaged-*")
	if err != nil {
		t.Fatal(err)
	}
	if len(aside) == 0 != (len(warnings) == 0) {
		t.Errorf("%d files set aside, %q", len(aside), warnings)
	}
	for _, name := range aside {
		_ = os.Remove(name) // it is in nobody's way
	}
	for _, w := range warnings {
		if !strings.Contains(w, "damaged") || strings.Contains(w, "\n") {
			t.Errorf("warning %q", w)
		}
	}
	return len(warnings) == 0 && !write
}

// TestD13StateFile flips one byte at the start of each page, where all that bbolt
// follows stands. None of it may end the process, not even when the collector
// runs: what is damaged is set aside, and there is a new file.
func TestD13StateFile(t *testing.T) {
	whole, dir := sampleFile(t), t.TempDir()
	name := filepath.Join(dir, FileName)
	every := 97 // each so many are written to, which means flushes
	if testing.Short() {
		every = 997
	}
	n, found, seen, fresh := 0, 0, map[string]bool{}, true
	for at := 0; at < len(whole); at += pageSize {
		if head := string(whole[at+8 : at+16]); seen[head] || whole[at+8] == 0 {
			continue // one of each kind and size
		} else {
			seen[head] = true
		}
		for off := range 200 {
			old := whole[at+off]
			for _, v := range []byte{old ^ 1, old ^ 0x80, old + 1, old - 16, 0, 0xff} {
				if v == old {
					continue
				}
				if fresh {
					must(t, os.WriteFile(name, whole, 0o600))
				}
				patch(t, name, at+off, v)
				n++
				fresh = !survives(t, dir, n%every == 0)
				if fresh {
					found++
				} else {
					patch(t, name, at+off, old)
				}
				if n%500 == 0 {
					runtime.GC()
				}
				if t.Failed() {
					t.Fatalf("page %d, byte %d: %#x instead of %#x", at/pageSize, off, v, old)
				}
			}
		}
	}
	t.Logf("%d damaged files, %d set aside or written to", n, found)
}

func patch(t *testing.T, name string, at int, v byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{v}, int64(at))
	must(t, errors.Join(err, f.Close()))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzStateFile writes over a part of the file.
func FuzzStateFile(f *testing.F) {
	whole := sampleFile(f)
	for at := 0; at < len(whole); at += 3 * pageSize {
		for _, patch := range [][]byte{{0xff}, []byte("\xff\xff\xff\xff\xff\xff\xff\x7f")} {
			for _, off := range []int{0, 10, 12, pageHeader + 4, pageHeader + 8} {
				f.Add(at+off, patch)
			}
		}
	}
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		p := bytes.Clone(whole)
		if at < 0 || at > len(p) {
			return
		}
		copy(p[at:], patch)
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, FileName), p, 0o600))
		survives(t, dir, true)
		runtime.GC()
	})
}
