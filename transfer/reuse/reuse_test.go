package reuse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/reuse"
	"github.com/shoal-p2p/shoal/transfer/store"
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

func write(t testing.TB, name string, p []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, p, 0o644))
}

// A sink checks what it is given.
type sink struct {
	t    testing.TB
	m    *manifest.Manifest
	mu   sync.Mutex
	got  map[int]bool
	wild bool // the files change meanwhile
	fail error
}

func (s *sink) Write(i int, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if chunk.Sum(p) != s.m.ChunkHash(i) {
		s.t.Errorf("chunk %d came with wrong bytes", i)
	}
	if s.got[i] {
		s.t.Errorf("chunk %d came twice", i)
	}
	s.got[i] = true
	return s.fail
}

func (s *sink) WriteFrom(i int, p []byte, src store.File, off int64) error {
	q := make([]byte, len(p))
	if s.wild {
		return s.Write(i, p)
	}
	if _, err := src.ReadAt(q, off); err != nil && !strings.Contains(err.Error(), "EOF") || !bytes.Equal(p, q) {
		s.t.Errorf("chunk %d is not at %d of its file: %v", i, off, err)
	}
	return s.Write(i, p)
}

// share builds the manifest of a tree or a file.
func share(t testing.TB, path, cutter string) *manifest.Manifest {
	t.Helper()
	m, _, err := manifest.Build(t.Context(), []string{path}, manifest.BuildOptions{Cutter: cutter, ChunkSize: chunk.MinSize})
	must(t, err)
	return m
}

type result struct {
	found int   // chunks
	size  int64 // bytes of them
	read  int64
	warns []string
}

func places(t testing.TB, dirs ...string) []reuse.Place {
	t.Helper()
	var ps []reuse.Place
	for _, dir := range dirs {
		name := "."
		if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
			dir, name = filepath.Split(dir)
		}
		d, err := store.OpenDisk(dir)
		must(t, err)
		t.Cleanup(func() { must(t, d.Close()) })
		ps = append(ps, reuse.Place{Disk: d, Name: name})
	}
	return ps
}

func find(t testing.TB, m *manifest.Manifest, cache manifest.Cache, dirs ...string) (r result) {
	t.Helper()
	want := chunk.NewBitfield(m.NumChunks())
	want.Fill()
	s := &sink{t: t, m: m, got: map[int]bool{}}
	must(t, reuse.Find(t.Context(), reuse.Options{
		Manifest: m, Want: want, Places: places(t, dirs...), Sink: s, Cache: cache,
		Report: func(read, _ int64) { r.read = read },
		Warn:   func(_, name string, err error) { r.warns = append(r.warns, name+": "+err.Error()) },
	}))
	if want.Count()+len(s.got) != m.NumChunks() {
		t.Errorf("%d chunks are wanted and %d were found, of %d", want.Count(), len(s.got), m.NumChunks())
	}
	r.found = len(s.got)
	for i := range s.got {
		r.size += int64(m.ChunkLen(i))
	}
	return r
}

const (
	large = 3<<20 + 777
	kb    = 1 << 10
)

// tree makes a share of three large files and some small ones.
func tree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for i := range 3 {
		write(t, filepath.Join(dir, fmt.Sprint("big", i)), noise(uint64(i), large))
	}
	for i := range 40 {
		write(t, filepath.Join(dir, "small", fmt.Sprintf("%02d.txt", i)), noise(uint64(100+i), 10*kb+37*i))
	}
	return dir
}

