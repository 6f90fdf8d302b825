package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

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

// head returns a manifest up to its lists.
func head(entries, chunks int, size int64) string {
	return fmt.Sprintf("shoal-manifest 1\nname x\ntop dir 0755 0.000000000\ncutter fixed 131072\nsize %d\nentries %d\nchunks %d\n", size, entries, chunks)
}

// withPaths returns a manifest of empty files, and directories where a path ends in
// a slash, and links where it has " -> ".
func withPaths(paths ...string) string {
	b := []byte(head(len(paths), 0, 0))
	for _, p := range paths {
		if path, target, ok := strings.Cut(p, " -> "); ok {
			b = fmt.Appendf(b, "link %s\n> %s\n", path, target)
		} else if dir, ok := strings.CutSuffix(p, "/"); ok && p != "/" {
			b = fmt.Appendf(b, "dir 0755 0.000000000 %s\n", dir)
		} else {
			b = fmt.Appendf(b, "file 0644 0.000000000 0 %s\n", p)
		}
	}
	return string(b)
}

func TestParseRefuses(t *testing.T) {
	ex := example(t)
	hash := chunk.Sum(nil).String()
	lines := strings.SplitAfter(ex, "\n")
	firstHash := lines[len(lines)-2][len("23 ") : len(lines[len(lines)-2])-1]
	for _, test := range []struct{ name, old, new, want string }{
		{"nothing", ex, "", "does not begin with"},
		{"something else", ex, "%PDF-1.4\n", "does not begin with"},
		{"BOM", "shoal-manifest", "\ufeffshoal-manifest", "does not begin with"},
		{"CRLF", "\n", "\r\n", "CR LF"},
		{"version 0", "manifest 1", "manifest 0", `unknown version: "0"`},
		{"version 2", "manifest 1", "manifest 2", `unknown version: "2", this program reads 1`},
		{"version 01", "manifest 1", "manifest 01", "unknown version"},
		{"unknown field", "name photos\n", "name photos\ncomment x\n", `line 3: unexpected line: want "top ..."`},
		{"duplicated field", "name photos\n", "name photos\nname photos\n", "line 3"},
		{"reordered fields", "size 200023\nentries 5\n", "entries 5\nsize 200023\n", "line 5"},
		{"trailing byte", firstHash + "\n", firstHash + "\nx", "behind the last chunk"},
		{"trailing line end", firstHash + "\n", firstHash + "\n\n", "1 bytes behind the last chunk"},
		{"trailing NUL", firstHash + "\n", firstHash + "\n\x00", "behind the last chunk"},
		{"no last line end", firstHash + "\n", firstHash, "truncated"},
		{"space behind a field", "entries 5\n", "entries 5 \n", "entries"},

		{"name empty", "name photos", "name ", "is empty"},
		{"name with a slash", "name photos", "name pho/tos", "holds a slash"},
		{"name dots", "name photos", "name ..", "stands for a directory"},
		{"top file of many", "top dir 0755 1700000000.000000000", "top file", "5 in a share of one file"},
		{"top link", "top dir", "top link", "want \"file\" or \"dir\""},
		{"top with more", "top dir 0755 1700000000.000000000", "top dir 0755 1700000000.000000000 x", "behind the time"},
		{"top with a space", "top dir 0755 1700000000.000000000", "top dir 0755 1700000000.000000000 ", "behind the time"},

		{"cutter unknown", "fixed 131072", "magic 131072", "unknown cutter"},
		{"chunk size 0", "fixed 131072", "fixed 0", "power of two"},
		{"chunk size 1", "fixed 131072", "fixed 1", "power of two"},
		{"chunk size 3", "fixed 131072", "fixed 3", "power of two"},
		{"chunk size 2^31", "fixed 131072", "fixed 2147483648", "power of two"},
		{"chunk size no power", "fixed 131072", "fixed 196608", "power of two"},
		{"other chunk size", "fixed 131072", "fixed 262144", "its files need 1"},
		{"other cutter", "fixed 131072", "fastcdc 131072", ""}, // any cut in bounds may be what it finds

		{"size -1", "size 200023", "size -1", "size: \"-1\" is not a number"},
		{"size -0", "size 200023", "size -0", "is not a number"},
		{"size +1", "size 200023", "size +200023", "is not a number"},
		{"size with zero", "size 200023", "size 0200023", "is not a number"},
		{"size with space", "size 200023", "size  200023", "is not a number"},
		{"size hex", "size 200023", "size 0x30D57", "is not a number"},
		{"size 1e30", "size 200023", "size 1e30", "is not a number"},
		{"size empty", "size 200023", "size ", "is not a number"},
		{"size 2^63", "size 200023", "size 9223372036854775808", "over the limit"},
		{"size 2^64-1", "size 200023", "size 18446744073709551615", "over the limit"},
		{"size over 16 TiB", "size 200023", "size 17592186044417", "over the limit of 17592186044416"},
		{"size wrong", "size 200023", "size 200024", "files have 200023 bytes together, the share says 200024"},

		{"file size -1", " 9 notes", " -1 notes", "size of entry 3: \"-1\""},
		{"file size 2^63", " 9 notes", " 9223372036854775808 notes", "size of entry 3: 9223372036854775808 is over"},
		{"file size 1e30", " 9 notes", " 1e30 notes", "size of entry 3"},
		{"file size 0x9", " 9 notes", " 0x9 notes", "size of entry 3"},
		{"file size 09", " 9 notes", " 09 notes", "size of entry 3"},
		{"file size +9", " 9 notes", " +9 notes", "size of entry 3"},
		{"file without size", " 9 notes.txt", " notes.txt", "entry 3"},
		{"file size other", " 9 notes", " 10 notes", "files have 200024 bytes"},

		{"entries one more", "entries 5", "entries 6", "entry 5: want a line"},
		{"entries one less", "entries 5", "entries 4", "size: the files"},
		{"entries over", "entries 5", "entries 1000001", "over the limit of 1000000"},
		{"entries huge", "entries 5", "entries 9223372036854775807", "over the limit"},
		{"entries more than text", "entries 5", "entries 1000000", "need at least"},
		{"chunks one more", "chunks 3", "chunks 4", "chunks: the share says 4, its files need 3"},
		{"chunks one less", "chunks 3", "chunks 2", "its files need 3"},
		{"chunks none", "chunks 3", "chunks 0", "its files need 3"},
		{"chunks over", "chunks 3", "chunks 1048577", "over the limit of 1048576"},
		{"chunks more than text", "chunks 3", "chunks 1048576", "need at least"},

		{"mode setuid", "0755 1700000000.000000000 album", "4755 1700000000.000000000 album", "mode of entry 0"},
		{"mode short", "0755 1700000000.000000000 album", "755 1700000000.000000000 album", "mode of entry 0"},
		{"mode 0800", "0755 1700000000.000000000 album", "0855 1700000000.000000000 album", "mode of entry 0"},
		{"mode text", "0755 1700000000.000000000 album", "rwxr 1700000000.000000000 album", "mode of entry 0"},
		{"time without digits", ".123456789", "", "time of entry 1"},
		{"time of 8 digits", ".123456789", ".12345678", "time of entry 1"},
		{"time of 10 digits", ".123456789", ".1234567890", "time of entry 1"},
		{"time negative", "1700000000.123456789", "-1.123456789", "time of entry 1"},
		{"time NaN", "1700000000.123456789", "NaN", "time of entry 1"},
		{"time year 10000", "1700000000.123456789", "253402300800.000000000", "time of entry 1: 253402300800 is over the limit"},
		{"time with zero", "1700000000.123456789", "01700000000.123456789", "time of entry 1"},
		{"kind unknown", "dir 0755 1700000000.000000000 album", "fifo 0755 1700000000.000000000 album", "entry 0: want a line of"},
		{"link without target", "> a b.jpg\n", "", `unexpected line: want "> ..."`},
		{"link with mode", "link album/latest", "link 0777 1700000000.000000000 album/latest", "entry 2"},

		{"hash short", firstHash, firstHash[:42], "hash of chunk 2: chunk: hash of 42 characters"},
		{"hash long", firstHash, firstHash + "A", "hash of 44 characters"},
		{"hash of 16 bytes", firstHash, firstHash[:22], "hash of 22 characters"},
		{"hash none", " " + firstHash, " ", "of 0 characters"},
		{"hash hex", firstHash, strings.Repeat("AF", 32), "of 64 characters"},
		{"hash padded", firstHash, firstHash[:42] + "=", "hash of chunk 2"},
		{"chunk without hash", "23 " + firstHash, "23", "want a length and a hash"},
		{"chunk length 0", "\n23 ", "\n0 ", "length of chunk 2: 0 is not what"},
		{"chunk too long", "\n23 ", "\n24 ", "length of chunk 2: 24 is not what"},
		{"chunk too short", "\n68928 ", "\n68927 ", "length of chunk 1: 68927 is not what"},
		{"chunk over its maximum", "\n131072 ", "\n131073 ", "length of chunk 0: 131073 is over the limit"},
		{"chunk over a segment", "\n131072 ", "\n131071 ", "length of chunk 0: 131071 is not what"},
		{"one more chunk line", firstHash + "\n", firstHash + "\n1 " + hash + "\n", "behind the last chunk"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := strings.Replace(ex, test.old, test.new, 1)
			if test.name == "CRLF" {
				in = strings.ReplaceAll(ex, test.old, test.new)
			}
			if in == ex {
				t.Fatalf("the example does not hold %q", test.old)
			}
			checkRefused(t, in, test.want)
		})
	}
}

