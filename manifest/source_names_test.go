package manifest

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// skips collects what Build leaves out.
func skips(to map[string]string) func(path, why string) {
	return func(path, why string) { to[path] = why }
}

func TestP03BuildSkipsNames(t *testing.T) {
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

func TestP05BuildRefusesNames(t *testing.T) {
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
