package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
)

// crashing is shoal, in which a goroutine crashes as soon as there is a file named
// crash-now; with CRASH_MAIN it is the main one, at once.
func crashing() {
	if os.Getenv("CRASH_MAIN") != "" {
		a := &app{args: os.Args, ui: newUI(os.Stdout, os.Stderr)}
		os.Exit(a.guard(func() int { panic("no such thing: " + os.Args[len(os.Args)-1]) }))
	}
	var c crew.Crew
	c.Go(func() {
		for {
			if _, err := os.Stat("crash-now"); err == nil {
				panic(errors.New("something\nis wrong with \x1b[31m shoal:abcdef"))
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	main()
}

// A crash leaves the line that goes on, a trace without the ticket, and code 1.
func TestCrashLeavesTheLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 4<<20)
	half := (&fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}).listen(t)
	ticket := manifest.Ticket{Root: m.Root(), Addrs: []string{half}}.String()
	cmd := exec.CommandContext(t.Context(), "crashing", "get", ticket, "--json")
	cmd.Dir = dir
	must(t, os.Mkdir(filepath.Join(dir, "in"), 0o755))
	cmd.Dir = filepath.Join(dir, "in")
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &process{cmd: cmd, events: make(chan map[string]any, 1000)}
	go p.read(out)
	for e := p.wait("progress"); e != nil && e["done"].(float64) < float64(len(data)/2); e = p.wait("progress") {
	}
	must(t, os.WriteFile(filepath.Join(cmd.Dir, "crash-now"), nil, 0o600))
	for range p.events { // until it ends
	}
	_ = cmd.Wait()
	msg := strings.TrimSpace(stderr.String())
	msg = msg[strings.LastIndexByte(msg, '\n')+1:]
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(msg, `shoal: a mistake in shoal: something; is wrong with \x1b[31m shoal:...; please report it with `) ||
		!strings.HasSuffix(msg, "; what came is kept; to go on: "+cmd.Path+" get "+ticket+" --json") && !strings.HasSuffix(msg, "; what came is kept; to go on: crashing get "+ticket+" --json") {
		t.Fatalf("code %d, %q", code, stderr.String())
	}
	traces, err := filepath.Glob(filepath.Join(dir, ".home", "crashes", "*"))
	must(t, err)
	if len(traces) != 1 {
		t.Fatalf("%d traces", len(traces))
	}
	trace, err := os.ReadFile(traces[0])
	must(t, err)
	if bytes.Contains(trace, []byte(ticket)) || bytes.Contains(trace, []byte(m.Root().String())) ||
		!bytes.Contains(trace, []byte("shoal.crashing.func")) ||
		bytes.Contains(trace, []byte(fmt.Sprintf("%#x, %#x, %#x", m.Root()[0], m.Root()[1], m.Root()[2]))) {
		t.Errorf("the trace: %s", trace)
	}
	whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	if code, msg := shoal(t, cmd.Dir, "get", ticket, "--peer", whole); code != 0 || !strings.Contains(msg, "resumed at 50 %") {
		t.Errorf("the same line: code %d, %s", code, msg)
	}
}

func TestCrashOfMain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range maxTraces + 3 {
		cmd := exec.CommandContext(t.Context(), "crashing", "get", "shoal:abcdef")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"), "CRASH_MAIN=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Count(stderr.String(), "\n") != 1 || !strings.HasPrefix(stderr.String(), "shoal: a mistake in shoal: no such thing: shoal:...; ") {
			t.Fatalf("code %d, %q", code, stderr.String())
		}
	}
	traces, err := os.ReadDir(filepath.Join(dir, ".home", "crashes"))
	must(t, err)
	if len(traces) != maxTraces {
		t.Errorf("%d traces are kept", len(traces))
	}
}