// checkRefused parses text, which must fail with want, or work if it is "".
func checkRefused(t *testing.T, text, want string) {
	t.Helper()
	m, err := Parse([]byte(text))
	if want == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		if got := encode(m); got != text {
			t.Errorf("encodes as %q, want %q", got, text)
		}
		return
	}
	if err == nil {
		t.Fatalf("accepted, want error %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want %q", err, want)
	}
	var se *SyntaxError
	if !errors.As(err, &se) || se.Line < 1 || !strings.HasPrefix(err.Error(), "manifest: line ") {
		t.Errorf("error %q is no *SyntaxError with a line", err)
	}
	if m != nil {
		t.Error("a manifest beside the error")
	}
	for _, r := range err.Error() {
		if r < ' ' || 0x7f <= r && r < 0xa0 || 0x202a <= r && r <= 0x202e {
			t.Errorf("error %q holds %U raw", err, r)
		}
	}
}

func TestParseTruncated(t *testing.T) {
	for file := range goldens {
		text, err := os.ReadFile(goldenDir + file)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(text) {
			if m, err := Parse(text[:n]); err == nil || m != nil {
				t.Errorf("%s: accepted the first %d of %d bytes", file, n, len(text))
			}
		}
	}
}

// Numbers are checked before they size anything.
func TestParseBoundsFirst(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"1,000,001 entries", head(1_000_001, 0, 0), "over the limit of 1000000"},
		{"1,000,000 entries that are not there", head(1_000_000, 0, 0), "need at least"},
		{"1,048,577 chunks", head(1, 1_048_577, 1<<40), "over the limit of 1048576"},
		{"1,048,576 chunks that are not there", head(1, 1_048_576, 1<<40), "need at least"},
		{"2^63-1 entries", strings.Replace(head(7, 0, 0), "entries 7", "entries 9223372036854775807", 1), "over the limit"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		checkRefused(t, test.text, test.want)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%s: %d bytes allocated", test.name, n)
		}
	}
	big := make([]byte, MaxText+1)
	_, err := Parse(big)
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "67108865 bytes, the limit is 67108864") {
		t.Errorf("64 MiB + 1: %v", err)
	}
	if _, err := Parse([]byte(strings.Replace(example(t), "manifest 1", "manifest 7", 1))); !errors.Is(err, ErrVersion) {
		t.Errorf("version 7: %v is not ErrVersion", err)
	}
	if _, err := Parse([]byte(head(1_000_001, 0, 0))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many entries: %v is not ErrTooLarge", err)
	}
}

