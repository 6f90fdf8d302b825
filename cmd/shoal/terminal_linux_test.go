package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rivo/uniseg"

	"github.com/shoal-p2p/shoal/manifest"
)

// A terminal is a pseudo-terminal with a shoal in it.
type terminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	tty  *os.File
	mu   sync.Mutex
	out  bytes.Buffer
	read chan struct{} // closed at its end
}

// newTerminal runs shoal in a terminal of so many columns, with more variables.
func newTerminal(t testing.TB, dir string, cols int, env []string, args ...string) *terminal {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	x := &terminal{t: t, cmd: exec.Command(exe, args...), read: make(chan struct{})}
	x.cmd.Args[0] = "shoal" // see TestMain
	x.cmd.Dir = dir
	x.cmd.Env = append(append(os.Environ(), "TERM=xterm", "SHOAL_HOME="+filepath.Join(dir, ".home")), env...)
	x.tty, err = pty.StartWithSize(x.cmd, &pty.Winsize{Rows: 24, Cols: uint16(cols)})
	must(t, err)
	go func() {
		defer close(x.read)
		b := make([]byte, 4096)
		for {
			n, err := x.tty.Read(b)
			x.mu.Lock()
			x.out.Write(b[:n])
			x.mu.Unlock()
			if err != nil {
				return // EIO when the last of those who had it open has ended
			}
		}
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill() // it has ended long ago, if all went well
		_ = x.cmd.Wait()
		_ = x.tty.Close()
		<-x.read
	})
	return x
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// waitFor waits until the terminal was sent what matches, and returns all it was sent.
func (x *terminal) waitFor(pattern string) string {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if s := x.text(); re.MatchString(s) {
			return s
		}
		if time.Now().After(end) {
			x.t.Fatalf("no %q came, only:\n%q", pattern, x.text())
		}
	}
}

// end waits for the end, and returns what stands on the screen then.
func (x *terminal) end(code int) string {
	x.t.Helper()
	<-x.read
	_ = x.cmd.Wait() // the code is what counts
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("exit code %d, want %d", got, code)
	}
	return screen(x.text())
}

var sequence = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

// screen returns what a terminal of any width shows after it was sent s: of each
// line, what was written since it was last cleared or begun anew.
func screen(s string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r\n", "\n"), "\n") {
		shown := ""
		for part := range strings.SplitSeq(line, "\r") {
			if i := strings.LastIndex(part, "\x1b[2K"); i >= 0 {
				shown, part = "", part[i+4:]
			}
			switch clean := sequence.ReplaceAllString(part, ""); {
			case strings.HasPrefix(part, "\x1b[K"), len(clean) >= len(shown):
				shown = clean
			case strings.HasSuffix(part, "\x1b[K"):
				shown = clean
			case clean != "":
				shown = clean + shown[len(clean):]
			}
		}
		lines = append(lines, strings.TrimRight(shown, " "))
	}
	return strings.Join(lines, "\n")
}

// widest returns how many columns the widest of the texts takes that something was
// written over: in a narrower terminal they would have left traces.
func widest(s string) (cols int, text string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\r\n", "\n"), "\n") {
		parts := strings.Split(line, "\r")
		for _, p := range parts[:len(parts)-1] {
			p = sequence.ReplaceAllString(p, "")
			if n := uniseg.StringWidth(p); n > cols {
				cols, text = n, p
			}
		}
	}
	return cols, text
}

// A get in a terminal shows one bar with all that one wants to know, and leaves
// lines that stay.
func TestTerminalGet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 3<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	x := newTerminal(t, dir, 100, nil, "get", "data.shoal", "out", "--peer", addr, "--limit-down", "1M")
	x.waitFor(`\[=*>? *\] .*B of 3\.1 MB, .*B/s, .* left, 1 peer \(this machine\)`)
	shown := x.end(0)
	for _, want := range []string{`(?m)^getting "data" \(3\.1 MB\); .* free$`, `(?m)^got out/data: 3\.1 MB in .*/s\)$`, `(?m)^ +3\.1 MB from 127\.0\.0\.1:\d+ \(this machine, .*/s\)$`} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("no %s on the screen:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "[=") || strings.Contains(shown, " left") {
		t.Errorf("the screen at the end:\n%s", shown)
	}
	if n, text := widest(x.text()); n > 100 {
		t.Errorf("%d columns of 100: %q", n, text)
	}
}

