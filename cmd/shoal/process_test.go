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
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer"
)

// skip skips a test that lacks something; in CI, which has everything, it fails.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("SHOAL_CI") != "" {
		t.Fatalf("in CI this must run: "+format, args...)
	}
	t.Skipf(format, args...)
}

// noise returns n bytes that are the same every time.
func noise(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}

// shoal runs the program and returns its exit code and what it wrote to stderr.
func shoal(t testing.TB, dir string, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "shoal", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	var buf bytes.Buffer
	cmd.Stderr = &buf
	err := cmd.Run()
	var x *exec.ExitError
	if err != nil && !errors.As(err, &x) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), buf.String()
}

// shareFile makes a file of n bytes in dir, and its manifest.
func shareFile(t testing.TB, dir string, n int) (data []byte, m *manifest.Manifest) {
	t.Helper()
	data = noise(n)
	must(t, os.WriteFile(filepath.Join(dir, "data"), data, 0o644))
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "data")}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "data.shoal"), []byte(m.Text()), 0o644))
	return data, m
}

// Ctrl-C, SIGTERM and SIGHUP end a get within a second, with the shell's code
// for the signal and the exact line that resumes; that line then does.
func TestC07Signals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such signals")
	}
	for _, tt := range []struct {
		sig  os.Signal
		code int
	}{{os.Interrupt, 130}, {syscall.SIGTERM, 143}, {syscall.SIGHUP, 129}} {
		t.Run(tt.sig.String(), func(t *testing.T) {
			dir := t.TempDir()
			data, m := shareFile(t, dir, 4<<20)
			half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2} // gives no more
			addr := half.listen(t)

			args := []string{"get", "data.shoal", "to here", "--json", "--peer", addr}
			cmd := exec.CommandContext(t.Context(), "shoal", args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			p := &process{cmd: cmd, events: make(chan map[string]any, 1000)}
			go p.read(out)
			for {
				e := p.wait("progress")
				if e == nil {
					t.Fatalf("it ended: %s", stderr.String())
				}
				if e["done"].(float64) >= float64(len(data)/2) {
					break
				}
			}
			began := time.Now()
			must(t, cmd.Process.Signal(tt.sig))
			for range p.events { // until it ends
			}
			_ = cmd.Wait()
			if d := time.Since(began); d > time.Second {
				t.Errorf("it took %v to end", d)
			}
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			line := regexp.MustCompile(` at 50 %, 2\.1 MB kept; to go on: (.*shoal get data\.shoal 'to here' --json --peer .*)\n$`).FindStringSubmatch(stderr.String())
			if line == nil {
				t.Fatalf("it said %q", stderr.String())
			}

			whole := &fakeSeed{m: m, data: data, chunks: m.NumChunks()}
			again := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(line[1], addr, whole.listen(t), 1))
			again.Dir, again.Env = cmd.Dir, cmd.Env
			msg, err := again.CombinedOutput()
			if err != nil || !strings.Contains(string(msg), "resumed at 50 %, 2.1 MB kept") {
				t.Fatalf("resuming: %v\n%s", err, msg)
			}
			got, err := os.ReadFile(filepath.Join(dir, "to here", "data"))
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Error("the file is not right")
			}
		})
	}
}

// resume finds interrupted gets in a folder and on the list of status, and goes
// on with them.
func TestResumeCommand(t *testing.T) {
	dir := t.TempDir()
	data, m := shareFile(t, dir, 4<<20)
	half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}
	for _, to := range []string{"one", "two"} {
		if code, msg := shoal(t, dir, "get", "data.shoal", to, "--peer", half.listen(t), "--stall-timeout", "2s"); code != 10 {
			t.Fatalf("a get from half a seed: code %d, %s", code, msg)
		}
	}
	status := func() string {
		cmd := exec.CommandContext(t.Context(), "shoal", "status", "-q")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
		out, err := cmd.Output()
		must(t, err)
		return string(out)
	}
	if got := status(); strings.Count(got, " 50 %  2.1 MB of 4.2 MB") != 2 || !strings.Contains(got, filepath.Join("one", "data")) {
		t.Errorf("status printed %q", got)
	}
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	for _, args := range [][]string{{"resume", "two", "--peer", addr}, {"resume", "--peer", addr}} {
		if code, msg := shoal(t, dir, args...); code != 0 || strings.Count(msg, "resumed at 50 %") != 1 {
			t.Fatalf("%q: code %d, %s", args, code, msg)
		}
	}
	for _, to := range []string{"one", "two"} {
		if got, err := os.ReadFile(filepath.Join(dir, to, "data")); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %v", to, err)
		}
	}
	if got := status(); got != "" {
		t.Errorf("status printed %q at the end", got)
	}
	if code, msg := shoal(t, dir, "resume"); code != 0 || !strings.Contains(msg, "nothing to resume") {
		t.Errorf("nothing left: code %d, %s", code, msg)
	}
}