// Sizes that are legal each must not overflow together.
func TestParseSizesTogether(t *testing.T) {
	var b strings.Builder
	b.WriteString(head(3, 0, MaxSize))
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "file 0644 0.000000000 %d %s\n", int64(MaxSize)/2, name)
	}
	checkRefused(t, b.String(), "size of entry 2: all files up to it have 26388279066624 bytes, the limit is 17592186044416")
}

func TestParsePaths(t *testing.T) {
	component := func(n int) string { return strings.Repeat("n", n) }
	deep := func(n int) []string {
		var paths []string
		for i := range n {
			paths = append(paths, strings.Repeat("d/", i+1))
		}
		return paths
	}
	long := func(n int) []string { // directories down to a path of n bytes
		var paths []string
		path := ""
		for n-len(path) > MaxName+1 {
			path += component(MaxName/2) + "/"
			paths = append(paths, path)
		}
		return append(paths, path+component(n-len(path)))
	}
	for _, test := range []struct {
		name  string
		paths []string
		want  string // "" is success
	}{
		// P01: what could be absolute, on any system
		{"P01 up", []string{"../x"}, `has a part ".." that stands for a directory`},
		{"P01 up later", []string{"a/", "a/../../x"}, "stands for a directory"},
		{"P01 absolute", []string{"/abs"}, "is absolute"},
		{"P01 two slashes", []string{"//x"}, "is absolute"},
		{"P01 drive", []string{`C:\x`}, "drive letter"},
		{"P01 drive relative", []string{"C:x"}, "drive letter"},
		{"P01 small drive", []string{"c:x"}, "drive letter"},
		{"P01 drive directory", []string{"C:/", "C:/x"}, "drive letter"},
		{"P01 UNC", []string{`\\host\s\x`}, "begins with a backslash"},
		{"P01 NT", []string{`\??\C:\x`}, "begins with a backslash"},
		{"P01 home", []string{"~/", "~/.bashrc"}, "home directory"},
		// P02: components that are none
		{"P02 dot", []string{"."}, "stands for a directory"},
		{"P02 dots", []string{".."}, "stands for a directory"},
		{"P02 empty", []string{""}, "is empty"},
		{"P02 empty part", []string{"a/", "a//b"}, "is empty"},
		{"P02 dot part", []string{"a/", "a/./b"}, "stands for a directory"},
		{"P02 slash", []string{"/"}, "is absolute"},
		{"P02 slash behind", []string{"a//"}, "ends in a slash"},
		{"P02 link with slash", []string{"a/ -> b"}, "ends in a slash"},
		{"P02 three dots", []string{"..."}, ""},
		// P03: control characters and the like
		{"P03 NUL", []string{"a\x00b"}, "control character 0x00"},
		{"P03 CR", []string{"a\rb"}, "control character 0x0d"},
		{"P03 TAB", []string{"a\tb"}, "control character 0x09"},
		{"P03 ESC", []string{"a\x1b[2Jb"}, "control character 0x1b"},
		{"P03 DEL", []string{"a\x7fb"}, "control character 0x7f"},
		{"P03 C1", []string{"a\u009bb"}, "control character U+009B"},
		{"P03 raw C1", []string{"a\x9bb"}, "not valid UTF-8"},
		{"P03 bidi", []string{"a\u202eb"}, "changes the direction"},
		{"P03 bidi isolate", []string{"a\u2066b"}, "changes the direction"},
		{"P03 bidi mark", []string{"a\u200fb"}, "changes the direction"},
		{"P03 line separator", []string{"a\u2028b"}, "line separator"},
		{"P03 paragraph separator", []string{"a\u2029b"}, "line separator"},
		{"P03 surrogate", []string{"a\xed\xa0\x80b"}, "not valid UTF-8"},
		{"P03 overlong slash", []string{"a\xc0\xafb"}, "not valid UTF-8"},
		{"P03 cut rune", []string{"a\xc3"}, "not valid UTF-8"},
		{"P03 zero width space", []string{"a\u200bb"}, ""},
		{"P03 emoji joined", []string{"👩\u200d💻"}, ""},
		{"P03 replacement character", []string{"\ufffd"}, ""},
		// P04: nothing is decoded
		{"P04 backslash", []string{`a\..\b`}, ""},
		{"P04 percent", []string{"%2e%2e%2f"}, ""},
		// P05: only not portable
		{"P05 device", []string{"CON"}, ""},
		{"P05 dot behind", []string{"a."}, ""},
		{"P05 stream", []string{"d/", "d/a:stream"}, ""},
		// P06, P07: collisions
		{"P06 NFC and NFD", []string{"e\u0301", "\u00e9"}, "would collide on some systems"},
		{"P06 sharp s", []string{"STRASSE", "Straße"}, `"Straße" would collide on some systems with "STRASSE"`},
		{"P06 kelvin", []string{"k", "\u212a"}, "would collide"},
		{"P06 ligature", []string{"fi", "\ufb01"}, "would collide"},
		{"P06 dotted I", []string{"i\u0307", "\u0130"}, "would collide"},
		{"P06 long s", []string{"s", "\u017f"}, "would collide"},
		{"P06 sigma", []string{"\u03c2", "\u03c3"}, "would collide"},
		{"P06 invisible", []string{"ab", "a\u200db"}, "would collide"},
		{"P06 soft hyphen", []string{"ab", "a\u00adb"}, "would collide"},
		{"P06 variation selector", []string{"\u2764", "\u2764\ufe0f"}, "would collide"},
		{"P06 tag characters", []string{"a", "a\U000e0041"}, "would collide"},
		{"P06 nothing visible", []string{"\u200b", "\u2060"}, "would collide"},
		{"P06 order of marks", []string{"a\u0301\u0323", "a\u0323\u0301"}, "would collide"},
		{"P06 iota subscript", []string{"\u03b1\u03b9", "\u1fb3"}, "would collide"},
		{"P06 Cherokee", []string{"\u13a0", "\uab70"}, "would collide"},
		{"P06 Hangul", []string{"\u1100\u1161\u11a8", "\uac01"}, "would collide"},
		{"P06 accents differ", []string{"e", "\u00e9"}, ""},
		{"P07 case", []string{"README", "Readme"}, `"Readme" would collide on some systems with "README"`},
		{"P07 directories", []string{"Dir/", "Dir/a", "dir/", "dir/b"}, `"dir" would collide on some systems with "Dir"`},
		{"P07 file and directory", []string{"A", "a/"}, "would collide"},
		{"P07 in two directories", []string{"a/", "a/X", "b/", "b/x"}, ""},
		{"P07 deep", []string{"a/", "a/b/", "a/b/Q", "a/b/c", "a/b/q"}, "would collide"},
		// P09: lengths
		{"P09 name of 240", []string{component(240)}, ""},
		{"P09 name of 241", []string{component(241)}, "has 241 bytes, the limit is 240"},
		{"P09 name of 255", []string{component(255)}, "has 255 bytes"},
		{"P09 umlauts count in bytes", []string{strings.Repeat("ü", 121)}, "has 242 bytes"},
		{"P09 path of 4096", long(4096), ""},
		{"P09 path of 4097", long(4097), "has 4097 bytes, the limit of a path is 4096"},
		{"M16 depth 64", deep(64), ""},
		{"M16 depth 65", deep(65), "more than 64 parts"},
		{"M16 depth 10,000 without directories", []string{strings.Repeat("d/", 2000) + "x"}, "not listed before it"},
		// P16: our own names
		{"P16 part", []string{"x.shoal-part"}, "for unfinished downloads"},
		{"P16 part in capitals", []string{"X.SHOAL-PART"}, "for unfinished downloads"},
		{"P16 part folded", []string{"x.\u017fhoal-part"}, "for unfinished downloads"},
		{"P16 part invisible", []string{"x.shoal\u200d-part"}, "for unfinished downloads"},
		{"P16 part directory", []string{"a.shoal-part/", "a.shoal-part/journal"}, "for unfinished downloads"},
		{"P16 part of nothing", []string{".shoal-part"}, "for unfinished downloads"},
		{"P16 others are harmless", []string{".shoal", "a.part", "journal", "lock"}, ""},
		// P20: names that a shell would act on
		{"P20", []string{"$(id)", "-rf", ";x", "`id`"}, ""},
		{"spaces", []string{" ", " a", "a "}, ""},
		// M09, M10, order
		{"M09 duplicate", []string{"a", "a"}, "is a duplicate path, of the entries 0 and 1"},
		{"M09 duplicate directory", []string{"a/", "a/b", "a/"}, "out of order"},
		{"M10 file and directory", []string{"a", "a/b"}, `conflicts with "a": a file and a directory of one name`},
		{"M10 link and directory", []string{"a -> b", "a/b"}, "conflicts with"},
		{"M10 other order", []string{"a/b", "a"}, "not listed before it"},
		{"M10 file and directory entry", []string{"a", "a/"}, "duplicate path"},
		{"no parent", []string{"a/b"}, "not listed before it"},
		{"parent of another", []string{"a/", "ab/c"}, "not listed before it"},
		{"parent closed", []string{"a/", "a/b", "b", "a/c"}, "out of order"},
		{"order", []string{"b", "a"}, `"a" comes out of order behind "b"`},
		{"slash sorts first", []string{"a/", "a/b", "a b", "a.b"}, ""},
		{"slash as a byte", []string{"a b", "a.b", "a/", "a/b"}, "out of order"},
		{"children behind", []string{"a/", "a b", "a/b"}, "out of order"},
		// M15
		{"nothing", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) { checkRefused(t, withPaths(test.paths...), test.want) })
	}
}

