package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer"
)

// What the author of a manifest may write into it (T2), through each way that a
// name takes from there to a disk or a screen.

// A hostileName is a name that a manifest may have for a file at its top, or the
// path of an entry.
type hostileName struct {
	id   string
	path string
	says string // a part of the error; "" is success
	dirs string // directories that are listed before it, separated by spaces
	open bool   // refused only without --any-name
}

var hostileNames = []hostileName{
	{"P01", "../x", "stands for a directory", "", false},
	{"P01", "a/../../x", "stands for a directory", "a", false},
	{"P01", "/abs", "is absolute", "", false},
	{"P01", "//x", "is absolute", "", false},
	{"P01", `C:\x`, "drive letter", "", false},
	{"P01", "C:x", "drive letter", "", false},
	{"P01", `\\host\s\x`, "backslash", "", false},
	{"P01", `\??\C:\x`, "backslash", "", false},
	{"P01", "~/.bashrc", "home directory", "~", false},
	{"P02", ".", "stands for a directory", "", false},
	{"P02", "..", "stands for a directory", "", false},
	{"P02", "", "is empty", "", false},
	{"P02", "a//b", "is empty", "a", false},
	{"P02", "a/./b", "stands for a directory", "a", false},
	{"P02", "a/", "ends in a slash", "a", false},
	{"P02", "/", "is absolute", "", false},
	{"P03", "a\x00b", "control character", "", false},
	{"P03", "a\rb", "control character", "", false},
	{"P03", "a\x1b[2Jb", "control character", "", false},
	{"P03", "a\u009b2Jb", "control character", "", false},
	{"P03", "a\u202eb", "direction of text", "", false},
	{"P03", "a\u2028b", "line separator", "", false},
	{"P03", "a\xffb", "UTF-8", "", false},
	{"P03", "a\u200bb", "", "", false},
	{"P04", "%2e%2e%2fx", "", "", false},
	{"P04", `a\..\..\b`, "Windows refuses", "", true},
	{"P05", "CON", "is a device", "", true},
	{"P05", "nul.txt", "is a device", "", true},
	{"P05", "a.", "dot or a space", "", true},
	{"P05", "ab:stream", "Windows refuses", "", true},
	{"P08", "PROGRA~1", "short name", "", true},
	{"P09", strings.Repeat("n", manifest.MaxName), "", "", false},
	{"P09", strings.Repeat("n", manifest.MaxName+1), "the limit is 240", "", false},
	{"P16", "x.shoal-part", "unfinished downloads", "", false},
	{"P16", "x.SHOAL-PART", "unfinished downloads", "", false},
	{"P16", "journal", "", "", false},
	{"P20", "-rf", "", "", false},
	{"P20", "$(touch pwned)", "", "", false},
	{"P20", "`touch pwned`", "", "", false},
	{"P20", ";touch pwned", "", "", false},
}

// manifest returns the text of a share called name that has the entry.
func (h *hostileName) manifest(name string) string {
	dirs := strings.Fields(h.dirs)
	var b strings.Builder
	fmt.Fprintf(&b, "shoal-manifest 1\nname %s\ntop dir 0755 1700000000.000000000\ncutter fixed 131072\nsize 0\nentries %d\nchunks 0\n", name, len(dirs)+1)
	for _, d := range dirs {
		fmt.Fprintf(&b, "dir 0755 1700000000.000000000 %s\n", d)
	}
	fmt.Fprintf(&b, "file 0644 1700000000.000000000 0 %s\n", h.path)
	return b.String()
}

// oneFile returns the text of a share of one file that is called so.
func (h *hostileName) oneFile() string {
	return fmt.Sprintf("shoal-manifest 1\nname %[1]s\ntop file\ncutter fixed 131072\nsize 0\nentries 1\nchunks 0\nfile 0644 1700000000.000000000 0 %[1]s\n", h.path)
}

// A textSeed serves manifests, whatever stands in them.
type textSeed struct {
	node *peer.Node
	addr string
}