// Two gets into one place: the second says that the first is at work.
func TestE13TwoGetsIntoOnePlace(t *testing.T) {
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: 1}).listen(t)
	first := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr)
	if first.wait("progress") == nil {
		t.Fatal("the first one ended")
	}
	code, msg := shoal(t, dir, "get", "-q", "data.shoal", "out", "--peer", addr)
	host, err := os.Hostname()
	must(t, err)
	holder := fmt.Sprintf("already being fetched by process %d on %s", first.cmd.Process.Pid, host)
	if code != codeRunning || !strings.Contains(msg, holder) || strings.Count(msg, "\n") != 1 {
		t.Errorf("code %d, %q", code, msg)
	}
}

// One of three peers sends a wrong byte. It is dropped and named, and the file
// is right.
func TestWrongByte(t *testing.T) {
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	liar := &fakeSeed{m: m, data: data, chunks: m.NumChunks(), wrong: true}
	line := []string{"get", "data.shoal", "out"}
	var lies string
	for _, s := range []*fakeSeed{{m: m, data: data, chunks: m.NumChunks()}, {m: m, data: data, chunks: m.NumChunks()}, liar} {
		lies = s.listen(t)
		line = append(line, "--peer", lies)
	}
	code, msg := shoal(t, dir, line...)
	if code != 0 || !strings.Contains(msg, "warning: "+lies+" sent wrong bytes and is not asked again") {
		t.Errorf("code %d, %s", code, msg)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out", "data")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file is not right: %v", err)
	}

	// With nobody else there is nothing to be had.
	code, msg = shoal(t, dir, "get", "-q", "data.shoal", "alone", "--listen", "off", "--stall-timeout", "20s", "--peer", liar.listen(t))
	if code != codeIntegrity || !strings.Contains(msg, "wrong bytes from 127.0.0.1") {
		t.Errorf("alone: code %d, %s", code, msg)
	}
	if _, err := os.Stat(filepath.Join(dir, "alone", "data")); err == nil {
		t.Error("alone: it made the file")
	}
}

// A source that changes while it is shared is never sent.
func TestSourceChanges(t *testing.T) {
	dir := t.TempDir()
	shareFile(t, dir, 1<<20)
	s := start(t, filepath.Join(dir, ".home"), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
	e := s.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	must(t, os.WriteFile(filepath.Join(dir, "data"), []byte("something else"), 0o644))
	code, msg := shoal(t, dir, "get", "-q", e["ticket"].(string), "out", "--stall-timeout", "2s")
	if code != codeStalled || strings.Count(msg, "\n") != 1 {
		t.Errorf("code %d, %s", code, msg)
	}
	if _, err := os.Stat(filepath.Join(dir, "out", "data")); err == nil {
		t.Error("it made the file")
	}
}

// A full disk stops a get with the figures, and after some space was freed the
// same line finishes.
func TestD01RoomAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs tmpfs")
	}
	dir := t.TempDir()
	data, m := shareFile(t, dir, 3<<20)
	small := filepath.Join(dir, "small")
	must(t, os.Mkdir(small, 0o755))
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=4m", "none", small).CombinedOutput(); err != nil {
		skip(t, "mounting needs root: %v %s", err, out)
	}
	t.Cleanup(func() { must(t, exec.CommandContext(context.Background(), "umount", small).Run()) })
	must(t, os.WriteFile(filepath.Join(small, "fill"), make([]byte, 2<<20), 0o644))
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	line := []string{"get", "-q", "data.shoal", "small", "--peer", addr}
	code, msg := shoal(t, dir, line...)
	if code != codeDisk || !strings.Contains(msg, "no space: need ") || !strings.Contains(msg, "small") {
		t.Errorf("code %d, %s", code, msg)
	}
	must(t, os.Remove(filepath.Join(small, "fill")))
	if code, msg = shoal(t, dir, line...); code != 0 {
		t.Errorf("with space: code %d, %s", code, msg)
	}
	if got, err := os.ReadFile(filepath.Join(small, "data")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file is not right: %v", err)
	}
}

