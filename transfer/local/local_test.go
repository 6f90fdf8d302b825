package local_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/local"
	"github.com/shoal-p2p/shoal/transfer/pack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A share is a folder "photos" in dir, and its manifest.
type share struct {
	dir  string
	m    *manifest.Manifest
	data [][]byte // by chunk
}

func newShare(t testing.TB) *share {
	t.Helper()
	s := &share{dir: t.TempDir()}
	top := filepath.Join(s.dir, "photos")
	for name, n := range map[string]int{"big.bin": 900_000, "sub/a": 3000, "sub/other": 200_000, "sub/empty": 0, "z": 1} {
		name = filepath.Join(top, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		p := make([]byte, n)
		x := uint32(n) + 1
		for i := range p {
			x = x*1664525 + 1013904223
			p[i] = byte(x >> 24)
		}
		must(t, os.WriteFile(name, p, 0o644))
	}
	var err error
	s.m, _, err = manifest.Build(t.Context(), []string{top}, manifest.BuildOptions{})
	must(t, err)
	src := open(t, s.dir)
	_, err = src.Open(t.Context(), s.m)
	must(t, err)
	for i := range s.m.NumChunks() {
		p, err := fetch(t, src, i)
		must(t, err)
		s.data = append(s.data, p)
	}
	return s
}

func open(t testing.TB, dir string) *local.Source {
	t.Helper()
	src, err := local.New(dir)
	must(t, err)
	t.Cleanup(func() { must(t, src.Close()) })
	return src
}

func fetch(t testing.TB, src *local.Source, i int) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	err := src.Fetch(t.Context(), i, &b)
	return b.Bytes(), err
}

// pack writes the chunks from first to end into a pack.
func (s *share) pack(t testing.TB, name string, first, end int) {
	t.Helper()
	w, err := pack.Create(t.Context(), name, s.m)
	must(t, err)
	for i := first; i < end; i++ {
		must(t, w.Write(i, s.data[i]))
	}
	must(t, errors.Join(w.Finish(), w.Close()))
}

// gives fails unless src says that it has exactly these chunks, and gives them.
func (s *share) gives(t testing.TB, src *local.Source, want func(i int) bool) {
	t.Helper()
	have, err := src.Open(t.Context(), s.m)
	must(t, err)
	for i := range s.m.NumChunks() {
		if have.Has(i) != want(i) {
			t.Errorf("chunk %d: %v", i, have.Has(i))
		}
		p, err := fetch(t, src, i)
		var gone *transfer.GoneError
		switch {
		case want(i) && (err != nil || !bytes.Equal(p, s.data[i])):
			t.Errorf("chunk %d: %d bytes, %v", i, len(p), err)
		case !want(i) && !errors.As(err, &gone):
			t.Errorf("chunk %d, which it lacks: %v", i, err)
		}
	}
}

func (s *share) isDead(t testing.TB, dir, why string) {
	t.Helper()
	_, err := open(t, dir).Open(t.Context(), s.m)
	var dead *transfer.DeadSourceError
	if !errors.As(err, &dead) || !strings.Contains(err.Error(), why) {
		t.Errorf("%v, want %q", err, why)
	}
}

func all(int) bool { return true }

// The share's own folder and the one that holds it are the same source; files that
// are missing, of another size or of another kind cost their chunks.
func TestFolder(t *testing.T) {
	s := newShare(t)
	s.gives(t, open(t, s.dir), all)
	top := filepath.Join(s.dir, "photos")
	s.gives(t, open(t, top), all)

	src := open(t, top)
	must(t, os.Remove(filepath.Join(top, "sub", "other")))
	must(t, os.Mkdir(filepath.Join(top, "sub", "other"), 0o755))
	e, ok := s.m.Find("sub/other")
	if !ok {
		t.Fatal("the share has no sub/other")
	}
	first, end := s.m.Chunks(e)
	s.gives(t, src, func(i int) bool { return i < first || i >= end })
	must(t, os.Truncate(filepath.Join(top, "big.bin"), 10))
	big, _ := s.m.Find("big.bin")
	from, to := s.m.Chunks(big)
	s.gives(t, src, func(i int) bool { return (i < first || i >= end) && (i < from || i >= to) })
}

// A file whose bytes are others costs the chunk in which they are.
func TestDamagedFile(t *testing.T) {
	s := newShare(t)
	name := filepath.Join(s.dir, "photos", "big.bin")
	p, err := os.ReadFile(name)
	must(t, err)
	p[len(p)/2] ^= 1
	must(t, os.WriteFile(name, p, 0o644))
	src := open(t, s.dir)
	_, err = src.Open(t.Context(), s.m)
	must(t, err)
	bad := 0
	for i := range s.m.NumChunks() {
		p, err := fetch(t, src, i)
		var gone *transfer.GoneError
		switch {
		case err == nil && !bytes.Equal(p, s.data[i]):
			t.Errorf("chunk %d is wrong", i)
		case err != nil && (!errors.As(err, &gone) || len(p) > 0):
			t.Errorf("chunk %d: %v, and %d bytes", i, err, len(p))
		case err != nil:
			bad++
		}
	}
	if bad != 1 {
		t.Errorf("%d chunks are gone", bad)
	}
}