func TestParseLinks(t *testing.T) {
	chain := func(n int) []string {
		var paths []string
		for i := range n {
			paths = append(paths, fmt.Sprintf("l%04d -> l%04d", i, i+1))
		}
		return paths
	}
	for _, test := range []struct {
		name  string
		paths []string
		want  string // "" is success
	}{
		{"beside", []string{"a", "b -> a"}, ""},
		{"missing", []string{"b -> a"}, ""},
		{"to the top", []string{"b -> ."}, ""},
		{"down", []string{"a/", "a/x", "b -> a/x"}, ""},
		{"up", []string{"a/", "a/l -> ../b", "b"}, ""},
		{"to the top from below", []string{"a/", "a/l -> .."}, ""},
		{"slash behind", []string{"a/", "b -> a/"}, ""},
		{"slashes and dots", []string{"a/", "b -> .//a/./"}, ""},
		{"colon later", []string{"b -> x/C:"}, ""},
		{"out", []string{"l -> .."}, "leads out of the share"},
		{"out and in again", []string{"l -> ../x/l"}, "leads out of the share"},
		{"out below", []string{"a/", "a/l -> ../../x"}, "leads out of the share"},
		{"out late", []string{"l -> a/b/../../../x"}, "leads out of the share"},
		{"absolute", []string{"l -> /etc/passwd"}, "absolute path"},
		{"two slashes", []string{"l -> //host/x"}, "absolute path"},
		{"drive", []string{`l -> C:\x`}, "drive letter"},
		{"UNC", []string{`l -> \\host\x`}, "backslash"},
		{"empty", []string{"link -> "}, "has no target"},
		{"control", []string{"l -> a\x1bb"}, "control character"},
		{"not UTF-8", []string{"l -> a\xff"}, "not valid UTF-8"},
		{"of 4096 bytes", []string{"l -> " + strings.Repeat("x", 4096)}, ""},
		{"of 4097 bytes", []string{"l -> " + strings.Repeat("x", 4097)}, "target of 4097 bytes, the limit is 4096"},
		// through other links
		{"through a link", []string{"a/", "a/b/", "a/b/x", "l -> a", "m -> l/b/x"}, ""},
		{"out through a link, on disk", []string{"a/", "a/b/", "a/b/up -> ../..", "l -> a/b/up/../x"}, "leads out of the share"},
		{"out through a link, by text", []string{"a/", "a/b/", "a/b/c/", "l -> a/b/c", "m -> l/../../x"}, "leads out of the share"},
		{"out by a link in another case", []string{"a/", "a/b/", "a/b/Top -> ../..", "a/b/x -> TOP/../../y"}, "leads out of the share"},
		{"deep into a link", []string{"a/", "a/b/", "l -> a/b", "m -> l/../b"}, ""},
		{"behind what is missing", []string{"l -> x/../../y"}, "leads out of the share"},
		{"itself", []string{"l -> l"}, "goes round in a circle"},
		{"itself below", []string{"l -> l/x"}, "goes round in a circle"},
		{"two", []string{"a -> b", "b -> a"}, "circle"},
		{"three", []string{"a -> b", "b -> c", "c -> a"}, "circle"},
		{"into a circle", []string{"a -> b/x", "b -> c", "c -> b"}, "circle"},
		{"to a link that is refused", []string{"a -> b", "b -> /etc"}, "leads through a link that leads to an absolute path"},
		{"40 links", chain(40), ""},
		{"41 links", chain(41), "more than 40 links"},
		{"1000 links", chain(1000), "more than 40 links"},
		{"40 in one target", []string{"a -> " + strings.Repeat("d/", 39), "d -> ."}, ""},
		{"41 in one target", []string{"a -> " + strings.Repeat("d/", 40), "d -> ."}, "more than 40 links"},
	} {
		t.Run(test.name, func(t *testing.T) { checkRefused(t, withPaths(test.paths...), test.want) })
	}
}

