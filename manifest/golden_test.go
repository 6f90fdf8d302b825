package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// example is the manifest that SPEC.md begins with.
func example(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../testdata/manifest/example.shoal")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var goldens = map[string]string{ // file: root
	"example.shoal": "pBsTjBQkfurgWNdGmyVxlmv_D0Q3suyHfCwVoL8odhM",
	"file.shoal":    "p-VlOzF2bQxUu9dhj2hM43ArGZuvhSlY3r2BDxxf4Qs",
	"empty.shoal":   "Tcp5sRArMWB189RerzB8wXiORKs1KtFKk0Gg7_5ZyHM",
	"fastcdc.shoal": "0rbkPnrh7rWz57d-JKjpaFYVc50dc7VcwbSv9qebeMw",
	"names.shoal":   "gF5O-RLvNu1xaXHgynERr3zNPR4_MlMSjhTOWCRvNj4",
	"bytes.shoal":   "iIgd8SbDwAbXl91CdL7yueR6KMDAW-OuoEZALWImVB4",
}

// exampleTree is what testdata/manifest/example.shoal lists.
var exampleTree = []node{
	{path: "photos/"},
	{path: "photos/album/"},
	{path: "photos/album/a b.jpg", text: strings.Repeat("\x00", 200_000), nsec: 123456789},
	{path: "photos/album/latest", target: "a b.jpg"},
	{path: "photos/notes.txt", text: "buy milk\n", mode: 0o600},
	{path: "photos/todo.txt", text: "call the bank\n"},
}

// goldenTrees are the trees of the other golden manifests, and how they are built.
func goldenTrees() map[string]struct {
	nodes []node
	o     BuildOptions
} {
	type tree = struct {
		nodes []node
		o     BuildOptions
	}
	long := strings.Repeat("0123456789abcdef", 65536)
	return map[string]tree{
		"example.shoal": {exampleTree, BuildOptions{}},
		"file.shoal":    {[]node{{path: "one file.bin", text: long[:300_000], mode: 0o755}}, BuildOptions{}},
		"empty.shoal":   {[]node{{path: "empty/"}}, BuildOptions{}},
		"fastcdc.shoal": {[]node{
			{path: "cdc/"},
			{path: "cdc/big", text: text(600_000)},
			{path: "cdc/small", text: "x"},
		}, BuildOptions{Cutter: chunk.FastCDC}},
		"names.shoal": {[]node{
			{path: "names/"},
			{path: "names/$(id)", text: "a"},
			{path: "names/-rf/"},
			{path: "names/-rf/;x", text: "b"},
			{path: "names/`id`"},
			{path: "names/a/"},
			{path: "names/a/b"},
			{path: "names/a b"},
			{path: "names/a.b"},
			{path: "names/con:txt|?"},
			{path: "names/Ünïcödé/"},
			{path: "names/Ünïcödé/日本語 \u200d🎉"},
			{path: "names/Ünïcödé/link", target: "../a/./b"},
		}, BuildOptions{AnyName: true}},
		"bytes.shoal": {[]node{
			{path: "bytes/", sec: -5},
			{path: "bytes/0 below", text: long[:131071], mode: os.ModeSetuid | 0o755},
			{path: "bytes/1 exact", text: long[:131072], mode: 0o400},
			{path: "bytes/2 above", text: long[:131073], sec: 4102444799, nsec: 999999999},
			{path: "bytes/3 one byte", text: "x"},
			{path: "bytes/4 empty"},
			{path: "bytes/5 twice", text: long[:262144]},
			{path: "bytes/6 one byte", text: "y"},
		}, BuildOptions{}},
	}
}

// text returns n bytes of text that a content-defined cutter finds cuts in.
func text(n int) string {
	b := make([]byte, 0, n+32)
	for i := uint64(1); len(b) < n; i++ {
		b = fmt.Appendf(b, "%x\n", i*0x9e3779b97f4a7c15)
	}
	return string(b[:n])
}

// goldenDir holds the manifests that every version of this program must read, and
// make of the same trees.
const goldenDir = "../testdata/manifest/"

