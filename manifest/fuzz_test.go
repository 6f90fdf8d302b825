package manifest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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

// FuzzName: a name that is accepted is one component, which no system takes for
// anything else, and no other name of a directory stands for it.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "..", "C:x", `\x`, "~", "a\x1b", "\u202e", "x.shoal-part", "x.\u017fhoal-part", "é", "CON", "a/b", "\xff", strings.Repeat("x", 241)} {
		f.Add(s, "A")
	}
	f.Add("\u1e9e", "SS")
	f.Add("\u0130", "i\u0307")
	f.Fuzz(func(t *testing.T, a, b string) {
		if CheckName(a) != nil || CheckName(b) != nil {
			return
		}
		if !filepath.IsLocal(a) || filepath.Base(a) != a || strings.ContainsAny(a, "/\x00\n\r") || len(a) > MaxName {
			t.Fatalf("accepted %q", a)
		}
		if strings.HasSuffix(fold(a), PartSuffix) {
			t.Fatalf("accepted %q, which may be the name of a part", a)
		}
		if again := fold(fold(a)); again != fold(a) {
			t.Fatalf("%q folds to %q, and that to %q", a, fold(a), again)
		}
		if strings.EqualFold(a, b) && fold(a) != fold(b) && !strings.ContainsAny(a+b, "\u0130\u0131") {
			t.Fatalf("%q and %q are equal in some systems, and fold to %q and %q", a, b, fold(a), fold(b))
		}
		if a == b {
			return
		}
		paths := []string{a, b}
		slices.Sort(paths)
		_, err := Parse([]byte(withPaths(paths...)))
		if (err == nil) != (fold(a) != fold(b)) && !strings.Contains(a+b, " -> ") {
			t.Fatalf("%q beside %q: %v", a, b, err)
		}
	})
}

// FuzzLinks: whatever links a manifest may have, a system that follows them on a
// disk, one component at a time, never leaves the share.
func FuzzLinks(f *testing.F) {
	f.Add("b", "../l", "a/b/m")
	f.Add("a/b/m/../x", "..", "l")
	f.Add("a/../l", "../../a", ".")
	f.Add("A/b", "../L/..", "M")
	f.Fuzz(func(t *testing.T, l, m, n string) {
		if strings.ContainsAny(l+m+n, "\n\x00") {
			return
		}
		text := withPaths("a/", "a/b/", "a/b/m -> "+m, "a/n -> "+n, "l -> "+l)
		man, err := Parse([]byte(text))
		if err != nil {
			return
		}
		// follow resolves a path from the share's top as a system does: names are
		// folded, a missing component counts as a directory.
		links := map[string]string{}
		for _, e := range man.Entries() {
			if e.Kind == Symlink {
				links[fold(e.Path)] = e.Target
			}
		}
		var follow func(at []string, target string, hops int) ([]string, bool)
		follow = func(at []string, target string, hops int) ([]string, bool) {
			for part := range strings.SplitSeq(target, "/") {
				switch part {
				case "", ".":
				case "..":
					if len(at) == 0 {
						return nil, false
					}
					at = at[:len(at)-1]
				default:
					next := append(slices.Clone(at), fold(part))
					if to, ok := links[strings.Join(next, "/")]; ok {
						if hops == 0 {
							return nil, false
						}
						var inside bool
						if next, inside = follow(at, to, hops-1); !inside {
							return nil, false
						}
					}
					at = next
				}
			}
			return at, true
		}
		for _, e := range man.Entries() {
			if e.Kind != Symlink {
				continue
			}
			var dir []string
			if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
				dir = strings.Split(fold(e.Path[:i]), "/")
			}
			if _, inside := follow(dir, e.Target, maxLinkHops); !inside {
				t.Fatalf("%q -> %q leads out of\n%s", e.Path, e.Target, text)
			}
		}
	})
}

// FuzzSelect: globs choose entries of the share, with the directories above them,
// and all chunks that these need.
func FuzzSelect(f *testing.F) {
	text, err := os.ReadFile(goldenDir + "names.shoal")
	if err != nil {
		f.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"*", "a", "**/b", "[", "{a,b}", "*.b", "a/", "../x", "/", "\\", strings.Repeat("*", 100), "{{{{", "[^a]"} {
		f.Add(s, "")
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, only, exclude string) {
		if len(only)+len(exclude) > 200 {
			return
		}
		s, err := m.Select([]string{only}, []string{exclude})
		if err != nil {
			return
		}
		for i := range m.Entries() {
			if !s.Entries.Has(i) {
				continue
			}
			for c, end := m.Chunks(i); c < end; c++ {
				if !s.Chunks.Has(c) {
					t.Fatalf("%q without %q has entry %d, and not its chunk %d", only, exclude, i, c)
				}
			}
		}
	})
}