func newTextSeed(t testing.TB) *textSeed {
	t.Helper()
	n, err := peer.NewNode(peer.Config{})
	must(t, err)
	at, err := n.Listen("127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	return &textSeed{n, at.(*net.TCPAddr).String()}
}

// serve makes a manifest known, and returns the ticket for it. wrong is what the
// seed sends instead, if it is not nil.
func (s *textSeed) serve(t testing.TB, text string, wrong []byte) (ticket string) {
	t.Helper()
	root := chunk.Sum([]byte(text))
	send := []byte(text)
	if wrong != nil {
		send = wrong
	}
	stop := s.node.Accept(root, func(c *peer.Conn) {
		_ = errors.Join(c.SendHaveAll(), c.Flush(), c.Run(context.Background(), &textSession{c: c, text: send})) // the test looks at the other side
	})
	t.Cleanup(func() { must(t, s.node.Close()); stop() })
	return manifest.Ticket{Root: root, Addrs: []string{s.addr}}.String()
}

type textSession struct {
	fakeSession
	c    *peer.Conn
	text []byte
}

func (h *textSession) Want([]chunk.Range) error { return errors.New("nothing to be had") }

func (h *textSession) WantManifest() error {
	err := h.c.SendManifest(int64(len(h.text)))
	for off := 0; off < len(h.text) && err == nil; off += peer.MaxSegment {
		err = h.c.SendData(-1, off, h.text[off:min(len(h.text), off+peer.MaxSegment)])
	}
	return errors.Join(err, h.c.Flush())
}

// A stage is a folder in which a get runs, with things around it that must stay as
// they are.
type stage struct {
	dir    string // holds everything
	target string // the folder that the get is given
}

func newStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir()}
	s.target = filepath.Join(s.dir, "target")
	for name, text := range map[string]string{
		"outside/secret": "secret", "outside/sub/deep": "deep", "x": "beside", "target/mine": "mine", "target/folder/mine": "mine", "target/folder/x": "",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o640))
	}
	if runtime.GOOS != "windows" {
		must(t, os.Symlink("outside", filepath.Join(s.dir, "link")))
	}
	return s
}

// look returns what lies on the stage, without shoal's state and the given names
// beneath the target.
func (s *stage) look(t testing.TB, without ...string) string {
	t.Helper()
	text, err := surroundings(s.dir, func(rel string) bool {
		if rel == ".home" || rel == "." {
			return true
		}
		for _, w := range without {
			// What is made in a folder gives it another time.
			if rel == filepath.Join("target", w) || rel == "target" && w == "." {
				return true
			}
		}
		return false
	})
	must(t, err)
	return text
}

