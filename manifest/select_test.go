package manifest

import (
	"slices"
	"strings"
	"testing"
)

func TestSelect(t *testing.T) {
	m, err := Parse([]byte(withPaths(
		"a/", "a/b/", "a/b/one.jpg", "a/b/two.txt", "a/three.jpg", "a[1].txt", "c/", "c/b/", "c/b/x", "empty/", "four.jpg", "l -> four.jpg")))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, only, exclude string // globs, separated by spaces
		want                string // paths, separated by spaces
		err                 string
	}{
		{"base name", "*.jpg", "", "a a/b a/b/one.jpg a/three.jpg four.jpg", ""},
		{"whole path", "a/*.jpg", "", "a a/three.jpg", ""},
		{"any depth", "a/**/*.jpg", "", "a a/b a/b/one.jpg a/three.jpg", ""},
		{"a directory", "a/b", "", "a a/b a/b/one.jpg a/b/two.txt", ""},
		{"a directory with a slash", "a/b/", "", "a a/b a/b/one.jpg a/b/two.txt", ""},
		{"a slash before", "/a/b", "", "a a/b a/b/one.jpg a/b/two.txt", ""},
		{"dot slash", "./four.jpg", "", "four.jpg", ""},
		{"directories of a name", "b", "", "a a/b a/b/one.jpg a/b/two.txt c c/b c/b/x", ""},
		{"an empty directory", "empty", "", "empty", ""},
		{"a link", "l", "", "l", ""},
		{"two", "four.jpg l", "", "four.jpg l", ""},
		{"one within the other", "a a/b/one.jpg", "", "a a/b a/b/one.jpg a/b/two.txt a/three.jpg", ""},
		{"braces", "{four,a/three}.jpg", "", "a a/three.jpg four.jpg", ""},
		{"a name that is a glob", "a[1].txt", "", "a[1].txt", ""},
		{"exclude", "", "*.jpg c", "a a/b a/b/two.txt a[1].txt empty l", ""},
		{"exclude in what is chosen", "a", "one.jpg", "a a/b a/b/two.txt a/three.jpg", ""},
		{"exclude wins", "a/b/*", "a/b/one.jpg", "a a/b a/b/two.txt", ""},
		{"exclude above", "one.jpg x", "a", "c c/b c/b/x", ""},
		{"exclude nothing", "", "*.png", "a a/b a/b/one.jpg a/b/two.txt a/three.jpg a[1].txt c c/b c/b/x empty four.jpg l", ""},
		{"no match", "*.png", "", "", `nothing in the share matches "*.png"`},
		{"one of two does not match", "four.jpg *.png", "", "", `"*.png"`},
		{"case counts", "FOUR.JPG", "", "", "nothing in the share"},
		{"nothing left", "a", "*", "", "everything is excluded"},
		{"all excluded", "", "**", "", "everything is excluded"},
		{"malformed", "[", "", "", "syntax error in pattern"},
		{"malformed exclude", "", "{a", "", "syntax error in pattern"},
		{"empty glob", "/", "", "", "syntax error in pattern"},
	} {
		sel, err := m.Select(strings.Fields(test.only), strings.Fields(test.exclude))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, want error %q", test.name, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []string
		files := 0
		for i, e := range m.Entries() {
			if sel.Entries.Has(i) {
				got = append(got, e.Path)
				if e.Kind == File {
					files++
				}
			}
		}
		if want := strings.Fields(test.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", test.name, got, want)
		}
		if sel.NumFiles != files {
			t.Errorf("%s: %d files, want %d", test.name, sel.NumFiles, files)
		}
	}
	if sel, err := m.Select(nil, nil); sel != nil || err != nil {
		t.Errorf("no globs: %v, %v, want nil", sel, err)
	}
}

func TestSelectChunks(t *testing.T) {
	m, err := Parse([]byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		glob string
		want []int
		size int64
	}{
		{"a b.jpg", []int{0, 1}, 200_000},
		{"notes.txt", []int{2}, 9},
		{"*.txt", []int{2}, 23},
		{"latest", nil, 0},
	} {
		sel, err := m.Select([]string{test.glob}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for i := range m.NumChunks() {
			if sel.Chunks.Has(i) {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, test.want) || sel.Size != test.size {
			t.Errorf("%s: chunks %v, %d bytes, want %v, %d", test.glob, got, sel.Size, test.want, test.size)
		}
	}
}
