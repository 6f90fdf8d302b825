package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Every exit code that README.md lists is what a real process ends with, with
// one line that says why.
func TestEachExitCode(t *testing.T) {
	tests := []struct {
		code int
		name string
		says string
		do   func(t *testing.T, dir string) (code int, msg string)
	}{
		{0, "done", "", func(t *testing.T, dir string) (int, string) { return shoal(t, dir, "ls", "data.shoal") }},
		{1, "other: the port is in use", "in use; choose another with --listen", func(t *testing.T, dir string) (int, string) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			return shoal(t, dir, "share", "data", "--listen", l.Addr().String())
		}},
		{2, "usage", "there is no flag --nonsense", func(t *testing.T, dir string) (int, string) { return shoal(t, dir, "get", "--nonsense") }},
		{3, "no such share", "no such share", func(t *testing.T, dir string) (int, string) {
			_, other := shareFile(t, t.TempDir(), 300)
			addr := (&fakeSeed{m: other, data: noise(300), chunks: 1}).listen(t)
			return shoal(t, dir, "get", "data.shoal", "out", "-q", "--peer", addr, "--timeout", "1s")
		}},
		{4, "no peer reachable", "127.0.0.1:1: ", func(t *testing.T, dir string) (int, string) {
			return shoal(t, dir, "get", "data.shoal", "out", "-q", "--peer", "127.0.0.1:1", "--timeout", "1s")
		}},
		{5, "interrupted: nobody reads the output", "standard output", func(t *testing.T, dir string) (int, string) {
			return closedOutput(t, dir, "get", "data.shoal", "out", "-q", "--json", "--peer", halfSeed(t, dir))
		}},
		{6, "integrity", `"data" differs from "data.shoal"`, func(t *testing.T, dir string) (int, string) {
			must(t, os.WriteFile(filepath.Join(dir, "data"), noise(1), 0o644))
			return shoal(t, dir, "verify", "data.shoal", "data")
		}},
		{7, "disk", "/dev/full", func(t *testing.T, dir string) (int, string) {
			if runtime.GOOS != "linux" {
				t.Skip("needs /dev/full")
			}
			return shoal(t, dir, "manifest", "create", "data", "-o", "/dev/full")
		}},
		{8, "refused", "-o PATH", func(t *testing.T, dir string) (int, string) {
			must(t, os.MkdirAll(filepath.Join(dir, "out", "data"), 0o755))
			return shoal(t, dir, "get", "data.shoal", "out", "-q", "--peer", "127.0.0.1:1")
		}},
		{9, "partly done", "1 file", func(t *testing.T, dir string) (int, string) {
			must(t, os.Mkdir(filepath.Join(dir, "tree"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "tree", "a"), []byte("a"), 0o644))
			must(t, os.MkdirAll(filepath.Join(dir, "out", "tree"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "out", "tree", "a"), []byte("mine"), 0o644))
			s := start(t, filepath.Join(dir, ".home"), "share", filepath.Join(dir, "tree"), "--json", "-q", "--listen", "127.0.0.1:0")
			e := s.wait("ticket")
			if e == nil {
				t.Fatal("no ticket")
			}
			return shoal(t, dir, "get", e["ticket"].(string), "out", "-q", "--skip", "--timeout", "1m")
		}},
		{10, "stalled", "offers nothing of what is missing", func(t *testing.T, dir string) (int, string) {
			return shoal(t, dir, "get", "data.shoal", "out", "-q", "--peer", halfSeed(t, dir), "--stall-timeout", "1s")
		}},
		{11, "already running", "already being fetched by", func(t *testing.T, dir string) (int, string) {
			addr := halfSeed(t, dir)
			first := start(t, filepath.Join(dir, ".home"), "get", "--json", "-q", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr)
			if first.wait("progress") == nil {
				t.Fatal("the first one ended")
			}
			return shoal(t, dir, "get", "data.shoal", "out", "-q", "--peer", addr)
		}},
		{129, "the terminal closed", "to go on: ", func(t *testing.T, dir string) (int, string) { return signalled(t, dir, syscall.SIGHUP) }},
		{130, "Ctrl-C", "to go on: ", func(t *testing.T, dir string) (int, string) { return signalled(t, dir, os.Interrupt) }},
		{143, "SIGTERM", "to go on: ", func(t *testing.T, dir string) (int, string) { return signalled(t, dir, syscall.SIGTERM) }},
	}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	must(t, err)
	_, list, _ := strings.Cut(string(readme), "### Exit codes\n")
	list, _, _ = strings.Cut(list, "\n#")
	for _, tt := range tests {
		if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, tt.code)).MatchString(list) {
			t.Errorf("README.md does not list %d", tt.code)
		}
		t.Run(fmt.Sprint(tt.code, " ", tt.name), func(t *testing.T) {
			t.Parallel()
			if tt.code > 128 && runtime.GOOS == "windows" {
				t.Skip("no such signals")
			}
			dir := t.TempDir()
			shareFile(t, dir, 1<<20)
			code, msg := tt.do(t, dir)
			if code != tt.code || !strings.Contains(msg, tt.says) {
				t.Errorf("code %d, %q", code, msg)
			}
			lines := strings.Split(strings.TrimSuffix(msg, "\n"), "\n")
			if last := lines[len(lines)-1]; code != 0 && !strings.HasPrefix(last, "shoal: ") {
				t.Errorf("the last line is %q", last)
			}
		})
	}
}