// run runs shoal in the target.
func (s *stage) run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "shoal", args...)
	cmd.Dir = s.target
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, ".home"), "HOME="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var x *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &x) {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), errs.String()} {
		for _, r := range text {
			if r != '\n' && !strconv.IsGraphic(r) {
				t.Errorf("%q printed %U raw: %q", args, r, text)
			}
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestP21EveryEntryPoint takes the hostile names through each command and flag by
// which a name comes in. What is refused is refused by all of them in the same way,
// with one line, and nothing on the disk changes; what is allowed is made where it
// belongs, under exactly its name.
func TestP21EveryEntryPoint(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the names that are allowed are others")
	}
	t.Parallel()
	for k, h := range hostileNames {
		t.Run(h.id+" "+strconv.QuoteToASCII(h.path[:min(len(h.path), 20)]), func(t *testing.T) {
			t.Parallel()
			seed := newTextSeed(t)
			s := newStage(t)
			tree, ticket := h.manifest("share"), ""
			ticket = seed.serve(t, tree, nil)
			saved := filepath.Join(s.dir, "saved.shoal")
			must(t, os.WriteFile(saved, []byte(tree), 0o644))

			refused := func(what string, code int, stdout, msg string, before string) {
				t.Helper()
				event := stdout == "" || strings.HasPrefix(stdout, `{"code":8,"event":"error",`) && strings.Count(stdout, "\n") == 1
				if code != codeRefused || !event || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, h.says) {
					t.Errorf("%s: code %d, printed %q and said %q, want %q", what, code, stdout, msg, h.says)
				}
				if after := s.look(t); after != before {
					t.Errorf("%s: before\n%s\nafter\n%s", what, before, after)
				}
			}
			type way struct {
				what  string
				args  []string
				reads bool // makes no names, so names that other systems refuse are fine
				rare  bool // is taken with the first name of each kind
			}
			ways := []way{
				{"ls", []string{"ls", "-q", ticket}, true, true},
				{"ls of a file", []string{"ls", saved}, true, false},
				{"ls as JSON", []string{"ls", "--json", saved}, true, true},
				{"manifest show", []string{"manifest", "show", saved}, true, true},
				{"verify", []string{"verify", saved, s.target}, true, true},
				{"get", []string{"get", "-q", ticket}, false, false},
				{"get into a folder", []string{"get", "-q", ticket, s.target}, false, true},
				{"get into a new folder", []string{"get", "-q", ticket, "new"}, false, true},
				{"get by a file", []string{"get", "-q", saved, "--peer", seed.addr}, false, true},
				{"get -o", []string{"get", "-q", ticket, "-o", "out"}, false, true},
				{"get -o -", []string{"get", "-q", ticket, "-o", "-"}, true, false},
				{"get -o onto a folder", []string{"get", "-q", ticket, "-o", "folder"}, false, false},
				{"get --only", []string{"get", "-q", ticket, "--only", "*"}, false, true},
				{"get --overwrite", []string{"get", "-q", ticket, "-o", "folder", "--overwrite"}, false, true},
				{"get --reuse", []string{"get", "-q", ticket, "--reuse", s.target}, false, true},
			}
			first := k == 0 || hostileNames[k-1].id != h.id
			if h.says == "" {
				h.allowed(t, s, ticket)
				return
			}
			for _, w := range ways {
				if w.reads && h.open || w.rare && !first {
					continue
				}
				before := s.look(t)
				code, stdout, msg := s.run(t, w.args...)
				refused(w.what, code, stdout, msg, before)
			}
			// A share of one file has the name as its own.
			if !strings.Contains(h.path, "\n") {
				one := seed.serve(t, h.oneFile(), nil)
				for _, args := range [][]string{{"get", "-q", one}, {"get", "-q", one, "new"}, {"get", "-q", one, "-o", "out"}, {"get", "-q", one, "-o", "-"}} {
					if h.open && args[len(args)-1] == "-" { // it makes no name
						continue
					}
					before := s.look(t)
					code, stdout, msg := s.run(t, args...)
					h := h
					if strings.HasPrefix(h.path, "/") || strings.Contains(h.path, "/") { // its name holds a slash first of all
						h.says = ""
					}
					if code != codeRefused || stdout != "" || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, h.says) {
						t.Errorf("one file, %q: code %d, said %q", args, code, msg)
					}
					if after := s.look(t); after != before {
						t.Errorf("one file, %q: before\n%s\nafter\n%s", args, before, after)
					}
				}
			}
			if h.open {
				s.run(t, "get", "-q", ticket, "--any-name")
				if _, err := os.Lstat(filepath.Join(s.target, "share", h.path)); err != nil {
					t.Errorf("with --any-name: %v", err)
				}
				return
			}
			if first {
				h.resumed(t, s, ticket, tree)
			}
		})
	}
}

// allowed gets a share with a name that is fine, in several ways.
func (h *hostileName) allowed(t *testing.T, s *stage, ticket string) {
	for _, test := range []struct {
		args []string
		at   string
	}{
		{[]string{"get", "-q", ticket}, "share"},
		{[]string{"get", "-q", ticket, "-o", "out"}, "out"},
		{[]string{"get", "-q", ticket, "-o", "folder"}, "folder"},
		{[]string{"get", "-q", ticket, "new", "--only", "*"}, "new/share"},
	} {
		top := strings.Split(test.at, "/")[0]
		before := s.look(t, top, ".")
		code, _, msg := s.run(t, test.args...)
		if code != 0 {
			t.Errorf("%q: code %d, %s", test.args, code, msg)
			continue
		}
		if fi, err := os.Lstat(filepath.Join(s.target, test.at, h.path)); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%q: %v", test.args, err)
		}
		if after := s.look(t, top, "."); after != before {
			t.Errorf("%q: before\n%s\nafter\n%s", test.args, before, after)
		}
	}
}

