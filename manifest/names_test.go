package manifest

import (
	"errors"
	"strings"
	"testing"
)

// A pathCase is a list of paths for withPaths, and what is wrong with it; "" is
// success.
type pathCase struct {
	name  string
	paths []string
	want  string
}

func checkPaths(t *testing.T, cases []pathCase) {
	t.Helper()
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) { checkRefused(t, withPaths(test.paths...), test.want) })
	}
}

// What any system could take for a path of its own is refused on all of them.
func TestP01Absolute(t *testing.T) {
	checkPaths(t, []pathCase{
		{"up", []string{"../x"}, `has a part ".." that stands for a directory`},
		{"up later", []string{"a/", "a/../../x"}, "stands for a directory"},
		{"absolute", []string{"/abs"}, "is absolute"},
		{"two slashes", []string{"//x"}, "is absolute"},
		{"drive", []string{`C:\x`}, "drive letter"},
		{"drive relative", []string{"C:x"}, "drive letter"},
		{"small drive", []string{"c:x"}, "drive letter"},
		{"drive directory", []string{"C:/", "C:/x"}, "drive letter"},
		{"UNC", []string{`\\host\s\x`}, "begins with a backslash"},
		{"NT", []string{`\??\C:\x`}, "begins with a backslash"},
		{"home", []string{"~/", "~/.bashrc"}, "home directory"},
	})
}

// A component is a name.
func TestP02Components(t *testing.T) {
	checkPaths(t, []pathCase{
		{"dot", []string{"."}, "stands for a directory"},
		{"dots", []string{".."}, "stands for a directory"},
		{"empty", []string{""}, "is empty"},
		{"empty part", []string{"a/", "a//b"}, "is empty"},
		{"dot part", []string{"a/", "a/./b"}, "stands for a directory"},
		{"slash", []string{"/"}, "is absolute"},
		{"slash behind", []string{"a//"}, "ends in a slash"},
		{"link with slash", []string{"a/ -> b"}, "ends in a slash"},
		{"three dots", []string{"..."}, ""},
	})
}

// Control characters, and those that change the direction of text, are refused.
func TestP03Characters(t *testing.T) {
	checkPaths(t, []pathCase{
		{"NUL", []string{"a\x00b"}, "control character 0x00"},
		{"CR", []string{"a\rb"}, "control character 0x0d"},
		{"TAB", []string{"a\tb"}, "control character 0x09"},
		{"ESC", []string{"a\x1b[2Jb"}, "control character 0x1b"},
		{"DEL", []string{"a\x7fb"}, "control character 0x7f"},
		{"C1", []string{"a\u009bb"}, "control character U+009B"},
		{"raw C1", []string{"a\x9bb"}, "not valid UTF-8"},
		{"bidi", []string{"a\u202eb"}, "changes the direction"},
		{"bidi isolate", []string{"a\u2066b"}, "changes the direction"},
		{"bidi mark", []string{"a\u200fb"}, "changes the direction"},
		{"line separator", []string{"a\u2028b"}, "line separator"},
		{"paragraph separator", []string{"a\u2029b"}, "line separator"},
		{"surrogate", []string{"a\xed\xa0\x80b"}, "not valid UTF-8"},
		{"overlong slash", []string{"a\xc0\xafb"}, "not valid UTF-8"},
		{"cut rune", []string{"a\xc3"}, "not valid UTF-8"},
		{"zero width space", []string{"a\u200bb"}, ""},
		{"emoji joined", []string{"👩\u200d💻"}, ""},
		{"replacement character", []string{"\ufffd"}, ""},
	})
}

// Nothing in a name is decoded, and no character but the slash separates.
func TestP04NotDecoded(t *testing.T) {
	checkPaths(t, []pathCase{
		{"backslash", []string{`a\..\b`}, ""},
		{"percent", []string{"%2e%2e%2f"}, ""},
	})
}

// What only Windows refuses is no error of the manifest; see TestP05Portable.
func TestP05OnlyNotPortable(t *testing.T) {
	checkPaths(t, []pathCase{
		{"device", []string{"CON"}, ""},
		{"dot behind", []string{"a."}, ""},
		{"stream", []string{"d/", "d/a:stream"}, ""},
	})
}

// Names that some system takes for one are refused together, both of them named.
func TestP06Fold(t *testing.T) {
	checkPaths(t, []pathCase{
		{"NFC and NFD", []string{"e\u0301", "\u00e9"}, "would collide on some systems"},
		{"sharp s", []string{"STRASSE", "Straße"}, `"Straße" would collide on some systems with "STRASSE"`},
		{"kelvin", []string{"k", "\u212a"}, "would collide"},
		{"ligature", []string{"fi", "\ufb01"}, "would collide"},
		{"dotted I", []string{"i\u0307", "\u0130"}, "would collide"},
		{"long s", []string{"s", "\u017f"}, "would collide"},
		{"sigma", []string{"\u03c2", "\u03c3"}, "would collide"},
		{"invisible", []string{"ab", "a\u200db"}, "would collide"},
		{"soft hyphen", []string{"ab", "a\u00adb"}, "would collide"},
		{"variation selector", []string{"\u2764", "\u2764\ufe0f"}, "would collide"},
		{"tag characters", []string{"a", "a\U000e0041"}, "would collide"},
		{"nothing visible", []string{"\u200b", "\u2060"}, "would collide"},
		{"order of marks", []string{"a\u0301\u0323", "a\u0323\u0301"}, "would collide"},
		{"iota subscript", []string{"\u03b1\u03b9", "\u1fb3"}, "would collide"},
		{"Cherokee", []string{"\u13a0", "\uab70"}, "would collide"},
		{"Hangul", []string{"\u1100\u1161\u11a8", "\uac01"}, "would collide"},
		{"accents differ", []string{"e", "\u00e9"}, ""},
	})
}

