package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// verifyTree has, with chunks of 128 KiB: big in the chunks 0 to 2, three small files
// in chunk 3, big2 in 4 and 5, and one more small file in 6.
var verifyTree = []node{
	{path: "t/"},
	{path: "t/a big", text: randomText(300_000, 1)},
	{path: "t/b/"},
	{path: "t/b/empty/"},
	{path: "t/b/none"},
	{path: "t/b/one", text: "one"},
	{path: "t/b/two", text: "two two", mode: 0o755},
	{path: "t/c", text: "three", nsec: 5},
	{path: "t/d big", text: randomText(200_000, 2)},
	{path: "t/link", target: "b/one"},
	{path: "t/z", text: "last"},
}

// verify returns what Verify says of the directory at path, as kinds and texts.
func verify(t testing.TB, m *Manifest, sel *Selection, path string) (found []string, all []Difference) {
	t.Helper()
	err := Verify(t.Context(), m, sel, path, func(d Difference) {
		found = append(found, d.Kind.String()+": "+d.String())
		all = append(all, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, all
}

// flip changes one byte of the file at path, and leaves its time as it was.
func flip(t testing.TB, path string, off int64) {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	must(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, off)
	must(t, err)
	must(t, f.Close())
	must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}

func TestVerify(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs modes and links")
	}
	old := time.Unix(1700000000, 0)
	for _, test := range []struct {
		name   string
		change func(t *testing.T, top string)
		only   []string
		want   []string // each begins with it, in order; "..." in it stands for anything
	}{
		{"nothing", func(t *testing.T, top string) {}, nil, nil},
		{"nothing, of a part", func(t *testing.T, top string) {}, []string{"b/two"}, nil},
		{"byte of a big file", func(t *testing.T, top string) { flip(t, top+"/a big", 131072) }, nil, []string{
			`wrong content: "a big": chunk 1 (131072 bytes at 131072) differs: its hash is ..., want `,
		}},
		{"two bytes", func(t *testing.T, top string) { flip(t, top+"/a big", 131071); flip(t, top+"/d big", 199_999) }, nil, []string{
			`wrong content: "a big": chunk 0 (131072 bytes at 0) differs`,
			`wrong content: "d big": chunk 5 (68928 bytes at 431087) differs`,
		}},
		{"byte of a packed chunk", func(t *testing.T, top string) { flip(t, top+"/b/two", 3) }, nil, []string{
			`wrong content: "b/one" and the 2 files behind it: chunk 3 (15 bytes at 300000) differs`,
		}},
		{"longer by a byte", func(t *testing.T, top string) {
			must(t, os.WriteFile(top+"/b/none", []byte("1"), 0o644))
			must(t, os.Chtimes(top+"/b/none", old, old))
		}, nil, []string{`wrong size: "b/none": has 1 byte, want 0`}},
		{"byte of a chunk of one small file", func(t *testing.T, top string) { flip(t, top+"/z", 0) }, nil, []string{
			`wrong content: "z": chunk 6 (4 bytes at 500015) differs`,
		}},
		{"truncated", func(t *testing.T, top string) {
			must(t, os.Truncate(top+"/a big", 299_999))
			must(t, os.Chtimes(top+"/a big", old, old))
		}, nil, []string{
			`wrong size: "a big": has 299999 bytes, want 300000`,
			`unchecked: "a big": chunk 2 is not whole: "a big" is too short`,
		}},
		{"truncated at the end of a chunk, and damaged", func(t *testing.T, top string) {
			flip(t, top+"/a big", 7)
			must(t, os.Truncate(top+"/a big", 131072))
			must(t, os.Chtimes(top+"/a big", old, old))
		}, nil, []string{
			`wrong size: "a big": has 131072 bytes, want 300000`,
			`wrong content: "a big": chunk 0 (131072 bytes at 0) differs`,
			`unchecked: "a big": chunk 1 is not whole: "a big" is too short`,
			`unchecked: "a big": chunk 2 is not whole`,
		}},
		{"longer", func(t *testing.T, top string) {
			appendTo(t, top+"/b/one")
			must(t, os.Chtimes(top+"/b/one", old, old))
		}, nil, []string{
			`wrong size: "b/one": has 7 bytes, want 3`,
		}},
		{"empty file grew", func(t *testing.T, top string) {
			appendTo(t, top+"/b/none")
			must(t, os.Chtimes(top+"/b/none", old, old))
		}, nil, []string{`wrong size: "b/none": has 4 bytes, want 0`}},
		{"missing", func(t *testing.T, top string) { must(t, os.Remove(top+"/c")); restoreTimes(t, top) }, nil, []string{
			`missing: "c": is missing`,
			`unchecked: "b/one" and the 2 files behind it: chunk 3 cannot be checked without "c"`,
		}},
		{"directory missing", func(t *testing.T, top string) { must(t, os.RemoveAll(top+"/b")); restoreTimes(t, top) }, nil, []string{
			`missing: "b": is missing`,
			`missing: "b/empty": is missing, as its directory is not there`,
			`missing: "b/none": is missing, as`,
			`missing: "b/one": is missing, as`,
			`missing: "b/two": is missing, as`,
			`unchecked: "b/one" and the 2 files behind it: chunk 3`,
		}},
		{"directory is a link", func(t *testing.T, top string) {
			must(t, os.Rename(top+"/b", top+"/../b"))
			must(t, os.Symlink("../b", top+"/b"))
			restoreTimes(t, top)
		}, nil, []string{
			`wrong type: "b": is a symbolic link, want a directory`,
			`missing: "b/empty"`, `missing: "b/none"`, `missing: "b/one"`, `missing: "b/two"`,
			`unchecked: "b/one" and the 2 files behind it: chunk 3`,
		}},
		{"file is a directory", func(t *testing.T, top string) {
			must(t, os.Remove(top+"/z"))
			must(t, os.Mkdir(top+"/z", 0o755))
			restoreTimes(t, top)
		}, nil, []string{
			`wrong type: "z": is a directory, want a file`,
			`unchecked: "z": chunk 6`,
		}},
		{"file is a link to the same", func(t *testing.T, top string) {
			must(t, os.Rename(top+"/z", top+"/../z"))
			must(t, os.Symlink("../z", top+"/z"))
			restoreTimes(t, top)
		}, nil, []string{
			`wrong type: "z": is a symbolic link, want a file`,
			`unchecked: "z": chunk 6`,
		}},
		{"link", func(t *testing.T, top string) {
			must(t, os.Remove(top+"/link"))
			must(t, os.Symlink("b/\x1btwo", top+"/link"))
			restoreTimes(t, top)
		}, nil, []string{`wrong target: "link": leads to "b/\x1btwo", want "b/one"`}},
		{"mode", func(t *testing.T, top string) { must(t, os.Chmod(top+"/b/two", 0o644)) }, nil, []string{
			`wrong mode: "b/two": has the mode 0644, the share has 0755`,
		}},
		{"mode of a directory and of the top", func(t *testing.T, top string) {
			must(t, os.Chmod(top+"/b", 0o750))
			must(t, os.Chmod(top, 0o700))
		}, nil, []string{
			`wrong mode: "b": has the mode 0750, the share has 0755`,
			`wrong mode: the top directory: has the mode 0700, the share has 0755`,
		}},
		{"time", func(t *testing.T, top string) {
			must(t, os.Chtimes(top+"/c", time.Unix(1700000000, 6), time.Unix(1700000000, 6)))
			must(t, os.Chtimes(top+"/b", time.Unix(0, 0), time.Unix(0, 0)))
		}, nil, []string{
			`wrong time: "b": was modified at 1970-01-01T00:00:00Z, in the share at 2023-11-14T22:13:20Z`,
			`wrong time: "c": was modified at 2023-11-14T22:13:20.000000006Z, in the share at 2023-11-14T22:13:20.000000005Z`,
		}},
		{"extra", func(t *testing.T, top string) {
			must(t, os.WriteFile(top+"/b/extra\x1b", []byte("x"), 0o644))
			must(t, os.MkdirAll(top+"/new/deep/deeper", 0o755))
			must(t, os.Symlink("/", top+"/x link"))
			restoreTimes(t, top)
		}, nil, []string{
			`extra: "b/extra\x1b": is not in the share`,
			`extra: "new": is not in the share, nor is what is in it`,
			`extra: "x link": is not in the share`,
		}},
		{"all at once, in order", func(t *testing.T, top string) {
			must(t, os.WriteFile(top+"/b/0", nil, 0o644))
			flip(t, top+"/d big", 0)
			flip(t, top+"/a big", 0)
			must(t, os.Remove(top+"/z"))
			must(t, os.Chmod(top+"/c", 0o600))
			restoreTimes(t, top)
		}, nil, []string{
			`wrong mode: "c"`, `missing: "z"`,
			`wrong content: "a big": chunk 0`, `wrong content: "d big": chunk 4`, `unchecked: "z": chunk 6`,
			`extra: "b/0"`,
		}},

		// a part of the share
		{"part: outside it", func(t *testing.T, top string) {
			flip(t, top+"/a big", 0)
			must(t, os.RemoveAll(top+"/d big"))
			must(t, os.WriteFile(top+"/b/extra", nil, 0o644))
			restoreTimes(t, top)
		}, []string{"b"}, nil},
		{"part: in it", func(t *testing.T, top string) { flip(t, top+"/a big", 299_999) }, []string{"*big"}, []string{
			`wrong content: "a big": chunk 2 (37856 bytes at 262144) differs`,
		}},
		{"part: the rest of its chunk is not there", func(t *testing.T, top string) {
			must(t, os.Remove(top+"/c"))
			restoreTimes(t, top)
		}, []string{"b/*"}, []string{`unchecked: "b/one" and the 2 files behind it: chunk 3 cannot be checked: "c" was not chosen and is not there`}},
		{"part: the rest of its chunk has another size", func(t *testing.T, top string) { appendTo(t, top+"/c") }, []string{"b/*"}, []string{
			`unchecked: "b/one" and the 2 files behind it: chunk 3 cannot be checked: "c" was not chosen`,
		}},
		{"part: its chunk differs", func(t *testing.T, top string) { flip(t, top+"/c", 0) }, []string{"b/*"}, []string{
			`unchecked: "b/one" and the 2 files behind it: chunk 3 differs, but some of its files were not chosen`,
		}},
		{"part: in a directory that is not there", func(t *testing.T, top string) {
			must(t, os.RemoveAll(top+"/b"))
			restoreTimes(t, top)
		}, []string{"c"}, []string{`unchecked: "b/one" and the 2 files behind it: chunk 3 cannot be checked: "b/one" was not chosen`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := t.TempDir()
			top := filepath.Join(base, "t")
			plantAt(t, base, verifyTree)
			m, _ := build(t, top, BuildOptions{Cutter: chunk.Fixed})
			sel, err := m.Select(test.only, nil)
			must(t, err)
			test.change(t, top)
			got, all := verify(t, m, sel, top)
			for i := range max(len(got), len(test.want)) {
				if i >= len(got) || i >= len(test.want) || !beginsWith(got[i], test.want[i]) {
					t.Fatalf("differences are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
				}
			}
			for _, d := range all {
				if d.Failed() != (d.Kind <= Unreadable) {
					t.Errorf("%v: failed is %v", d, d.Failed())
				}
				if d.Entry >= 0 && m.Entries()[d.Entry].Path != d.Path {
					t.Errorf("%v: entry %d is %s", d, d.Entry, m.Entries()[d.Entry].Path)
				}
				if (d.Chunk >= 0) != (d.Kind == WrongContent || d.Kind == Unchecked) {
					t.Errorf("%v: chunk %d", d, d.Chunk)
				}
			}
			// The directory may be named by a link.
			link := filepath.Join(base, "link")
			must(t, os.Symlink("t", link))
			if again, _ := verify(t, m, sel, link); !slices.Equal(again, got) {
				t.Errorf("by a link the differences are\n%s", strings.Join(again, "\n"))
			}
		})
	}
}

func beginsWith(s, prefix string) bool {
	for i, part := range strings.Split(prefix, "...") {
		k := strings.Index(s, part)
		if k < 0 || i == 0 && k > 0 {
			return false
		}
		s = s[k+len(part):]
	}
	return true
}

// restoreTimes sets the times of the directories of verifyTree that are there.
func restoreTimes(t testing.TB, top string) {
	t.Helper()
	at := time.Unix(1700000000, 0)
	for _, dir := range []string{"b/empty", "b", "."} {
		path := filepath.Join(top, dir)
		if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
			must(t, os.Chtimes(path, at, at))
		}
	}
}

// A tree that was just built, or copied as get does, differs in nothing.
func TestVerifyNoFalseAlarm(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs modes and links")
	}
	nodes := append(
		mixedTree(),
		node{path: "t/odd/", mode: 0o300, sec: -100},
		node{path: "t/odd/secret", text: "x", mode: 0o040, sec: -1, nsec: 5},
		node{path: "t/odd/old", text: "y", sec: 1},
		node{path: "t/odd/setuid", text: "z", mode: 0o755 | os.ModeSetuid},
	)
	path := filepath.Join(plant(t, nodes), "t")
	odd := filepath.Join(path, "odd")
	must(t, os.Chmod(odd, 0o700))
	defer os.Chmod(odd, 0o700)
	if os.Geteuid() != 0 {
		must(t, os.Chmod(filepath.Join(odd, "secret"), 0o440))
	}
	for _, cutter := range cutters {
		m, _ := build(t, path, BuildOptions{Cutter: cutter})
		for _, only := range [][]string{nil, {"odd"}, {"small 7", "big*"}, {"link"}, {"empty"}} {
			sel, err := m.Select(only, nil)
			must(t, err)
			if got, _ := verify(t, m, sel, path); len(got) > 0 {
				t.Errorf("%s, %q: %q", cutter, only, got)
			}
		}
		for i := range m.Entries() {
			if e := &m.Entries()[i]; e.Path == "odd/secret" {
				must(t, os.Chmod(filepath.Join(odd, "secret"), e.Mode|0o400))
			}
		}
		if got, _ := verify(t, m, nil, path); len(got) > 0 {
			t.Errorf("readable by its owner: %q", got)
		}
	}
}

// Each flipped byte is found, in the chunk that holds it and in no other.
func TestVerifyEachFlip(t *testing.T) {
	for _, cutter := range cutters {
		path := filepath.Join(plant(t, verifyTree), "t")
		m, _ := build(t, path, BuildOptions{Cutter: cutter})
		for i := range m.NumChunks() {
			for x := range m.Extents(i) {
				for _, off := range []int64{x.Off, x.Off + int64(x.Len) - 1} {
					file := filepath.Join(path, m.Entries()[x.Entry].Path)
					flip(t, file, off)
					if _, all := verify(t, m, nil, path); len(all) != 1 || all[0].Kind != WrongContent || all[0].Chunk != i {
						t.Errorf("%s: byte %d of %s, in chunk %d: %v", cutter, off, m.Entries()[x.Entry].Path, i, all)
					}
					flip(t, file, off)
				}
			}
		}
	}
}

func TestCount(t *testing.T) {
	if a, b := count(1, "byte"), count(int64(2), "byte"); a != "1 byte" || b != "2 bytes" {
		t.Errorf("%q, %q", a, b)
	}
	if a, b := behind(1), behind(2); a != "the file behind it" || b != "the 2 files behind it" {
		t.Errorf("%q, %q", a, b)
	}
}

// How far it is comes between the differences, and ends with all that was chosen.
func TestVerifyTells(t *testing.T) {
	path := filepath.Join(plant(t, verifyTree), "t")
	m, _ := build(t, path, BuildOptions{Cutter: chunk.Fixed})
	for _, only := range [][]string{nil, {"d big"}} {
		sel, err := m.Select(only, nil)
		must(t, err)
		want := m.Size()
		if only == nil {
			sel = nil
		} else {
			want = sel.Size
		}
		last := int64(0)
		must(t, VerifyAndTell(t.Context(), m, sel, path, func(Difference) { t.Error("a difference") }, func(done int64) {
			if done <= last {
				t.Errorf("%d after %d", done, last)
			}
			last = done
		}))
		if last != want {
			t.Errorf("%q: ended with %d, want %d", only, last, want)
		}
	}
}

func TestVerifyFile(t *testing.T) {
	top := plant(t, []node{{path: "f", text: randomText(300_000, 1)}, {path: "d/"}, {path: "link", target: "f"}})
	path := filepath.Join(top, "f")
	m, _ := build(t, path, BuildOptions{Cutter: chunk.Fixed})
	for _, name := range []string{"f", "link"} {
		if got, _ := verify(t, m, nil, filepath.Join(top, name)); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	flip(t, path, 200_000)
	if got, _ := verify(t, m, nil, filepath.Join(top, "link")); len(got) != 1 || !strings.HasPrefix(got[0], `wrong content: "f": chunk 1 `) {
		t.Errorf("flipped: %q", got)
	}
	if got, _ := verify(t, m, nil, filepath.Join(top, "d")); len(got) != 1 || got[0] != "wrong type: the top directory: is a directory, want a file" {
		t.Errorf("a directory: %q", got)
	}
	d, _ := build(t, filepath.Join(top, "d"), BuildOptions{})
	if got, _ := verify(t, d, nil, path); len(got) != 1 || !strings.HasSuffix(got[0], "is a file, want a directory") {
		t.Errorf("a file for a directory: %q", got)
	}
	if err := Verify(t.Context(), m, nil, filepath.Join(top, "nowhere"), func(Difference) { t.Error("a difference") }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nowhere: %v", err)
	}
}

func TestVerifyCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, nil, 0o644))
	const size = 32 << 30
	if err := os.Truncate(path, size); err != nil {
		t.Skip(err)
	}
	fi, err := os.Stat(path)
	must(t, err)
	// All chunks differ, so that there is much to report.
	b := []byte(strings.Replace(head(1, size/(4<<20), size), "131072", "4194304", 1))
	b = []byte(strings.Replace(string(b), "name x\ntop dir 0755 0.000000000", "name f\ntop file", 1))
	b = fmt.Appendf(b, "file 0644 %d.%09d %d f\n", fi.ModTime().Unix(), fi.ModTime().Nanosecond(), int64(size))
	for range size / (4 << 20) {
		b = fmt.Appendf(b, "4194304 %s\n", chunk.Hash{})
	}
	m, err := Parse(b)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var cancelled time.Time
	n := 0
	err = Verify(ctx, m, nil, path, func(d Difference) {
		if d.Chunk != n {
			t.Errorf("chunk %d comes where %d should", d.Chunk, n)
		}
		if n++; n == 20 {
			cancelled = time.Now()
			cancel()
		}
	})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if d := time.Since(cancelled); d > time.Second {
		t.Errorf("ended %v after it was cancelled", d)
	}
}

// A name cannot act on a terminal, and cannot pretend to be another message.
func TestDifferenceIsShown(t *testing.T) {
	d := Difference{Kind: Extra, Path: "a\x1b[2J\n\u202e" + strings.Repeat("x", 4000), Entry: -1, Chunk: -1, Why: "is not in the share"}
	if s := d.String(); strings.ContainsAny(s, "\x1b\n\u202e") || len(s) > 300 {
		t.Errorf("difference is shown as %q", s)
	}
	if got := DiffKind(200).String(); got != "unknown kind" {
		t.Errorf("kind 200 is %q", got)
	}
	for k := Missing; k <= Extra; k++ {
		fmt.Fprint(io.Discard, k.String())
	}
}