// Long targets and many links must not cost more than their length.
func TestParseLinksCost(t *testing.T) {
	var paths []string
	for i := range 5000 {
		paths = append(paths, fmt.Sprintf("l%04d -> %s", i, strings.Repeat("a/../", 800)))
	}
	text := withPaths(paths...)
	start := time.Now()
	if _, err := Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("%d bytes took %v", len(text), d)
	}
}

func TestCheckPortable(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"CON", "is a device"},
		{"con", "is a device"},
		{"nul.txt", "is a device"},
		{"aux.c", "is a device"},
		{"PRN", "is a device"},
		{"COM1", "is a device"},
		{"COM1 ", "ends in a dot or a space"},
		{"COM1 .txt", "is a device"},
		{"COM¹", "is a device"},
		{"COM0", "is a device"},
		{"LPT9.", "ends in a dot"},
		{"lpt9.x.y", "is a device"},
		{"CONIN$", "is a device"},
		{"conout$", "is a device"},
		{"a.", "ends in a dot"},
		{"a ", "ends in a dot or a space"},
		{"d/a:stream", `holds ":"`},
		{"a<b", `holds "<"`},
		{"a>b", `holds ">"`},
		{"a|b", `holds "|"`},
		{"a?b", `holds "?"`},
		{"a*b", `holds "*"`},
		{`a"b`, `holds "\""`},
		{`a\b`, `holds "\\"`},
		{"PROGRA~1", "short name"},
		{"progra~12.txt", ""},
		{"A~1.TXT", "short name"},
		{"~$letter.doc", ""},
		{"foo~", ""},
		{"#foo#", ""},
		{"COM10", ""},
		{"console", ""},
		{"COMA", ""},
		{"nully.txt", ""},
		{".con", ""},
		{"normal name.txt", ""},
		{"l -> x/a:b", "is a link to"},
		{"d/l -> ../NUL", "is a device"},
		{"d/l -> ../x/", ""},
	} {
		paths := []string{test.path}
		if strings.HasPrefix(test.path, "d/") {
			paths = []string{"d/", test.path}
		}
		m, err := Parse([]byte(withPaths(paths...)))
		if err != nil {
			t.Errorf("%q: %v", test.path, err)
			continue
		}
		err = m.CheckPortable()
		if test.want == "" {
			if err != nil {
				t.Errorf("%q: %v", test.path, err)
			}
			continue
		}
		var pe *PathError
		if !errors.As(err, &pe) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want a *PathError with %q", test.path, err, test.want)
		}
	}
	m, err := Parse([]byte(strings.Replace(withPaths("a"), "name x", "name aux", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if m.CheckPortable() == nil {
		t.Error("a share called aux is portable")
	}
}

func TestCheckName(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"photos", ""},
		{"two words", ""},
		{"", "is empty"},
		{".", "stands for"},
		{"..", "stands for"},
		{"a/b", "slash"},
		{"C:", "drive"},
		{`\x`, "backslash"},
		{"~", "home"},
		{"~x", ""},
		{"a\nb", "control"},
		{"x.shoal-part", "unfinished"},
		{"x.shoal", ""},
		{strings.Repeat("x", 241), "limit is 240"},
	} {
		err := CheckName(test.name)
		if test.want == "" && err == nil {
			continue
		}
		var pe *PathError
		if test.want == "" || !errors.As(err, &pe) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.name, err, test.want)
		}
	}
}