// resumed plants a part with the hostile manifest, as another user could, or a
// program of an older version: nothing of it is gone on with.
func (h *hostileName) resumed(t *testing.T, s *stage, ticket, text string) {
	for _, name := range []string{"share", "folder", "out"} {
		part := filepath.Join(s.target, name+manifest.PartSuffix)
		must(t, os.MkdirAll(filepath.Join(part, "data"), 0o755))
		must(t, os.WriteFile(filepath.Join(part, "manifest"), []byte(text), 0o644))
		must(t, os.WriteFile(filepath.Join(part, "request"), []byte(`{"shoal":1,"addrs":["127.0.0.1:1"]}`), 0o644))
	}
	for _, args := range [][]string{
		{"resume", "-q", s.target, "--timeout", "1s"},
		{"status", "-q"},
		{"get", "-q", ticket},
		{"get", "-q", ticket, "-o", "folder"},
		{"get", "-q", ticket, "-o", "out"},
	} {
		before := s.look(t)
		code, stdout, msg := s.run(t, args...)
		want := codeRefused
		if args[0] != "get" {
			want = 0 // there is nothing that it would go on with
		}
		if code != want || stdout != "" {
			t.Errorf("%q beside a planted part: code %d, printed %q, said %q", args, code, stdout, msg)
		}
		if after := s.look(t); after != before {
			t.Errorf("%q beside a planted part: before\n%s\nafter\n%s", args, before, after)
		}
	}
}

// M01: a manifest whose bytes are not those of the ticket is refused before anything
// in it is looked at, and who sent it is named.
func TestM01OtherManifest(t *testing.T) {
	t.Parallel()
	s, seed := newStage(t), newTextSeed(t)
	good := (&hostileName{path: "fine"}).manifest("share")
	for name, wrong := range map[string]string{
		"another":  (&hostileName{path: "../x"}).manifest("share"),
		"one byte": strings.Replace(good, "0644", "0666", 1),
		"longer":   good + "x",
		"no text":  "\x00",
	} {
		ticket := seed.serve(t, good+"", []byte(wrong))
		before := s.look(t)
		code, stdout, msg := s.run(t, "get", "-q", ticket, "--timeout", "2s", "--listen", "off")
		if code == 0 || stdout != "" || !strings.Contains(msg, seed.addr) || strings.Contains(msg, "../x") || strings.Contains(msg, "manifest: line") {
			t.Errorf("%s: code %d, %q", name, code, msg)
		}
		if after := s.look(t); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
		}
		seed = newTextSeed(t)
	}
}

// M03: the length of a manifest file is looked at before its content.
func TestM03HugeFile(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	name := filepath.Join(s.dir, "huge.shoal")
	must(t, os.WriteFile(name, []byte("shoal-manifest 1\n"), 0o644))
	must(t, os.Truncate(name, manifest.MaxText+1))
	for _, cmd := range []string{"ls", "get"} {
		if code, _, msg := s.run(t, cmd, name); code != codeRefused || !strings.Contains(msg, "67108865 bytes, and the limit is 67108864") {
			t.Errorf("%s: code %d, %q", cmd, code, msg)
		}
	}
}

// M18: modes and times come out as they were, but nobody loses his own files by
// them, and no program gets the rights of another user.
func TestM18ModesOnDisk(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs modes")
	}
	t.Parallel()
	s, seed := newStage(t), newTextSeed(t)
	text := "shoal-manifest 1\nname share\ntop dir 0000 0.000000000\ncutter fixed 131072\nsize 0\nentries 5\nchunks 0\n" +
		"dir 0000 253402300799.999999999 d\n" +
		"file 0000 0.000000000 0 d/in\n" +
		"file 0000 0.000000001 0 none\n" +
		"file 0777 1700000000.123456789 0 open\n" +
		"file 0111 253402300799.999999999 0 run\n"
	if code, _, msg := s.run(t, "get", "-q", seed.serve(t, text, nil)); code != 0 {
		t.Fatalf("code %d, %s", code, msg)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "d": 0o700, "d/in": 0o400, "none": 0o400, "open": 0o777, "run": 0o511} {
		fi, err := os.Lstat(filepath.Join(s.target, "share", name))
		must(t, err)
		if got := fi.Mode() &^ os.ModeDir; got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
	if fi, err := os.Lstat(filepath.Join(s.target, "share", "open")); err != nil || fi.ModTime().UnixNano() != 1700000000123456789 {
		t.Errorf("time %v, %v", fi.ModTime(), err)
	}
}