// Packs that hold a part each are the share together, also beside some of its files.
// One that is damaged costs the chunk in which it is, if no other pack has that.
func TestPacks(t *testing.T) {
	s := newShare(t)
	dir := t.TempDir()
	n := s.m.NumChunks()
	s.pack(t, filepath.Join(dir, "a.shoalpack"), 0, 3)
	s.gives(t, open(t, dir), func(i int) bool { return i < 3 })
	s.pack(t, filepath.Join(dir, "b.shoalpack"), 2, n)
	src := open(t, dir)
	s.gives(t, src, all)
	if text := src.Manifest(t.Context(), s.m.Root()); string(text) != s.m.Text() {
		t.Errorf("a manifest of %d bytes", len(text))
	}
	if text := src.Manifest(t.Context(), chunk.Sum(nil)); text != nil {
		t.Error("the manifest of another share is there")
	}

	name := filepath.Join(dir, "a.shoalpack")
	p, err := os.ReadFile(name)
	must(t, err)
	for _, i := range []int{1, 2} { // b has the second of them
		p[bytes.Index(p, s.data[i])+100] ^= 1
	}
	must(t, os.WriteFile(name, p, 0o644))
	_, err = src.Open(t.Context(), s.m)
	must(t, err)
	for i := range n {
		got, err := fetch(t, src, i)
		var gone *transfer.GoneError
		if i == 1 && (!errors.As(err, &gone) || !strings.Contains(err.Error(), "is damaged there")) {
			t.Errorf("chunk 1: %v", err)
		} else if i != 1 && (err != nil || !bytes.Equal(got, s.data[i])) {
			t.Errorf("chunk %d: %v", i, err)
		}
	}

	// The file has it.
	must(t, os.Mkdir(filepath.Join(dir, "photos"), 0o755))
	must(t, os.Link(filepath.Join(s.dir, "photos", "big.bin"), filepath.Join(dir, "photos", "big.bin")))
	s.gives(t, src, all)
}

// What is no pack, or none of this share, is told apart.
func TestNothingOfTheShare(t *testing.T) {
	s := newShare(t)
	s.isDead(t, t.TempDir(), `has no file and no pack of "photos"`)

	dir := t.TempDir()
	s.pack(t, filepath.Join(dir, "a.shoalpack"), 0, 2)
	p, err := os.ReadFile(filepath.Join(dir, "a.shoalpack"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "a.shoalpack"), p[:len(s.m.Text())/2], 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "b.shoalpack"), []byte("nonsense"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "c.shoalpack"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "d.shoalpack"), 0o755))
	must(t, os.Symlink("a.shoalpack", filepath.Join(dir, "e.shoalpack")))
	s.isDead(t, dir, "has a pack in which no chunk is whole")

	dir = t.TempDir()
	other := newShare(t)
	name := filepath.Join(other.dir, "photos", "z")
	must(t, os.WriteFile(name, []byte("!"), 0o644))
	other.m, _, err = manifest.Build(t.Context(), []string{filepath.Join(other.dir, "photos")}, manifest.BuildOptions{})
	must(t, err)
	w, err := pack.Create(t.Context(), filepath.Join(dir, "a.shoalpack"), other.m)
	must(t, err)
	must(t, errors.Join(w.Finish(), w.Close()))
	s.isDead(t, dir, "has packs of another share")

	file := filepath.Join(dir, "a.shoalpack")
	if _, err := local.New(file); err == nil || !strings.Contains(err.Error(), "is no folder") {
		t.Errorf("a file: %v", err)
	}
}

// A stick that is pulled out is not the same as a chunk that it lacks: it may be
// plugged in again, and then everything is there.
func TestRemovedInTheMiddle(t *testing.T) {
	s := newShare(t)
	src := open(t, s.dir)
	_, err := src.Open(t.Context(), s.m)
	must(t, err)
	must(t, os.Rename(s.dir, s.dir+"-away"))
	t.Cleanup(func() { _ = os.RemoveAll(s.dir + "-away") }) // it is back by then
	must(t, os.RemoveAll(s.dir+"-away/photos/sub"))         // so that nothing can be read through what is open
	e, _ := s.m.Find("sub/other")
	i, _ := s.m.Chunks(e)
	_, err = fetch(t, src, i)
	var gone *transfer.GoneError
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &gone) || !strings.Contains(err.Error(), "not there any more") {
		t.Errorf("pulled out: %v", err)
	}
	if _, err := src.Open(t.Context(), s.m); err == nil {
		t.Error("it opens what is not there")
	}
	if _, err := fetch(t, src, 0); err == nil {
		t.Error("it gives a chunk though it is not open")
	}
	must(t, os.Rename(s.dir+"-away", s.dir))
	have, err := src.Open(t.Context(), s.m)
	must(t, err)
	if have.Has(i) || !have.Has(0) {
		t.Errorf("plugged in again: %d chunks", have.Count())
	}
}

// Nobody waits for a look through packs when the get has ended.
func TestOpenEnds(t *testing.T) {
	s := newShare(t)
	dir := t.TempDir()
	s.pack(t, filepath.Join(dir, "a.shoalpack"), 0, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := open(t, dir)
	if _, err := src.Open(ctx, s.m); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if text := src.Manifest(ctx, s.m.Root()); text != nil {
		t.Error("it went on")
	}
	if err := src.Fetch(ctx, 0, io.Discard); err == nil {
		t.Error("it gives a chunk of what it has not opened")
	}
}
