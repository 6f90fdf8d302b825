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

// skips collects what Build leaves out.
func skips(to map[string]string) func(path, why string) {
	return func(path, why string) { to[path] = why }
}

func TestBuildSkipsNames(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("needs a system that takes any bytes as a name")
	}
	long := strings.Repeat("x", MaxName)
	want := map[string]string{
		"new\nline":         "its name holds the control character 0x0a",
		"esc\x1b[2J":        "its name holds the control character 0x1b",
		"\xff":              "its name is not valid UTF-8",
		"rtl\u202egpj":      "its name holds U+202E, which changes the direction of text",
		"d/line\u2028":      "its name holds the line separator U+2028",
		long + "x":          "its name has 241 bytes, the limit is 240",
		"~":                 "its name could be taken for a home directory",
		`\\host\share`:      "its name begins with a backslash and could be taken for an absolute path",
		"C:x":               "its name begins with a drive letter and could be taken for an absolute path",
		"x.shoal-part":      "its name ends in .shoal-part, which is for unfinished downloads",
		"d/Y.SHOAL-PART/in": "",
		"d/Y.SHOAL-PART":    "its name ends in .shoal-part, which is for unfinished downloads",
		"d/z.\u017fhoal-pa": "",
	}
	keep := []string{"-rf", "$(id)", "`id`", ";x", long, "d/~", "ok"}
	var nodes []node
	for name := range want {
		nodes = append(nodes, node{path: name, text: "x"})
	}
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(b.path, a.path) }) // what is in a directory first
	nodes = slices.DeleteFunc(nodes, func(n node) bool { return n.path == "d/Y.SHOAL-PART" })
	for _, name := range keep {
		nodes = append(nodes, node{path: name, text: "x"})
	}
	delete(want, "d/Y.SHOAL-PART/in") // its directory is what is left out
	delete(want, "d/z.\u017fhoal-pa")
	top := plant(t, nodes)
	got := make(map[string]string)
	m, _ := build(t, top, BuildOptions{Skipped: skips(got)})
	for path, why := range want {
		if got[path] != why {
			t.Errorf("%q is left out as %q, want %q", path, got[path], why)
		}
	}
	if len(got) != len(want) {
		t.Errorf("left out are %q", got)
	}
	for _, name := range keep {
		if !slices.ContainsFunc(m.Entries(), func(e Entry) bool { return e.Path == name }) {
			t.Errorf("%q is not in the manifest", name)
		}
	}
	_, _, err := Build(t.Context(), []string{top}, BuildOptions{Strict: true})
	if pe := (*PathError)(nil); !errors.As(err, &pe) || !strings.Contains(err.Error(), "cannot be shared: its name") {
		t.Errorf("strict: %v", err)
	}
}

func TestBuildRefusesNames(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("needs a system that takes any bytes as a name")
	}
	for _, test := range []struct {
		name    string
		paths   []string
		want    string
		anyName bool // also refused then
	}{
		{"device", []string{"d/nul.txt"}, `name "d/nul.txt" is a device on Windows`, false},
		{"colon", []string{"ab:stream"}, `name "ab:stream" holds ":", which Windows refuses`, false},
		{"directory", []string{"con/x"}, `name "con" is a device`, false},
		{"dot at the end", []string{"a."}, `name "a." ends in a dot or a space`, false},
		{"several", []string{"a?", "b?", "c?"}, `name "a?" holds "?", which Windows refuses (and 2 more names like it)`, false},
		{"case", []string{"d/README", "d/Readme"}, `name "d/Readme" would collide on some systems with "d/README"`, true},
		{"normal forms", []string{"\u00e9", "e\u0301"}, `"\u00e9" would collide on some systems with "e\u0301"`, true},
		{"variation selector", []string{"\u2764", "\u2764\ufe0f"}, "would collide on some systems with", true},
		{"soft hyphen", []string{"ab", "a\u00adb"}, `name "a\u00adb" would collide on some systems with "ab"`, true},
		{"directories", []string{"Dir/a", "dir/b"}, `name "dir" would collide on some systems with "Dir"`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var nodes []node
			for _, path := range test.paths {
				nodes = append(nodes, node{path: path})
			}
			top := plant(t, nodes)
			m, _, err := Build(t.Context(), []string{top}, BuildOptions{})
			if pe := (*PathError)(nil); m != nil || !errors.As(err, &pe) {
				t.Fatalf("no PathError but %v", err)
			}
			// The accent is quoted or not, as the quoting finds it graphic.
			text := strings.NewReplacer("\u00e9", `\u00e9`, "e\u0301", `e\u0301`, "\u00ad", `\u00ad`).Replace(err.Error())
			if !strings.Contains(text, test.want) {
				t.Errorf("error is %s, want %s", text, test.want)
			}
			if _, _, err := Build(t.Context(), []string{top}, BuildOptions{AnyName: true}); (err != nil) != test.anyName {
				t.Errorf("with any name: %v", err)
			}
		})
	}
}

