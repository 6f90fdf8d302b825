package manifest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-p2p/shoal/chunk"
)

var cutters = []string{chunk.Fixed, chunk.FastCDC}

// randomText returns n bytes that depend on seed, which a cutter finds cuts in.
func randomText(n int, seed uint64) string {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)})
	p := make([]byte, n)
	r.Read(p)
	return string(p)
}

// mixedTree has files of many sizes, directories and links.
func mixedTree() []node {
	var nodes []node
	for i := range 60 {
		nodes = append(nodes, node{path: fmt.Sprintf("t/d%d/small %d", i%4, i), text: randomText(i*700, 1), sec: int64(1600000000 + i)})
	}
	for i, n := range []int{131071, 131072, 131073, 262144, 700_001, 3 << 20} {
		nodes = append(nodes, node{path: fmt.Sprintf("t/d%d/big %d", i%3, n), text: randomText(n, 2), mode: 0o600 + os.FileMode(i)})
	}
	nodes = append(
		nodes,
		node{path: "t/d0/link", target: "../d1/small 1"},
		node{path: "t/d1/link", target: "nowhere"},
		node{path: "t/empty/"},
		node{path: "t/d5/"},
		node{path: "t/d5/none"},
	)
	for _, dir := range []string{"t/d0/", "t/d1/", "t/d2/", "t/d3/", "t/"} {
		nodes = append([]node{{path: dir, sec: 1500000000}}, nodes...)
	}
	return nodes
}

func TestBuildIsDeterministic(t *testing.T) {
	nodes := mixedTree()
	reversed := slices.Clone(nodes)
	slices.Reverse(reversed[5:]) // the first are the directories, whose times are set last
	a, b := plant(t, nodes), plant(t, reversed)
	for _, cutter := range cutters {
		want, _ := build(t, filepath.Join(a, "t"), BuildOptions{Cutter: cutter, Workers: 1})
		for _, workers := range []int{1, 2, 7} {
			for _, procs := range []int{1, 4} {
				before := runtime.GOMAXPROCS(procs)
				m, _ := build(t, filepath.Join(b, "t"), BuildOptions{Cutter: cutter, Workers: workers})
				runtime.GOMAXPROCS(before)
				if m.Root() != want.Root() {
					t.Errorf("%s with %d workers on %d processors gives another root:\n%s", cutter, workers, procs, m.Text()[:200])
				}
			}
		}
	}
}

// naive cuts and hashes the contents of files one by one, as SPEC.md says.
func naive(m *Manifest, content func(path string) []byte) (lens []int, hashes []chunk.Hash) {
	c := m.Cutter()
	var run []byte
	cut := func(p []byte) {
		for len(p) > 0 {
			n := c.Next(p)
			lens, hashes = append(lens, n), append(hashes, chunk.Sum(p[:n]))
			p = p[n:]
		}
	}
	for _, e := range m.Entries() {
		if e.Kind != File {
			continue
		}
		p := content(e.Path)
		if len(p) < c.Size() {
			run = append(run, p...)
			continue
		}
		cut(run)
		cut(p)
		run = run[:0]
	}
	cut(run)
	return lens, hashes
}

// checkNaive compares the chunks of m, built from the directory at path, with those
// that the contents of its files give.
func checkNaive(t rapid.TB, m *Manifest, path string) {
	t.Helper()
	lens, hashes := naive(m, func(rel string) []byte {
		p, err := os.ReadFile(filepath.Join(path, rel))
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
	if len(lens) != m.NumChunks() {
		t.Fatalf("%d chunks, want %d", m.NumChunks(), len(lens))
	}
	for i := range lens {
		if m.ChunkLen(i) != lens[i] || m.ChunkHash(i) != hashes[i] {
			t.Fatalf("chunk %d of %d by %s: %d bytes, hash %s, want %d bytes, %s", i, len(lens), m.Cutter(), m.ChunkLen(i), m.ChunkHash(i), lens[i], hashes[i])
		}
	}
}

func TestBuildModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top, err := os.MkdirTemp("", "shoal-model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(top)
		near := rapid.Custom(func(t *rapid.T) int { // around multiples of the chunk size
			return max(0, rapid.IntRange(0, 5).Draw(t, "chunks")*chunk.MinSize+rapid.IntRange(-2, 2).Draw(t, "bytes"))
		})
		size := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 60_000), near)
		num := rapid.IntRange(0, 25).Draw(t, "files")
		for i := range num {
			dir := filepath.Join(top, fmt.Sprintf("d%d", rapid.IntRange(0, 3).Draw(t, "dir")))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			n := size.Draw(t, "size")
			text := randomText(n, uint64(i))
			if rapid.Bool().Draw(t, "zeros") {
				text = strings.Repeat("\x00", n)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o := BuildOptions{
			Cutter:    rapid.SampledFrom(cutters).Draw(t, "cutter"),
			ChunkSize: rapid.SampledFrom([]int{0, chunk.MinSize, 2 * chunk.MinSize}).Draw(t, "size"),
			Workers:   rapid.IntRange(1, 4).Draw(t, "workers"),
		}
		m, src, err := Build(context.Background(), []string{top}, o)
		if err != nil {
			t.Fatal(err)
		}
		checkNaive(t, m, top)
		if src.Hashed.Count() != m.NumChunks() || len(src.Files) != num {
			t.Fatalf("%d of %d chunks hashed, %d of %d files", src.Hashed.Count(), m.NumChunks(), len(src.Files), num)
		}
	})
}

