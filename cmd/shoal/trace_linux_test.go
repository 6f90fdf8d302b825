package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
)

// A trace is what a process asked the system to do to files, by strace -f -y.
type trace struct {
	calls []string // whole lines, without the number of the process
}

var (
	tracePid     = regexp.MustCompile(`^(\d+) +`)
	traceResumed = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
	traceCall    = regexp.MustCompile(`^(\w+)\((.*)\)\s+= (.*)$`)
	traceName    = regexp.MustCompile(`(?:(?:AT_FDCWD|\d+)<([^>]*)>(?:\(deleted\))?, )?"((?:[^"\\]|\\.)*)"(\.\.\.)?`)
	traceFD      = regexp.MustCompile(`^\d+<([^>]*)>`)
)

// parseTrace joins calls that strace has written in two halves.
func parseTrace(text string) *trace {
	tr := &trace{}
	half := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		m := tracePid.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		pid, rest := m[1], line[len(m[0]):]
		if begin, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
			half[pid] = begin
			continue
		}
		if m := traceResumed.FindStringSubmatch(rest); m != nil {
			rest = half[pid] + m[1]
			delete(half, pid)
		}
		if traceCall.MatchString(rest) {
			tr.calls = append(tr.calls, rest)
		}
	}
	return tr
}

// changes calls visit with each name that a call has changed what lies at, or was
// opened to be written: the folder that it was relative to, as the kernel knows it,
// and the name. A file that was opened is also told by the path that the kernel gives
// it, whatever links led there.
func (tr *trace) changes(visit func(call, dir, name string)) {
	for _, line := range tr.calls {
		m := traceCall.FindStringSubmatch(line)
		call, args, result := m[1], m[2], m[3]
		if strings.HasPrefix(result, "-1") {
			continue
		}
		switch strings.TrimSuffix(call, "2") {
		case "open", "openat", "creat":
			if call != "creat" && !strings.Contains(args, "O_WRONLY") && !strings.Contains(args, "O_RDWR") && !strings.Contains(args, "O_CREAT") && !strings.Contains(args, "O_TRUNC") {
				continue
			}
			if fd := traceFD.FindStringSubmatch(result); fd != nil {
				visit(line, "", fd[1])
			}
		case "rename", "renameat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat", "link", "linkat", "mknod", "mknodat",
			"chmod", "fchmodat", "truncate", "utimensat", "utime", "utimes", "chown", "lchown", "fchownat", "setxattr", "lsetxattr", "mount":
		default:
			continue
		}
		names := traceName.FindAllStringSubmatch(args, -1)
		if strings.HasPrefix(call, "symlink") { // the first is only text
			names = names[1:]
		}
		for _, n := range names {
			visit(line, n[1], n[2])
		}
		if names == nil && call != "utimensat" { // that one may go by an open file alone
			visit(line, "", "?")
		}
	}
}

// outside returns the calls that changed something that is not beneath one of the
// folders, or that went beneath the target by more than one component at once, where
// a link could have been put in between.
func (tr *trace) outside(target, home string) (bad []string) {
	beneath := func(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	tr.changes(func(call, dir, name string) {
		p := name
		if !filepath.IsAbs(name) {
			p = filepath.Join(dir, name)
		}
		p = strings.TrimSuffix(p, " (deleted)")
		switch {
		case beneath(p, home), p == "/dev/null", p == "/dev/tty":
		case !beneath(p, target):
			bad = append(bad, "outside: "+call)
		case dir == "" && filepath.IsAbs(name): // told by the kernel
		case strings.Contains(name, "/") && p != target:
			bad = append(bad, "by a path: "+call)
		}
	})
	return bad
}

// traced runs shoal under strace and returns what it did.
func (s *stage) traced(t testing.TB, args ...string) (code int, msg string, tr *trace) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-y", "-s", "5000", "-e", "trace=file", "-o", out, "shoal"}, args...)...)
	cmd.Dir = s.target
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, ".home"))
	var errs strings.Builder
	cmd.Stderr = &errs
	var x *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &x) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	must(t, err)
	return cmd.ProcessState.ExitCode(), errs.String(), parseTrace(string(text))
}