// Whatever the terminal is like, nothing is left on it that does not belong there.
func TestTerminalKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		cols    int
		env     []string
		never   string // what must not come
		without bool   // a bar
	}{
		{"narrow", 20, nil, "\x1b\\[[0-9;]*m", false},
		{"very narrow", 5, nil, "\x1b\\[[0-9;]*m", false},
		{"dumb", 80, []string{"TERM=dumb"}, "\x1b|\r[^\n]", true},
		{"no colour", 80, []string{"NO_COLOR=1"}, "\x1b\\[[0-9;]*m", false},
		{"quiet", 80, []string{"SHOAL_QUIET=1"}, "\x1b|[a-z]", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data, m := shareFile(t, dir, 2<<20)
			addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
			x := newTerminal(t, dir, tt.cols, tt.env, "get", "data.shoal", "out", "--peer", addr, "--limit-down", "1M")
			x.end(0)
			all := x.text()
			if s := regexp.MustCompile(tt.never).FindString(all); s != "" {
				t.Errorf("%q came, in %q", s, all)
			}
			if n, text := widest(all); n > tt.cols {
				t.Errorf("%d columns of %d: %q", n, tt.cols, text)
			}
			if bar := strings.Contains(all, "% ["); bar == tt.without && tt.cols > 10 {
				t.Errorf("a bar: %v, in %q", bar, all)
			}
		})
	}
}

// A window that becomes smaller while a get runs: what comes then fits into it.
func TestTerminalResize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 6<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	x := newTerminal(t, dir, 120, nil, "get", "data.shoal", "out", "--peer", addr, "--limit-down", "1M")
	before := x.waitFor(`left, 1 peer`)
	must(t, pty.Setsize(x.tty, &pty.Winsize{Rows: 24, Cols: 40}))
	// One text may have been on its way.
	settled := len(x.waitFor(regexp.QuoteMeta(before) + `[^\r]*\r[^\r]*\r[^\r]*\r[^\r]*\r`))
	x.end(0)
	if n, text := widest(x.text()[settled:]); n > 40 {
		t.Errorf("%d columns of 40: %q", n, text)
	}
}

// A share in a terminal prints the line to type on the other side, shows who
// fetches, and at Ctrl-C what it has sent.
func TestTerminalShare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shareFile(t, dir, 3<<20)
	x := newTerminal(t, dir, 100, nil, "share", "data", "--listen", "127.0.0.1:0", "--limit-up", "1M")
	all := x.waitFor(`shoal get shoal:\w+\r\n`)
	line := strings.TrimSpace(all[strings.Index(all, "shoal get shoal:"):])
	line, _, _ = strings.Cut(line, "\r")
	if !strings.Contains(all, "on the other machine:\r\n") {
		t.Errorf("it said %q", all)
	}
	ticket, err := manifest.ParseTicket(strings.TrimPrefix(line, "shoal get "))
	must(t, err)
	x.waitFor(`nobody has fetched anything yet`)
	get := start(t, filepath.Join(dir, ".home2"), "get", "--json", "--quiet", ticket.String(), filepath.Join(dir, "out"))
	x.waitFor(`127\.0\.0\.1:\d+ fetches \(this machine\)`)
	x.waitFor(`1 receiver, sent 0\.\d\d × its size, 127\.0\.0\.1:\d+ \d+ % [\d.]+ [kM]?B/s`)
	if get.wait("finished") == nil {
		t.Fatal("get ended")
	}
	x.waitFor(`127\.0\.0\.1:\d+ has ended: sent 3\.1 MB to it, 100 % \(.*/s\)`)
	_, err = x.tty.WriteString("\x03")
	must(t, err)
	shown := x.end(0)
	if !strings.HasSuffix(strings.TrimSpace(shown), "ended; sent 1.00 × its size to 1 receiver (3.1 MB)") {
		t.Errorf("the screen at the end:\n%s", shown)
	}
	if strings.Contains(shown, "nobody") {
		t.Errorf("the last line was left:\n%s", shown)
	}
}