func TestBuildPaths(t *testing.T) {
	top := plant(t, []node{
		{path: "a/x", text: "1"},
		{path: "a/y/z", text: "2"},
		{path: "b/x", text: "3"},
		{path: "b/a/x", text: "4"},
		{path: "f.txt", text: "5", sec: 1800000000},
		{path: "to a", target: "a"},
		{path: "to f", target: "f.txt"},
		{path: "loop", target: "loop"},
	})
	at := func(names ...string) (paths []string) {
		for _, name := range names {
			if name != "" {
				name = top + string(filepath.Separator) + filepath.FromSlash(name)
			}
			paths = append(paths, name)
		}
		return paths
	}
	for _, test := range []struct {
		paths []string
		o     BuildOptions
		want  string // name: entries
		err   string
	}{
		{at("a"), BuildOptions{}, "a: x y y/z", ""},
		{at("a/"), BuildOptions{}, "a: x y y/z", ""},
		{at("a/y/.."), BuildOptions{}, "a: x y y/z", ""},
		{at("f.txt"), BuildOptions{}, "f.txt: f.txt", ""},
		{at("f.txt"), BuildOptions{Name: "g"}, "g: g", ""},
		{at("to a"), BuildOptions{}, "to a: x y y/z", ""},
		{at("to f"), BuildOptions{}, "to f: to f", ""},
		{at("f.txt", "a"), BuildOptions{}, "a+1: a a/x a/y a/y/z f.txt", ""},
		{at("a", "f.txt"), BuildOptions{}, "a+1: a a/x a/y a/y/z f.txt", ""},
		{at("f.txt", "to f", "b/a"), BuildOptions{Name: "all"}, "all: a a/x f.txt to f", ""},
		{at("a", "b", "f.txt"), BuildOptions{Exclude: []string{"*.txt", "y"}}, "a+1: a a/x b b/a b/a/x b/x", ""},
		{at("a", "b", "f.txt"), BuildOptions{Exclude: []string{"b", "*.txt"}}, "a: x y y/z", ""},
		{at("a", "f.txt"), BuildOptions{Exclude: []string{"*"}}, "", "every path is excluded"},
		{at("a"), BuildOptions{Exclude: []string{"*"}}, "a:", ""},
		{at("a"), BuildOptions{Exclude: []string{"["}}, "", "glob"},
		{at("a", "b/a"), BuildOptions{}, "", "have the same name, and a share can hold it once"},
		{at("a/x", "b/x"), BuildOptions{}, "", "have the same name"},
		{at("a", "a"), BuildOptions{}, "", "have the same name"},
		{at("nowhere"), BuildOptions{}, "", "no such file"},
		{at("a", "nowhere"), BuildOptions{}, "", "no such file"},
		{at("loop"), BuildOptions{}, "", "too many"},
		{at(""), BuildOptions{}, "", "a path is empty"},
		{nil, BuildOptions{}, "", "no path given"},
		{[]string{string(filepath.Separator)}, BuildOptions{}, "", "has no name of its own"},
		{at("a"), BuildOptions{Name: "../x"}, "", "holds a slash"},
		{at("a"), BuildOptions{Name: "x.shoal-part"}, "", "unfinished downloads"},
		{at("a"), BuildOptions{Name: "con"}, "", "device on Windows"},
		{at("a"), BuildOptions{ChunkSize: 100}, "", "power of two"},
		{at("a"), BuildOptions{Cutter: "random"}, "", "unknown cutter"},
	} {
		m, _, err := Build(t.Context(), test.paths, test.o)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q %+v: %v, want error %q", test.paths, test.o, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.paths, err)
			continue
		}
		got := m.Name() + ":"
		for _, e := range m.Entries() {
			got += " " + e.Path
		}
		if got != test.want {
			t.Errorf("%q %+v gives %q, want %q", test.paths, test.o, got, test.want)
		}
	}
	m, _, err := Build(t.Context(), at("a", "f.txt"), BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if mode, mtime := m.Top(); mode != 0o755 || mtime.Unix() != 1800000000 {
		t.Errorf("the top has mode %o and time %v, want those of the newest entry", mode, mtime)
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

// A mapCache is a Cache in memory. get, if set, is called before each Get.
type mapCache struct {
	mu     sync.Mutex
	values map[chunk.Hash][]byte
	gets   int
	hits   int
	get    func()
}

func (c *mapCache) Get(key chunk.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.get != nil {
		c.get()
	}
	v, ok := c.values[key]
	c.gets++
	if ok {
		c.hits++
	}
	return v, ok
}

func (c *mapCache) Put(key chunk.Hash, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil {
		c.values = make(map[chunk.Hash][]byte)
	}
	c.values[key] = slices.Clone(value)
}

// settle waits until files that were just written can be cached.
func settle() { time.Sleep(racyTime + 30*time.Millisecond) }

func TestBuildCache(t *testing.T) {
	for _, cutter := range cutters {
		t.Run(cutter, func(t *testing.T) {
			top := plant(t, []node{
				{path: "a big", text: randomText(400_000, 1)},
				{path: "b small", text: "b"},
				{path: "c small", text: "c"},
				{path: "d big", text: randomText(500_000, 2)},
			})
			c := &mapCache{}
			o := BuildOptions{Cutter: cutter, Cache: c}
			first, src := build(t, top, o) // the files may be too young to be cached
			settle()
			m, _ := build(t, top, o)
			if m.Root() != first.Root() || src.Hashed.Count() != m.NumChunks() {
				t.Fatal("roots differ, or not all was hashed")
			}
			c.hits = 0
			m, src = build(t, top, o)
			if m.Root() != first.Root() || c.hits != 3 || src.Hashed.Count() != 0 {
				t.Errorf("%d hits, %d chunks hashed, same root: %v", c.hits, src.Hashed.Count(), m.Root() == first.Root())
			}
			// The other cutter does not take what this one has left.
			other := o
			other.Cutter = cutters[0]
			if cutter == cutters[0] {
				other.Cutter = cutters[1]
			}
			if m, src := build(t, top, other); src.Hashed.Count() != m.NumChunks() {
				t.Error("the other cutter takes cached chunks")
			}

			// Rehash reads all, and mends what is wrong in the cache.
			good := make(map[chunk.Hash][]byte)
			for key, value := range c.values {
				good[key] = slices.Clone(value)
				value[len(value)-1] ^= 1
			}
			if m, _ := build(t, top, o); m.Root() == first.Root() {
				t.Error("the cache is not used")
			}
			o.Rehash = true
			if m, src := build(t, top, o); m.Root() != first.Root() || src.Hashed.Count() != m.NumChunks() {
				t.Error("a rehash believes the cache")
			}
			o.Rehash = false
			if m, src := build(t, top, o); m.Root() != first.Root() || src.Hashed.Count() != 0 {
				t.Error("a rehash does not fill the cache")
			}

			// Values of the wrong form are not used.
			for name, spoil := range map[string]func([]byte) []byte{
				"empty":        func(v []byte) []byte { return nil },
				"cut":          func(v []byte) []byte { return v[:len(v)-1] },
				"one less":     func(v []byte) []byte { return v[cachedChunkLen:] },
				"one more":     func(v []byte) []byte { return append(slices.Clone(v), v[:cachedChunkLen]...) },
				"length 0":     func(v []byte) []byte { return append([]byte{0, 0, 0, 0}, v[4:]...) },
				"length large": func(v []byte) []byte { return append([]byte{255, 255, 255, 255}, v[4:]...) },
			} {
				for key, value := range good {
					c.values[key] = spoil(slices.Clone(value))
				}
				if m, _ := build(t, top, o); m.Root() != first.Root() {
					t.Errorf("a value is used that is %s", name)
				}
			}

			// What the stat shows to be different is read again; its neighbours are not.
			for key, value := range good {
				c.values[key] = value
			}
			path := filepath.Join(top, "a big")
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(randomText(400_000, 9)), 0o644); err != nil {
				t.Fatal(err)
			}
			os.Chtimes(path, fi.ModTime(), fi.ModTime()) // size and time as before
			m, src = build(t, top, o)
			if m.Root() == first.Root() {
				t.Error("a changed file has the hashes of the old one")
			}
			checkNaive(t, m, top)
			end := 0
			for i := range m.Entries() {
				if m.Entries()[i].Path == "a big" {
					_, end = m.Chunks(i)
				}
			}
			if src.Hashed.Count() != end {
				t.Errorf("%d chunks were hashed, the changed file has %d", src.Hashed.Count(), end)
			}
			// It is too young: it could change again without a sign.
			if _, src := build(t, top, o); src.Hashed.Count() != end {
				t.Errorf("a file that was written just now is cached")
			}
		})
	}
}

// While the cache is asked, the list is made and nothing is read yet.
func TestBuildChanged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files cannot be replaced")
	}
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			top := t.TempDir()
			path := filepath.Join(top, "f")
			for _, cutter := range cutters {
				os.RemoveAll(path)
				if err := os.WriteFile(path, []byte(randomText(300_000, 1)), 0o644); err != nil {
					t.Fatal(err)
				}
				c := &mapCache{get: sync.OnceFunc(func() { test.change(t, path) })}
				m, src, err := Build(t.Context(), []string{top}, BuildOptions{Cutter: cutter, Cache: c})
				var ce *ChangedError
				if m != nil || src != nil || !errors.As(err, &ce) {
					t.Fatalf("%s: no ChangedError but %v", cutter, err)
				}
				if ce.Path != path || !strings.Contains(err.Error(), "has changed: "+test.want) || !strings.HasPrefix(err.Error(), "hash: file ") {
					t.Errorf("%s: error is %v, want %q", cutter, err, test.want)
				}
				if len(c.values) > 0 {
					t.Errorf("%s: the changed file is cached", cutter)
				}
			}
		})
	}
}