// Nobody reads standard output any more: a listing just ends, and a get stops
// as if it were interrupted.
func TestC07ClosedStdout(t *testing.T) {
	dir := t.TempDir()
	data, m := shareFile(t, dir, 4<<20)
	run := func(args ...string) (int, string) {
		r, w, err := os.Pipe()
		must(t, err)
		must(t, r.Close())
		cmd := exec.CommandContext(t.Context(), "shoal", args...)
		cmd.Dir, cmd.Stdout = dir, w
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run()
		must(t, w.Close())
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
	if code, msg := run("manifest", "show", "data.shoal"); code != 0 || msg != "" {
		t.Errorf("manifest show: code %d, %q", code, msg)
	}
	addr := (&fakeSeed{m: m, data: data, chunks: 2}).listen(t)
	if code, msg := run("get", "data.shoal", "-q", "--json", "--peer", addr); code != codeInterrupted || !strings.Contains(msg, "standard output was closed") {
		t.Errorf("get: code %d, %q", code, msg)
	}
}

// A fakeSeed is a peer that serves the first chunks of one file, rightly or not.
type fakeSeed struct {
	m      *manifest.Manifest
	data   []byte
	chunks int
	wrong  bool
	hold   func(i int) // is called before chunk i is sent; nil: nothing is

	count atomic.Int64 // chunks that were sent
}

// listen starts it and returns its address. It ends with the test.
func (s *fakeSeed) listen(t testing.TB) string {
	t.Helper()
	n, err := peer.NewNode(peer.Config{})
	must(t, err)
	at, err := n.Listen("127.0.0.1:0")
	must(t, err)
	stop := n.Accept(s.m.Root(), func(c *peer.Conn) {
		h := &fakeSession{s: s, c: c}
		have := chunk.NewBitfield(s.m.NumChunks())
		have.SetRange(0, s.chunks)
		_ = errors.Join(c.SendHaves(have), c.Flush(), c.Run(context.Background(), h)) // the test looks at the other side
	})
	t.Cleanup(func() {
		must(t, n.Close())
		stop()
	})
	return at.(*net.TCPAddr).String()
}

type fakeSession struct {
	s *fakeSeed
	c *peer.Conn
}

func (h *fakeSession) Want(rs []chunk.Range) error {
	for _, r := range rs {
		for i := r.First; i < r.First+r.N; i++ {
			if h.s.hold != nil {
				if err := h.c.Flush(); err != nil {
					return err
				}
				h.s.hold(i)
			}
			h.s.count.Add(1)
			p := bytes.Clone(h.s.data[h.s.m.ChunkOffset(i):h.s.m.ChunkOffset(i+1)])
			if h.s.wrong {
				p[len(p)/2] ^= 1
			}
			for off := 0; off < len(p); off += peer.MaxSegment {
				if err := h.c.SendData(i, off, p[off:min(len(p), off+peer.MaxSegment)]); err != nil {
					return err
				}
			}
		}
	}
	return h.c.Flush()
}

func (h *fakeSession) WantManifest() error {
	text := []byte(h.s.m.Text())
	err := h.c.SendManifest(int64(len(text)))
	for off := 0; off < len(text) && err == nil; off += peer.MaxSegment {
		err = h.c.SendData(-1, off, text[off:min(len(text), off+peer.MaxSegment)])
	}
	return errors.Join(err, h.c.Flush())
}

func (*fakeSession) HaveAll() error                        { return nil }
func (*fakeSession) Have([]chunk.Range) error              { return nil }
func (*fakeSession) Cancel([]chunk.Range) error            { return nil }
func (*fakeSession) Gone([]chunk.Range) error              { return nil }
func (*fakeSession) Manifest(int64) error                  { return errors.New("not asked for") }
func (*fakeSession) Segment(int, int, int) ([]byte, error) { return nil, errors.New("not asked for") }
func (*fakeSession) Received(int, int, int) error          { return nil }
func (*fakeSession) Peers([]string) error                  { return nil }
func (*fakeSession) Listening(int) error                   { return nil }