// Folding is what SPEC.md says, on names of all kinds, and in buffers that are used again.
func TestFold(t *testing.T) {
	var f folding
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.String(),
			rapid.StringOf(rapid.SampledFrom([]rune("aAßẞéÉıİΣςσſﬁŉǰΐᾳ\u0301\u0323\u0345\u200d\u00ad\ufe0fＡ각.-"))),
		).Draw(t, "name")
		got := string(f.append([]byte("before"), name))
		want := name
		for _, x := range ignorable {
			want = strings.Map(func(r rune) rune {
				if x[0] <= r && r <= x[1] {
					return -1
				}
				return r
			}, want)
		}
		want = norm.NFD.String(want)
		want = cases.Fold().String(want)
		want = strings.Map(func(r rune) rune { // what the library gets wrong, rune by rune
			if up := unicode.ToUpper(r); unicode.Is(unicode.Cherokee, r) {
				return up
			}
			return r
		}, want)
		want = norm.NFD.String(want)
		if got != "before"+want || fold(name) != want {
			t.Fatalf("%+q folds to %+q and %+q, want %+q", name, got, fold(name), want)
		}
		for _, other := range []string{want, norm.NFC.String(name), norm.NFD.String(name)} {
			if fold(other) != want {
				t.Fatalf("%+q folds to %+q, but %+q to %+q", name, want, other, fold(other))
			}
		}
	})
}