// changes are what can happen to a file of 300,000 bytes, and how it is called.
var changes = []struct {
	name   string
	change func(t *testing.T, path string)
	want   string
}{
	{"appended", func(t *testing.T, path string) { appendTo(t, path) }, "it has another size"},
	{"truncated", func(t *testing.T, path string) { must(t, os.Truncate(path, 200_000)) }, "it has another size"},
	{"emptied", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, "it has another size"},
	{"written", func(t *testing.T, path string) {
		must(t, os.WriteFile(path, []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Chtimes(path, time.Unix(5, 0), time.Unix(5, 0)))
	}, "it was written to"},
	{"written, with the old time", func(t *testing.T, path string) {
		fi, err := os.Stat(path)
		must(t, err)
		time.Sleep(20 * time.Millisecond) // the clock of a file system may tick slowly
		must(t, os.WriteFile(path, []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
	}, "it, its mode or its links were changed"},
	{"deleted", func(t *testing.T, path string) { must(t, os.Remove(path)) }, "it is gone"},
	{"replaced", func(t *testing.T, path string) {
		must(t, os.WriteFile(path+".new", []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Rename(path+".new", path))
	}, "it is another file"},
	{"now a link", func(t *testing.T, path string) {
		must(t, os.Remove(path))
		must(t, os.Symlink("/dev/zero", path))
	}, "it is now a symbolic link"},
	{"now a directory", func(t *testing.T, path string) {
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o755))
	}, "it is now a directory"},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func appendTo(t testing.TB, path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("more")
	must(t, err)
	must(t, f.Close())
}

// A change between the first and the last read of a file shows when it is closed.
func TestReaderChanged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files cannot be replaced")
	}
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			must(t, os.WriteFile(path, []byte(randomText(300_000, 1)), 0o644))
			fi, err := os.Stat(path)
			must(t, err)
			r := newReader(&stream{
				offsets: []int64{0, 300_000},
				path:    func(int) string { return path },
				stat:    func(int) (Stat, bool) { return StatOf(fi), true },
			})
			buf := make([]byte, 1000)
			must(t, r.readAt(buf, 0))
			test.change(t, path)
			err = r.readAt(buf, 299_000)
			if err == nil {
				err = r.close()
			} else {
				r.close()
			}
			// What is deleted or replaced is still what was opened; the links of it changed.
			want := test.want
			switch test.name {
			case "deleted", "replaced", "now a link", "now a directory":
				want = "it, its mode or its links were changed"
			case "truncated", "emptied":
				want = "it ends early"
			}
			if ce := (*ChangedError)(nil); !errors.As(err, &ce) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("error is %v, want %q", err, want)
			}
		})
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
