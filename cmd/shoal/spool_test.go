package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A lockedBuffer can be looked at while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until l holds text, and fails when that takes a minute.
func (l *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(l.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q did not come; there is %q", text, l.String())
		}
	}
}

// shareStdin starts "share -" with a pipe as its standard input.
func shareStdin(t *testing.T, home string, args ...string) (*process, io.WriteCloser, *lockedBuffer) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, append([]string{"share", "-", "--json", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Args[0] = "shoal"
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+home)
	errs := &lockedBuffer{}
	cmd.Stderr = errs
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, if all went well
		_ = cmd.Wait()
	})
	p := &process{cmd: cmd, events: make(chan map[string]any, 10_000)}
	go p.read(out)
	return p, in, errs
}

func spools(t *testing.T, home string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(home, "spool", "*", "*"))
	must(t, err)
	return dirs
}

// Standard input becomes a share of its own, with the name that it is given, and
// is gone when the share ends; what a killed share has left is gone at the next
// start, and what a running one holds is not.
func TestShareStdin(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	killed, in, said := shareStdin(t, home)
	_, err := in.Write(noise(100_000))
	must(t, err)
	said.await(t, "reading standard input")
	for end := time.Now().Add(time.Minute); len(spools(t, home)) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it keeps nothing: %v", spools(t, home))
		}
	}
	must(t, killed.cmd.Process.Kill())
	_ = killed.cmd.Wait()
	old := spools(t, home)
	if len(old) < 2 {
		t.Fatalf("the killed share has left %v", old)
	}

	first, in, said := shareStdin(t, home, "--name", "things.bin")
	data := noise(3_000_000)
	_, err = in.Write(data)
	must(t, err)
	must(t, in.Close())
	e := first.wait("ticket")
	if e == nil || e["name"] != "things.bin" {
		t.Fatalf("ticket: %v; %s", e, said.String())
	}
	for _, name := range old {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s of the killed share is there still", name)
		}
	}
	second, in, _ := shareStdin(t, home)
	must(t, in.Close())
	if e := second.wait("ticket"); e == nil || e["name"] != "stdin" || e["size"] != 0.0 {
		t.Fatalf("an empty one: %v", e)
	}
	dir := t.TempDir()
	if code, msg := shoal(t, dir, "get", e["ticket"].(string)); code != 0 {
		t.Fatalf("code %d, %s", code, msg)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "things.bin")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came: %v", len(got), err)
	}
	for _, p := range []*process{first, second} {
		must(t, p.cmd.Process.Signal(os.Interrupt))
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("share ended with %v", err)
		}
	}
	if left := spools(t, home); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Ctrl-C while standard input is being read ends at once and leaves nothing.
func TestShareStdinInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such signals")
	}
	t.Parallel()
	home := t.TempDir()
	p, in, said := shareStdin(t, home)
	defer in.Close()
	said.await(t, "reading standard input")
	must(t, p.cmd.Process.Signal(os.Interrupt))
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("code %d, %s", code, said.String())
	}
	if left := spools(t, home); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A disk that is full is an error that says so, and nothing is left on it.
func TestShareStdinD01Spool(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs tmpfs")
	}
	t.Parallel()
	home := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=1m", "none", home).CombinedOutput(); err != nil {
		skip(t, "mounting needs root: %v %s", err, out)
	}
	t.Cleanup(func() { must(t, exec.CommandContext(context.Background(), "umount", home).Run()) })
	p, in, said := shareStdin(t, home)
	_, _ = in.Write(noise(4 << 20)) // it fails when nobody reads any more
	_ = in.Close()
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != codeDisk || !strings.Contains(said.String(), "no space for what standard input holds") {
		t.Errorf("code %d, %s", code, said.String())
	}
	if left := spools(t, home); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A reader that goes away in the middle ends a get to standard output with 5; one
// that reads slowly gets all.
func TestStreamToStdout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	run := func(read func(io.Reader)) (int, string) {
		cmd := exec.CommandContext(t.Context(), "shoal", "get", "data.shoal", "-o", "-", "--peer", addr)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
		var errs bytes.Buffer
		cmd.Stderr = &errs
		r, w, err := os.Pipe()
		must(t, err)
		cmd.Stdout = w
		must(t, cmd.Start())
		must(t, w.Close())
		read(r)
		must(t, r.Close())
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode(), errs.String()
	}
	code, msg := run(func(r io.Reader) { _, _ = io.CopyN(io.Discard, r, 1<<20) })
	if code != codeInterrupted || !strings.Contains(msg, "the same line starts anew") {
		t.Errorf("code %d, %s", code, msg)
	}
	var got []byte
	code, msg = run(func(r io.Reader) { got, _ = io.ReadAll(&slowReader{r}) })
	if code != 0 || !bytes.Equal(got, data) {
		t.Errorf("code %d, %d bytes, %s", code, len(got), msg)
	}
}

type slowReader struct{ r io.Reader }

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.r.Read(p[:min(len(p), 64<<10)])
}