// halfSeed serves half of what shareFile has put into dir, and returns its address.
func halfSeed(t *testing.T, dir string) string {
	t.Helper()
	data, m := shareFile(t, dir, 1<<20)
	return (&fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}).listen(t)
}

// closedOutput runs the program with a standard output that nobody reads.
func closedOutput(t *testing.T, dir string, args ...string) (int, string) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	must(t, r.Close())
	defer w.Close()
	return shoalTo(t, dir, w, args...)
}

// shoalTo runs the program with a standard output.
func shoalTo(t *testing.T, dir string, out *os.File, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "shoal", args...)
	cmd.Dir, cmd.Stdout = dir, out
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	_ = cmd.Run() // the code says it
	return cmd.ProcessState.ExitCode(), errs.String()
}

// signalled ends a get that can go no further by a signal.
func signalled(t *testing.T, dir string, sig os.Signal) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "shoal", "get", "data.shoal", "out", "--json", "--peer", halfSeed(t, dir))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &process{cmd: cmd, events: make(chan map[string]any, 1000)}
	var reader sync.WaitGroup
	reader.Go(func() { p.read(out) })
	if p.wait("progress") == nil {
		t.Fatalf("it ended: %s", errs.String())
	}
	must(t, cmd.Process.Signal(sig))
	reader.Wait()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), errs.String()
}

// U03: what is no terminal, or not there at all, changes neither what is done
// nor what is said, and answers nothing.
func TestU03OddStreams(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX shell")
	}
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	sh := func(line string) (int, string) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"), "ADDR="+addr, "NO_COLOR=1", "COLUMNS=20")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for k, odd := range []string{"<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-", "</dev/null", "2>/dev/full"} {
		if strings.Contains(odd, "full") && runtime.GOOS != "linux" {
			continue
		}
		to := fmt.Sprint("out", k)
		code, msg := sh("shoal get data.shoal " + to + " --json --peer $ADDR " + odd)
		got, err := os.ReadFile(filepath.Join(dir, to, "data"))
		if code != 0 || err != nil || !bytes.Equal(got, data) || strings.ContainsAny(msg, "\x1b\r") {
			t.Errorf("%s: code %d, %v, %q", odd, code, err, msg)
		}
	}
	// Nobody is asked, so nobody answers.
	must(t, os.MkdirAll(filepath.Join(dir, "mine"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "mine", "data"), []byte("mine"), 0o644))
	code, msg := sh("yes | shoal get data.shoal mine --peer $ADDR")
	if got, err := os.ReadFile(filepath.Join(dir, "mine", "data")); code != codeRefused || err != nil || string(got) != "mine" {
		t.Errorf("yes: code %d, %q, %v, %q", code, got, err, msg)
	}
	if runtime.GOOS != "linux" {
		return
	}
	// An output that is full is an error; what a get has then is kept.
	for _, tt := range []struct {
		line string
		code int
		says string
	}{
		{"shoal version", codeDisk, "no space left"},
		{"shoal ls data.shoal", codeDisk, "no space left"},
		{"shoal ls data.shoal --json", codeDisk, "no space left"},
		{"shoal manifest show data.shoal", codeDisk, "no space left"},
		{"shoal share data -q --listen 127.0.0.1:0", codeDisk, "print the ticket"},
		{"shoal get data.shoal full -q --json --peer $ADDR", codeInterrupted, "to go on: "},
		{"shoal get data.shoal -o - -q --peer $ADDR", codeInterrupted, "the same line starts anew"},
	} {
		if code, msg := sh(tt.line + " >/dev/full"); code != tt.code || !strings.Contains(msg, tt.says) || strings.Count(msg, "\n") != 1 {
			t.Errorf("%s: code %d, %q", tt.line, code, msg)
		}
	}
}