// The same for names that differ in case.
func TestP07Case(t *testing.T) {
	checkPaths(t, []pathCase{
		{"case", []string{"README", "Readme"}, `"Readme" would collide on some systems with "README"`},
		{"directories", []string{"Dir/", "Dir/a", "dir/", "dir/b"}, `"dir" would collide on some systems with "Dir"`},
		{"file and directory", []string{"A", "a/"}, "would collide"},
		{"in two directories", []string{"a/", "a/X", "b/", "b/x"}, ""},
		{"deep", []string{"a/", "a/b/", "a/b/Q", "a/b/c", "a/b/q"}, "would collide"},
	})
}

// A short name of Windows may stand for another file of the same directory, so it is
// not portable, whether that file is there or not. Elsewhere it is a name.
func TestP08ShortNames(t *testing.T) {
	for _, short := range []string{"PROGRA~1", "progra~1", "A~1", "ABCDEF~1.TXT", "A~12345.X"} {
		m, err := Parse([]byte(withPaths(append([]string{short}, "Program Files")...)))
		if short > "Program Files" {
			m, err = Parse([]byte(withPaths("Program Files", short)))
		}
		if err != nil {
			t.Errorf("%q: %v", short, err)
			continue
		}
		if err := m.CheckPortable(); err == nil || !strings.Contains(err.Error(), "short name") {
			t.Errorf("%q beside the long name: %v", short, err)
		}
	}
}

// Lengths count in bytes, and the limits are exact.
func TestP09Lengths(t *testing.T) {
	component := func(n int) string { return strings.Repeat("n", n) }
	long := func(n int) []string { // directories down to a path of n bytes
		var paths []string
		path := ""
		for n-len(path) > MaxName+1 {
			path += component(MaxName/2) + "/"
			paths = append(paths, path)
		}
		return append(paths, path+component(n-len(path)))
	}
	checkPaths(t, []pathCase{
		{"name of 240", []string{component(240)}, ""},
		{"name of 241", []string{component(241)}, "has 241 bytes, the limit is 240"},
		{"name of 255", []string{component(255)}, "has 255 bytes"},
		{"umlauts count in bytes", []string{strings.Repeat("ü", 121)}, "has 242 bytes"},
		{"path of 4096", long(4096), ""},
		{"path of 4097", long(4097), "has 4097 bytes, the limit of a path is 4096"},
	})
}

// A manifest cannot name what we keep beside a share.
func TestP16OurNames(t *testing.T) {
	checkPaths(t, []pathCase{
		{"part", []string{"x.shoal-part"}, "for unfinished downloads"},
		{"part in capitals", []string{"X.SHOAL-PART"}, "for unfinished downloads"},
		{"part folded", []string{"x.\u017fhoal-part"}, "for unfinished downloads"},
		{"part invisible", []string{"x.shoal\u200d-part"}, "for unfinished downloads"},
		{"part directory", []string{"a.shoal-part/", "a.shoal-part/journal"}, "for unfinished downloads"},
		{"part of nothing", []string{".shoal-part"}, "for unfinished downloads"},
		{"others are harmless", []string{".shoal", "a.part", "journal", "lock"}, ""},
	})
}

// Names that a shell would act on are names.
func TestP20Shell(t *testing.T) {
	checkPaths(t, []pathCase{
		{"for a shell", []string{"$(id)", "-rf", ";x", "`id`"}, ""},
		{"spaces", []string{" ", " a", "a "}, ""},
	})
}

// Paths come in one order, each once, below directories that are listed.
func TestM09Order(t *testing.T) {
	checkPaths(t, []pathCase{
		{"duplicate", []string{"a", "a"}, "is a duplicate path, of the entries 0 and 1"},
		{"duplicate directory", []string{"a/", "a/b", "a/"}, "out of order"},
		{"no parent", []string{"a/b"}, "not listed before it"},
		{"parent of another", []string{"a/", "ab/c"}, "not listed before it"},
		{"parent closed", []string{"a/", "a/b", "b", "a/c"}, "out of order"},
		{"order", []string{"b", "a"}, `"a" comes out of order behind "b"`},
		{"slash sorts first", []string{"a/", "a/b", "a b", "a.b"}, ""},
		{"slash as a byte", []string{"a b", "a.b", "a/", "a/b"}, "out of order"},
		{"children behind", []string{"a/", "a b", "a/b"}, "out of order"},
	})
}

// A file and a directory of one name conflict.
func TestM10FileAndDirectory(t *testing.T) {
	checkPaths(t, []pathCase{
		{"file and directory", []string{"a", "a/b"}, `conflicts with "a": a file and a directory of one name`},
		{"link and directory", []string{"a -> b", "a/b"}, "conflicts with"},
		{"other order", []string{"a/b", "a"}, "not listed before it"},
		{"file and directory entry", []string{"a", "a/"}, "duplicate path"},
	})
}

// A share of nothing is one.
func TestM15Nothing(t *testing.T) {
	checkPaths(t, []pathCase{
		{"nothing", nil, ""},
	})
}

// Depth has a limit, and is not walked by recursion.
func TestM16Depth(t *testing.T) {
	deep := func(n int) []string {
		var paths []string
		for i := range n {
			paths = append(paths, strings.Repeat("d/", i+1))
		}
		return paths
	}
	checkPaths(t, []pathCase{
		{"depth 64", deep(64), ""},
		{"depth 65", deep(65), "more than 64 parts"},
		{"depth 10,000 without directories", []string{strings.Repeat("d/", 2000) + "x"}, "not listed before it"},
	})
}

func TestP05Portable(t *testing.T) {
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