// Long segments are cut by several workers, whose parts are joined; many small files
// in one chunk are read by several.
func TestBuildLong(t *testing.T) {
	if testing.Short() {
		t.Skip("long files")
	}
	const size = 2*partSize + 12345
	top := t.TempDir()
	random := []byte(randomText(size, 3))
	for name, p := range map[string][]byte{
		"random": random,
		"zeros":  make([]byte, size), // cut only at the greatest length: parts never meet
		"half":   slices.Concat(random[:partSize/2], make([]byte, size-partSize/2)),
	} {
		if err := os.WriteFile(filepath.Join(top, name), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(top, fmt.Sprintf("s%04d", i)), random[i:i+i%80], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, cutter := range cutters {
		m, _ := build(t, top, BuildOptions{Cutter: cutter, Workers: 3})
		checkNaive(t, m, top)
	}
}

func TestBuildPacks(t *testing.T) {
	const size = chunk.MinSize
	for _, test := range []struct {
		sizes []int
		want  []int // lengths of chunks
	}{
		{nil, nil},
		{[]int{0}, nil},
		{[]int{0, 0, 1, 0}, []int{1}},
		{[]int{size - 1}, []int{size - 1}},
		{[]int{size}, []int{size}},
		{[]int{size + 1}, []int{size, 1}},
		{[]int{3*size - 1}, []int{size, size, size - 1}},
		{[]int{3 * size}, []int{size, size, size}},
		{[]int{3*size + 1}, []int{size, size, size, 1}},
		{[]int{1, size, 1}, []int{1, size, 1}},
		{[]int{size, 1, 1}, []int{size, 2}},
		{[]int{size - 1, size - 1, 2}, []int{size, size}},
		{[]int{size - 1, 0, size - 1, size + 1, 5, 0, 5}, []int{size, size - 2, size, 1, 10}},
	} {
		top := t.TempDir()
		for i, n := range test.sizes {
			if err := os.WriteFile(filepath.Join(top, fmt.Sprintf("%02d", i)), make([]byte, n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, _ := build(t, top, BuildOptions{Cutter: chunk.Fixed})
		var got []int
		for i := range m.NumChunks() {
			got = append(got, m.ChunkLen(i))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("files of %v give chunks of %v, want %v", test.sizes, got, test.want)
		}
		for i, n := range test.sizes {
			if m.Entries()[i].Size != int64(n) {
				t.Errorf("file %d has %d bytes, want %d", i, m.Entries()[i].Size, n)
			}
		}
	}
}

func TestBuildAsItIs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs modes and links")
	}
	top := plant(t, []node{
		{path: "t/", mode: 0o711, sec: 1},
		{path: "t/a", mode: 0o777 | os.ModeSetuid, sec: 1, nsec: 1},
		{path: "t/b", mode: 0o640 | os.ModeSetgid, sec: -1},
		{path: "t/d/", mode: 0o777 | os.ModeSticky, sec: 1234567890, nsec: 987654321},
		{path: "t/d/e/", mode: 0o500},
		{path: "t/d/link", target: "./e/../../a"},
		{path: "t/top", target: "."},
	})
	m, src := build(t, filepath.Join(top, "t"), BuildOptions{})
	want := `shoal-manifest 1
name t
top dir 0711 1.000000000
cutter fixed 131072
size 0
entries 6
chunks 0
file 0777 1.000000001 0 a
file 0640 0.000000000 0 b
dir 0777 1234567890.987654321 d
dir 0500 1700000000.000000000 d/e
link d/link
> ./e/../../a
link top
> .
`
	if m.Text() != want {
		t.Errorf("manifest is\n%s\nwant\n%s", m.Text(), want)
	}
	if len(src.Files) != 2 || src.Files[0].Path != filepath.Join(top, "t", "a") {
		t.Errorf("files are %v", src.Files)
	}
	m, _ = build(t, filepath.Join(top, "t"), BuildOptions{Name: "other"})
	if m.Name() != "other" {
		t.Errorf("name is %q", m.Name())
	}
}

// What Build says before it hashes must not refuse a manifest that is within the limit.
func TestLeastText(t *testing.T) {
	top := filepath.Join(plant(t, mixedTree()), "t")
	for _, cutter := range cutters {
		m, _ := build(t, top, BuildOptions{Cutter: cutter})
		w := &walker{entries: m.entries}
		h := &hashing{b: w, cutter: m.cutter, fixed: cutter == chunk.Fixed}
		h.plan(m.segments())
		_, lines, _ := strings.Cut(m.text, fmt.Sprintf("\nchunks %d\n", m.NumChunks()))
		if n := w.textLen() + h.leastChunkText(); n > len(lines) || h.fixed && n != len(lines) {
			t.Errorf("%s: lines of at least %d bytes, they have %d", cutter, n, len(lines))
		}
	}
}

func TestBuildLimits(t *testing.T) {
	deep := strings.Repeat("d/", MaxDepth-1)
	top := plant(t, []node{{path: deep + "e/too deep"}, {path: deep + "file"}})
	got := make(map[string]string)
	m, _ := build(t, top, BuildOptions{Skipped: skips(got)})
	if len(m.Entries()) != MaxDepth+1 || !strings.Contains(got[deep+"e/too deep"], "more than 64 parts") || len(got) != 1 {
		t.Errorf("%d entries, left out: %q", len(m.Entries()), got)
	}

	top = t.TempDir()
	for _, name := range []string{"a", "b"} {
		f, err := os.Create(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(MaxSize/2 + 1); err != nil {
			f.Close()
			t.Skip(err) // the file system has no files as large
		}
		f.Close()
	}
	start := time.Now()
	_, _, err := Build(t.Context(), []string{top}, BuildOptions{})
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "share of more than 17592186044416 bytes") {
		t.Errorf("a share over the limit: %v", err)
	}
	_, _, err = Build(t.Context(), []string{filepath.Join(top, "a")}, BuildOptions{ChunkSize: chunk.MinSize})
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "needs 67108865 chunks of 131072 bytes, the limit is 1048576") {
		t.Errorf("too many chunks: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("limits were found after %v", d)
	}
}

// A file of holes costs no more than reading zeros.
func TestBuildSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Skip(err)
	}
	start := time.Now()
	m, _ := build(t, path, BuildOptions{})
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("1 GiB of zeros took %v", d)
	}
	zeros := chunk.Sum(make([]byte, chunk.MinSize))
	for i := range m.NumChunks() {
		if m.ChunkHash(i) != zeros {
			t.Fatalf("chunk %d is not zeros", i)
		}
	}
}