// No character has another case that folds differently.
func TestFoldAllRunes(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want := fold(string(r))
		if again := fold(want); again != want {
			t.Errorf("%U folds to %+q, and that to %+q", r, want, again)
		}
		for _, other := range []rune{unicode.SimpleFold(r), unicode.ToLower(r), unicode.ToUpper(r)} {
			// The dotted and dotless I of Turkish are letters of their own.
			if got := fold(string(other)); got != want && r != '\u0130' && r != '\u0131' {
				t.Errorf("%U folds to %+q, %U to %+q", r, want, other, got)
			}
		}
	}
}

// The tables of folding may be used by many goroutines at once.
func TestParseAtOnce(t *testing.T) {
	var paths []string
	for i := range 300 {
		paths = append(paths, fmt.Sprintf("Größe %03d ΐ", i))
	}
	text := []byte(withPaths(paths...))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Parse(text); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Empty files and links between small files are in no chunk and break no segment.
func TestSegments(t *testing.T) {
	h := chunk.Sum(nil).String()
	text := head(6, 4, 131072+5+10+10) +
		"file 0644 0.000000000 10 a\n" +
		"file 0644 0.000000000 0 b\n" +
		"dir 0755 0.000000000 c\n" +
		"file 0644 0.000000000 10 c/d\n" +
		"file 0644 0.000000000 131072 e\n" +
		"file 0644 0.000000000 5 f\n"
	text = strings.Replace(text, "chunks 4", "chunks 3", 1)
	text += "20 " + h + "\n131072 " + h + "\n5 " + h + "\n"
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Collect(m.Extents(0)), []Extent{{0, 0, 10}, {3, 0, 10}}; !slices.Equal(got, want) {
		t.Errorf("extents %v, want %v", got, want)
	}
	if first, end := m.Chunks(1); first != end {
		t.Errorf("an empty file is in the chunks %d to %d", first, end)
	}
}

func FuzzParse(f *testing.F) {
	for file := range goldens {
		text, err := os.ReadFile(goldenDir + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(withPaths("a", "b -> a", "c/", "c/l -> ../b")))
	f.Add([]byte(withPaths("a/", "a/b/", "a/b/up -> ../..", "l -> a/b/up/x")))
	f.Add([]byte(withPaths("README", "Readme")))
	f.Add([]byte(head(1_000_001, 0, 0)))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			_ = err.Error()
			return
		}
		if out := encode(m); out != string(text) {
			t.Fatalf("Parse accepted %q, which encodes as %q", text, out)
		}
		size := int64(0)
		for i := range m.NumChunks() {
			n := 0
			for x := range m.Extents(i) {
				e := m.Entries()[x.Entry]
				if x.Len < 1 || x.Off < 0 || x.Off+int64(x.Len) > e.Size {
					t.Fatalf("chunk %d has the extent %v of a file of %d bytes", i, x, e.Size)
				}
				if first, end := m.Chunks(x.Entry); i < first || i >= end {
					t.Fatalf("chunk %d holds entry %d, whose chunks are %d to %d", i, x.Entry, first, end)
				}
				n += x.Len
			}
			if n != m.ChunkLen(i) || n > m.MaxChunkLen() || n > m.Cutter().Max() {
				t.Fatalf("extents of chunk %d have %d bytes, want %d", i, n, m.ChunkLen(i))
			}
			size += int64(n)
		}
		if size != m.Size() {
			t.Fatalf("chunks have %d bytes, want %d", size, m.Size())
		}
		for _, e := range m.Entries() {
			if !filepath.IsLocal(filepath.FromSlash(e.Path)) || e.Mode&^0o777 != 0 {
				t.Fatalf("accepted the path %q with mode %o", e.Path, e.Mode)
			}
			if e.Kind == Symlink {
				if to := filepath.Join(filepath.Dir(e.Path), e.Target); filepath.IsAbs(e.Target) || !filepath.IsLocal(to) {
					t.Fatalf("accepted the link %q to %q", e.Path, e.Target)
				}
			}
		}
		m.CheckPortable()
	})
}