// P10, P12, P13: in the trace of real gets, whatever is opened to be written, made,
// renamed, removed or given a mode lies in the folder that was named, or in
// SHOAL_HOME, and no link is on the way to it.
func TestP10Trace(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		skip(t, "needs strace")
	}
	t.Parallel()
	s := newStage(t)
	if err := exec.CommandContext(t.Context(), "strace", "-o", "/dev/null", "true").Run(); err != nil {
		skip(t, "strace may not trace: %v", err)
	}
	tree, _ := plantedTree(t, s.dir)
	must(t, os.Symlink("../small", filepath.Join(tree, "out", "link")))
	m, _, err := manifest.Build(t.Context(), []string{tree}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.dir, "tree.shoal"), []byte(m.Text()), 0o644))
	data := stream(t, m, tree)
	whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	half := (&fakeSeed{m: m, data: data, chunks: 2}).listen(t)
	outside := filepath.Join(s.dir, "outside")
	part := filepath.Join(s.target, "tree"+manifest.PartSuffix)
	get := []string{"get", "-q", "../tree.shoal", "--peer", whole}
	for _, test := range []struct {
		name  string
		plant func()
		args  []string
		code  int
	}{
		{"fresh", nil, get, 0},
		{"again", nil, get, 0},
		{"by another name", nil, append(get[:len(get):len(get)], "-o", "other"), 0},
		{"a part of it", nil, append(get[:len(get):len(get)], "-o", "some", "--only", "small"), 0},
		{"stopped midway", nil, []string{"get", "-q", "../tree.shoal", "--peer", half, "-o", "stopped", "--timeout", "1s"}, codeStalled},
		{"gone on with", nil, append(get[:len(get):len(get)], "-o", "stopped"), 0},
		{"into a folder with a link", func() {
			must(t, os.Mkdir(filepath.Join(s.target, "linked"), 0o755))
			must(t, os.Symlink(outside, filepath.Join(s.target, "linked", "out")))
		}, append(get[:len(get):len(get)], "-o", "linked"), codeRefused},
		{"into a folder, replacing", func() {
			must(t, os.Mkdir(filepath.Join(s.target, "full"), 0o755))
			must(t, os.WriteFile(filepath.Join(s.target, "full", "small"), []byte("mine"), 0o644))
		}, append(get[:len(get):len(get)], "-o", "full", "--overwrite"), 0},
		{"a prepared part", func() {
			must(t, os.RemoveAll(filepath.Join(s.target, "tree")))
			must(t, os.MkdirAll(filepath.Join(part, "data"), 0o755))
			must(t, os.WriteFile(filepath.Join(part, "manifest"), []byte(m.Text()), 0o644))
			must(t, os.Symlink(outside, filepath.Join(part, "data", "out")))
		}, get, codeDisk},
		{"a part of links to files", func() {
			must(t, os.Remove(filepath.Join(part, "data", "out")))
			must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(part, "journal")))
		}, get, -1},
	} {
		if test.plant != nil {
			test.plant()
		}
		code, msg, tr := s.traced(t, test.args...)
		if code != test.code && test.code >= 0 {
			t.Errorf("%s: code %d, want %d: %s", test.name, code, test.code, msg)
		}
		n := 0
		tr.changes(func(string, string, string) { n++ })
		if n == 0 {
			t.Errorf("%s: no change in %d calls: the trace is not understood", test.name, len(tr.calls))
		}
		for _, b := range tr.outside(s.target, filepath.Join(s.dir, ".home")) {
			t.Errorf("%s: %s", test.name, b)
		}
	}
}

// The reader of traces finds what it is there for.
func TestTraceFinds(t *testing.T) {
	for _, test := range []struct {
		lines string
		want  string // "" is nothing
	}{
		{`1 openat(AT_FDCWD</w/t>, "x", O_RDONLY|O_CLOEXEC) = 3</etc/x>`, ""},
		{`1 openat(5</w/t>, "x", O_RDWR|O_CREAT, 0600) = 3</w/t/x>`, ""},
		{`1 openat(5</w/t>, "x", O_RDWR|O_CREAT, 0600) = 3</w/outside/x>`, "outside"},
		{`1 openat(5</w/t>, "x", O_RDWR|O_CREAT, 0600) = -1 EEXIST (File exists)`, ""},
		{`1 openat(5</w/t>, "a/x", O_RDWR|O_CREAT, 0600) = 3</w/t/a/x>`, "by a path"},
		{`1 openat(5</w/t>, "../x", O_RDWR|O_CREAT, 0600) = 3</w/x>`, "outside"},
		{`1 openat(AT_FDCWD</w/t>, "/w/home/db", O_RDWR|O_CREAT, 0600) = 3</w/home/db>`, ""},
		{`1 unlinkat(5</w/t2>, "x", 0) = 0`, "outside"},
		{`1 renameat2(5</w/t>, "a", 6</w/t/b>, "c", RENAME_NOREPLACE) = 0`, ""},
		{`1 renameat2(5</w/t>, "a", 6</w>, "c", RENAME_NOREPLACE) = 0`, "outside"},
		{`1 symlinkat("../../etc", 5</w/t>, "l") = 0`, ""},
		{`1 symlinkat("x", 5</w>, "l") = 0`, "outside"},
		{`1 mkdirat(AT_FDCWD</w/t>, "/w/t", 0777) = 0`, ""},
		{`1 mkdirat(AT_FDCWD</w/t>, "/w/u", 0777) = 0`, "outside"},
		{"1 unlinkat(5</w>, <unfinished ...>\n2 openat(5</w/t>, \"x\", O_RDONLY) = 3</w/t/x>\n1 <... unlinkat resumed>\"x\", 0) = 0", "outside"},
		{`1 openat(5</w/t>, "a\"b", O_WRONLY|O_CREAT, 0600) = 3</w/t/a"b>`, ""},
		{`1 fchmodat(5</w/t>, "x", 0644) = 0`, ""},
		{`1 chmod("x", 0644) = 0`, "outside"},
	} {
		got := fmt.Sprint(parseTrace(test.lines).outside("/w/t", "/w/home"))
		if (got == "[]") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: found %s, want %q", test.lines, got, test.want)
		}
	}
}