// Where standard output is no terminal it has the ticket alone, and so it has
// with --quiet where it is one.
func TestTicketAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shareFile(t, dir, 1000)
	x := newTerminal(t, dir, 100, nil, "share", "data", "--listen", "127.0.0.1:0", "--quiet")
	all := x.waitFor(`\r\n`)
	if _, err := manifest.ParseTicket(strings.TrimSuffix(all, "\r\n")); err != nil {
		t.Errorf("it printed %q: %v", all, err)
	}
	_, err := x.tty.WriteString("\x03")
	must(t, err)
	x.end(0)
}

// In tmux, which is a terminal that somebody else has written, there is one bar,
// also after the window was made smaller.
func TestTmux(t *testing.T) {
	t.Parallel()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		skip(t, "needs tmux")
	}
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	exe, err := exec.LookPath("shoal")
	must(t, err)
	run := func(args ...string) string { return tmuxRun(t, tmux, dir, args...) }
	line := quoteLine([]string{exe, "get", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr, "--limit-down", "1M"})
	run("new-session", "-d", "-x", "80", "-y", "15", line+"; exec cat")
	defer run("kill-server")
	pane := func(pattern string) string { return tmuxPane(t, run, pattern) }
	shown := pane(`(?m)^ *\d+% \[=+> *\] .*left.*$`)
	if strings.Count(shown, "[=") != 1 || strings.Count(strings.TrimSpace(shown), "\n") != 1 {
		t.Errorf("the pane:\n%s", shown)
	}
	run("resize-window", "-x", "40", "-y", "15")
	shown = pane(`(?m)^ +8\.4 MB from 127`)
	// The bar that was there when the window shrank is broken into two lines by tmux.
	if strings.Count(shown, "% [") > 1 || !strings.Contains(shown, "got ") {
		t.Errorf("the pane at the end:\n%s", shown)
	}
}

// tmuxRun runs one command of the tmux whose socket is in dir.
func tmuxRun(t testing.TB, tmux, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tmux, append([]string{"-S", filepath.Join(dir, "socket"), "-f", "/dev/null"}, args...)...)
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %q: %v %s", args, err, out)
	}
	return string(out)
}

// tmuxPane waits until what the pane shows matches, and returns it.
func tmuxPane(t testing.TB, run func(args ...string) string, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s := run("capture-pane", "-p")
		if re.MatchString(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in the pane:\n%s", pattern, s)
		}
	}
}

// The ^C that the terminal writes makes no line of its own, and is gone with the
// bar, or without one, when shoal says that it was interrupted.
func TestTmuxCtrlC(t *testing.T) {
	t.Parallel()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		skip(t, "needs tmux")
	}
	exe, err := exec.LookPath("shoal")
	must(t, err)
	for _, tt := range []struct {
		name, ready string
		args        []string
	}{
		{"bar", `(?m)^ *\d+% \[=+> *\] .*left`, []string{"--limit-down", "1M"}},
		{"no bar", `(?m)^serving it at port`, []string{"--seed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data, m := shareFile(t, dir, 8<<20)
			addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
			run := func(args ...string) string { return tmuxRun(t, tmux, dir, args...) }
			line := quoteLine(append([]string{exe, "get", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr}, tt.args...))
			run("new-session", "-d", "-x", "80", "-y", "25", "trap : INT; "+line+"; echo over; exec cat")
			defer run("kill-server")
			tmuxPane(t, run, tt.ready)
			run("send-keys", "C-c")
			shown := tmuxPane(t, run, `(?m)^over$`)
			if strings.Contains(shown, "[=") || strings.Contains(shown, "^") {
				t.Errorf("the pane:\n%s", shown)
			}
		})
	}
}