func TestBuildProgress(t *testing.T) {
	top := plant(t, []node{{path: "a", text: randomText(900_000, 1)}, {path: "b", text: "b"}})
	for _, cutter := range cutters {
		var dones []int64
		_, _ = build(t, top, BuildOptions{Cutter: cutter, Progress: func(done, total int64) {
			if total != 900_001 {
				t.Errorf("total is %d", total)
			}
			dones = append(dones, done)
		}})
		if len(dones) == 0 || dones[len(dones)-1] != 900_001 || !slices.IsSorted(dones) {
			t.Errorf("%s: progress is %v", cutter, dones)
		}
	}
}

func TestBuildCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	must(t, os.WriteFile(path, nil, 0o644))
	if err := os.Truncate(path, 64<<30); err != nil {
		t.Skip(err)
	}
	for _, cutter := range cutters {
		ctx, cancel := context.WithCancel(t.Context())
		var cancelled time.Time
		m, _, err := Build(ctx, []string{path}, BuildOptions{Cutter: cutter, Progress: func(done, total int64) {
			if cancelled.IsZero() {
				cancelled = time.Now()
				cancel()
			}
		}})
		cancel()
		if m != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", cutter, err)
		}
		if d := time.Since(cancelled); d > time.Second {
			t.Errorf("%s: ended %v after it was cancelled", cutter, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Build(ctx, []string{filepath.Dir(path)}, BuildOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	// The first error ends the other workers.
	top := filepath.Dir(path)
	must(t, os.WriteFile(filepath.Join(top, "a"), []byte("a"), 0o644))
	start := time.Now()
	c := &mapCache{get: sync.OnceFunc(func() { os.Remove(filepath.Join(top, "a")) })}
	_, _, err := Build(t.Context(), []string{top}, BuildOptions{Cache: c})
	if ce := (*ChangedError)(nil); !errors.As(err, &ce) || ce.Why != "it is gone" {
		t.Errorf("error is %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the error ended the others after %v", d)
	}
}