// What can be found of a share in a folder that has other things, or the same
// things elsewhere. missing is the least and the most that may not be found, in
// bytes.
func TestFind(t *testing.T) {
	all := int64(-1)
	for _, tt := range []struct {
		name  string
		do    func(t *testing.T, dir string) // what becomes of a copy
		fixed [2]int64                       // missing with a fixed cutter
		cdc   [2]int64                       // and with a content-defined one
	}{
		{"a copy", func(*testing.T, string) {}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"nothing", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)); must(t, os.Mkdir(dir, 0o755)) }, [2]int64{all, all}, [2]int64{all, all}},
		{"large files renamed and moved", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "deep"), 0o755))
			must(t, os.Rename(filepath.Join(dir, "big0"), filepath.Join(dir, "deep", "other")))
			must(t, os.Rename(filepath.Join(dir, "big1"), filepath.Join(dir, "x")))
		}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"the small ones moved", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, "small"), filepath.Join(dir, "another")))
		}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"the small ones renamed, and in another order", func(t *testing.T, dir string) {
			for i := range 40 {
				must(t, os.Rename(filepath.Join(dir, "small", fmt.Sprintf("%02d.txt", i)), filepath.Join(dir, "small", fmt.Sprintf("new%02d", 99-i))))
			}
		}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"a half download with holes", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "big1"), os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt(make([]byte, 512*kb), 1<<20)
			must(t, errors.Join(err, f.Close()))
		}, [2]int64{512 * kb, 512 * kb}, [2]int64{512 * kb, 1100 * kb}},
		{"a beginning", func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "big1"), 1<<20+5))
		}, [2]int64{large - 1<<20, large - 1<<20}, [2]int64{large - 1<<20 - 5, large - 500*kb}},
		{"a file that has grown", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "big1"), append(noise(1, large), noise(9, 300*kb)...))
		}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"bytes before a file", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "big1"), append([]byte("new"), noise(1, large)...))
		}, [2]int64{large, large}, [2]int64{1, 1100 * kb}},
		{"bytes within a file, under another name", func(t *testing.T, dir string) {
			p := noise(1, large)
			write(t, filepath.Join(dir, "big1"), slices.Concat(p[:2<<20], []byte("new"), p[2<<20:]))
			must(t, os.Rename(filepath.Join(dir, "big1"), filepath.Join(dir, "moved")))
		}, [2]int64{1 << 20, large - 2<<20}, [2]int64{1, 600 * kb}},
		{"a small file more", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "small", "05b"), noise(7, 5*kb))
		}, [2]int64{0, 0}, [2]int64{0, 0}},
		{"a small file changed", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "small", "05.txt"), noise(7, 5*kb))
		}, [2]int64{128 * kb, 128 * kb}, [2]int64{32 * kb, 512 * kb}},
		{"what is no file", func(t *testing.T, dir string) {
			out := filepath.Join(t.TempDir(), "big0")
			must(t, os.Rename(filepath.Join(dir, "big0"), out))
			must(t, os.Symlink(out, filepath.Join(dir, "big0"))) // not followed
			must(t, os.Symlink(filepath.Dir(out), filepath.Join(dir, "folder")))
			special(t, filepath.Join(dir, "pipe"))
		}, [2]int64{large, large}, [2]int64{large, large}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, cutter := range []string{chunk.Fixed, chunk.FastCDC} {
				dir := tree(t)
				m := share(t, dir, cutter)
				copied := filepath.Join(t.TempDir(), "in", "tree")
				must(t, os.CopyFS(copied, os.DirFS(dir)))
				tt.do(t, copied)
				missing := tt.fixed
				if cutter == chunk.FastCDC {
					missing = tt.cdc
				}
				if missing[0] == all {
					missing = [2]int64{m.Size(), m.Size()}
				}
				// Given as the share's own folder, as the one that holds it, and
				// as one of several.
				for _, dirs := range [][]string{{copied}, {filepath.Dir(copied)}, {t.TempDir(), copied, t.TempDir()}} {
					r := find(t, m, nil, dirs...)
					if lost := m.Size() - r.size; lost < missing[0] || lost > missing[1] {
						t.Errorf("%s: %d bytes were not found, want %d to %d", cutter, lost, missing[0], missing[1])
					}
					if len(r.warns) > 0 {
						t.Errorf("%s: %q", cutter, r.warns)
					}
				}
			}
		})
	}
}

// A file share: what is given may be the file, whatever its name, or its folder.
func TestFindFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image.iso")
	write(t, file, noise(1, large))
	m := share(t, file, "")
	half := filepath.Join(t.TempDir(), "image.iso.crdownload")
	write(t, half, noise(1, large)[:1<<20])
	for _, tt := range []struct {
		place string
		want  int64
	}{{file, large}, {dir, large}, {half, 1 << 20}, {filepath.Dir(half), 1 << 20}} {
		if r := find(t, m, nil, tt.place); r.size != tt.want {
			t.Errorf("%s: found %d bytes, want %d", tt.place, r.size, tt.want)
		}
	}
	must(t, os.Rename(half, filepath.Join(filepath.Dir(half), "image.iso")))
	if r := find(t, m, nil, filepath.Dir(half)); r.size != 1<<20 {
		t.Errorf("found %d bytes of a half file", r.size)
	}
}

// The part of an older version, which holds the chunks that had come.
func TestFindInPart(t *testing.T) {
	dir := tree(t)
	m := share(t, dir, "")
	in := t.TempDir()
	must(t, os.CopyFS(filepath.Join(in, "tree.shoal-part", "data"), os.DirFS(dir)))
	for _, place := range []string{in, filepath.Join(in, "tree.shoal-part")} {
		if r := find(t, m, nil, place); r.size != m.Size() {
			t.Errorf("%s: %d of %d bytes", place, r.size, m.Size())
		}
	}
	// Our own part is left alone.
	want := chunk.NewBitfield(m.NumChunks())
	want.Fill()
	must(t, reuse.Find(t.Context(), reuse.Options{
		Manifest: m, Want: want, Places: places(t, in), Sink: &sink{t: t, m: m, got: map[int]bool{}},
		Avoid: func(name string, _ store.Info) bool { return name == "tree.shoal-part" },
	}))
	if !want.All() {
		t.Errorf("%d chunks were found in what is to be avoided", m.NumChunks()-want.Count())
	}
}