func TestGolden(t *testing.T) {
	trees := goldenTrees()
	for file, root := range goldens {
		t.Run(file, func(t *testing.T) {
			tree := trees[file]
			if runtime.GOOS == "windows" {
				t.Skip("needs modes and links")
			}
			top := plant(t, tree.nodes)
			m, _ := build(t, filepath.Join(top, strings.TrimSuffix(tree.nodes[0].path, "/")), tree.o)
			if *update {
				if err := os.WriteFile(goldenDir+file, []byte(m.Text()), 0o644); err != nil {
					t.Fatal(err)
				}
				t.Logf("root %s", m.Root())
			}
			want, err := os.ReadFile(goldenDir + file)
			if err != nil {
				t.Fatal(err)
			}
			if m.Text() != string(want) {
				t.Errorf("Build gives\n%s\nwant\n%s", m.Text(), want)
			}
			parsed, err := Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if got := parsed.Root().String(); got != root || parsed.Root() != chunk.Sum(want) {
				t.Errorf("root is %s, want %s", got, root)
			}
			if got := encode(parsed); got != string(want) {
				t.Errorf("encodes as\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// encode writes a manifest from what its methods say, so that a test can hold it
// against the text.
func encode(m *Manifest) string {
	b := fmt.Appendf(nil, "shoal-manifest 1\nname %s\n", m.Name())
	if m.IsFile() {
		b = append(b, "top file\n"...)
	} else {
		mode, mtime := m.Top()
		b = fmt.Appendf(b, "top dir %04o %d.%09d\n", mode, mtime.Unix(), mtime.Nanosecond())
	}
	for _, u := range m.Web() {
		b = fmt.Appendf(b, "web %s\n", u)
	}
	b = fmt.Appendf(b, "cutter %s\nsize %d\nentries %d\nchunks %d\n", m.Cutter(), m.Size(), len(m.Entries()), m.NumChunks())
	for i := range m.Entries() {
		b = appendEntry(b, &m.Entries()[i])
	}
	for i := range m.NumChunks() {
		b = fmt.Appendf(b, "%d %s\n", m.ChunkLen(i), m.ChunkHash(i))
	}
	return string(b)
}

func TestAccessors(t *testing.T) {
	m, err := Parse([]byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name() != "photos" || m.IsFile() || m.Size() != 200_023 || m.NumChunks() != 3 || m.MaxChunkLen() != 131072 {
		t.Errorf("name %q file %v size %d chunks %d longest %d", m.Name(), m.IsFile(), m.Size(), m.NumChunks(), m.MaxChunkLen())
	}
	want := []Entry{
		{Path: "album", Kind: Dir, Mode: 0o755, Sec: 1700000000},
		{Path: "album/a b.jpg", Size: 200_000, Mode: 0o644, Sec: 1700000000, Nsec: 123456789},
		{Path: "album/latest", Kind: Symlink, Target: "a b.jpg", Offset: 200_000},
		{Path: "notes.txt", Size: 9, Offset: 200_000, Mode: 0o600, Sec: 1700000000},
		{Path: "todo.txt", Size: 14, Offset: 200_009, Mode: 0o644, Sec: 1700000000},
	}
	if !slices.Equal(m.Entries(), want) {
		t.Errorf("entries %+v, want %+v", m.Entries(), want)
	}
	if got := m.Entries()[1].ModTime(); !got.Equal(time.Unix(1700000000, 123456789)) {
		t.Errorf("time %v", got)
	}
	for i, want := range [][]Extent{
		{{1, 0, 131072}},
		{{1, 131072, 68928}},
		{{3, 0, 9}, {4, 0, 14}},
	} {
		if got := slices.Collect(m.Extents(i)); !slices.Equal(got, want) {
			t.Errorf("extents of chunk %d: %v, want %v", i, got, want)
		}
	}
	for i, want := range [][2]int{{0, 0}, {0, 2}, {2, 2}, {2, 3}, {2, 3}} {
		if first, end := m.Chunks(i); [2]int{first, end} != want {
			t.Errorf("chunks of entry %d: %d to %d, want %v", i, first, end, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		for range m.Extents(2) {
		}
	}); n != 0 {
		t.Errorf("Extents: %v allocations, want 0", n)
	}
}