// A cache saves reading, and is never believed.
func TestCache(t *testing.T) {
	dir := tree(t)
	m := share(t, dir, chunk.FastCDC)
	other := filepath.Join(t.TempDir(), "other")
	write(t, filepath.Join(other, "x"), noise(77, 8<<20)) // nothing of it is of the share
	write(t, filepath.Join(other, "y"), slices.Concat(noise(77, 4<<20), noise(1, large)[100:]))
	old := time.Now().Add(-time.Hour)
	c := &memCache{}
	for _, f := range []string{"x", "y"} {
		must(t, os.Chtimes(filepath.Join(other, f), old, old))
	}
	if r := find(t, m, c, other); len(c.values) != 0 || r.size == 0 {
		t.Fatalf("cached %d files that have just changed", len(c.values))
	}
	if os.Getenv("SHOAL_CI") == "" && testing.Short() {
		t.Skip("waits for two seconds, until the files are old enough to be cached")
	}
	c.values = nil
	for deadline := time.Now().Add(time.Minute); len(c.values) < 2 && time.Now().Before(deadline); {
		find(t, m, c, other)
	}
	first := find(t, m, nil, other)
	second := find(t, m, c, other)
	if second.size != first.size || second.read > first.read/3 {
		t.Errorf("found %d and %d bytes, read %d and %d", first.size, second.size, first.read, second.read)
	}
	for k, v := range c.values { // values of other files, and damaged ones
		for i := 4; i < len(v); i += 36 {
			h := m.ChunkHash(i % m.NumChunks())
			copy(v[i:], h[:])
		}
		c.values[k] = v
	}
	find(t, m, c, other) // the sink looks at what comes
	for k, v := range c.values {
		c.values[k] = v[:len(v)/2]
	}
	if r := find(t, m, c, other); r.size != first.size {
		t.Errorf("with a damaged cache %d bytes were found, %d without", r.size, first.size)
	}
}

type memCache struct {
	mu     sync.Mutex
	values map[chunk.Hash][]byte
}

func (c *memCache) Get(k chunk.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[k]
	return slices.Clone(v), ok
}

func (c *memCache) Put(k chunk.Hash, v []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil {
		c.values = map[chunk.Hash][]byte{}
	}
	c.values[k] = slices.Clone(v)
}

// Files that are written to, cut and removed while they are read.
func TestFilesThatChange(t *testing.T) {
	dir := tree(t)
	m := share(t, dir, chunk.FastCDC)
	copied := filepath.Join(t.TempDir(), "tree")
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for k := 0; ; k++ {
			select {
			case <-stop:
				return
			default:
			}
			name := filepath.Join(copied, fmt.Sprint("big", k%3))
			switch k % 4 {
			case 0:
				_ = os.Truncate(name, int64(k%large))
			case 1:
				_ = os.WriteFile(name, noise(uint64(k%3), large), 0o644)
			case 2:
				_ = os.Remove(name)
			case 3:
				_ = os.WriteFile(name, noise(uint64(k), large/2), 0o644)
			}
		}
	}()
	ps := places(t, copied)
	for range 8 {
		want := chunk.NewBitfield(m.NumChunks())
		want.Fill()
		s := &sink{t: t, m: m, got: map[int]bool{}, wild: true} // it looks at what comes
		must(t, reuse.Find(t.Context(), reuse.Options{Manifest: m, Want: want, Places: ps, Sink: s}))
	}
	close(stop)
	<-ended
}

// Errors of the sink, and the end of the context, end the search.
func TestFindEnds(t *testing.T) {
	dir := tree(t)
	m := share(t, dir, "")
	want := func() *chunk.Bitfield {
		b := chunk.NewBitfield(m.NumChunks())
		b.Fill()
		return b
	}
	full := errors.New("disk full")
	o := reuse.Options{Manifest: m, Want: want(), Places: places(t, dir), Sink: &sink{t: t, m: m, got: map[int]bool{}, fail: full}}
	if err := reuse.Find(t.Context(), o); !errors.Is(err, full) {
		t.Errorf("a sink that fails: %v", err)
	}
	why := errors.New("told to")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	o.Want = want()
	if err := reuse.Find(ctx, o); !errors.Is(err, why) {
		t.Errorf("a context that has ended: %v", err)
	}
}
