package main

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A process is a shoal that prints JSON lines.
type process struct {
	cmd    *exec.Cmd
	events chan map[string]any
}

// start runs shoal as a process of its own; the test binary is the program.
func start(t testing.TB, home string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Args[0] = "shoal" // see TestMain
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+home)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &process{cmd: cmd, events: make(chan map[string]any, 100_000)}
	go p.read(out)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended long ago, if all went well
		_ = cmd.Wait()
	})
	return p
}

func (p *process) read(out io.Reader) {
	defer close(p.events)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e map[string]any
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			p.events <- e
		}
	}
}

// wait returns the next event of a kind, or nil if the process ends before.
func (p *process) wait(kind string) map[string]any {
	for e := range p.events {
		if e["event"] == kind {
			return e
		}
	}
	return nil
}

// TestKill fetches the Go toolchain's own tree and a large file from three
// processes at once. The receiver is killed at 30 random moments. Nothing may be
// lost, and at most 1 % may be sent twice. SHOAL_SOAK=1 makes the file 2 GiB.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("moves half a gigabyte")
	}
	dir := t.TempDir()
	big, size := filepath.Join(dir, "big.bin"), int64(256<<20)
	if os.Getenv("SHOAL_SOAK") != "" {
		size = 2 << 30
	}
	f, err := os.Create(big)
	must(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	must(t, err)
	must(t, f.Close())
	tree := runtime.GOROOT()
	if tree == "" {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		must(t, err)
		tree = strings.TrimSpace(string(out))
	}

	home := filepath.Join(dir, "seeds")
	var seeds []*process
	var addrs []string
	var ticket string
	for range 3 {
		s := start(t, home, "share", "--json", "--name", "both", "--listen", "127.0.0.1:0", tree, big)
		e := s.wait("ticket")
		if e == nil {
			t.Fatal("a seed ended before it had a ticket")
		}
		seeds = append(seeds, s)
		addrs = append(addrs, "--peer", e["listen"].(string))
		if ticket != "" && manifestRoot(t, ticket) != manifestRoot(t, e["ticket"].(string)) {
			t.Fatal("the same tree gave two roots")
		}
		ticket = e["ticket"].(string)
	}

	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	dest := filepath.Join(dir, "dest")
	line := append([]string{"get", "--json", ticket, dest}, addrs...)
	const kills = 30
	var total, done float64
	var slowest time.Duration
	began := time.Now()
	for k := range kills {
		began := time.Now()
		p := start(t, filepath.Join(dir, "home"), line...)
		if k > 0 {
			r := p.wait("resumed")
			if r == nil {
				t.Fatalf("run %d: it did not resume", k)
			}
			slowest = max(slowest, time.Since(began))
			if kept := r["kept"].(float64); kept < done {
				t.Fatalf("run %d: kept %.0f bytes, %.0f were written before", k, kept, done)
			}
		}
		// Kill it when it has got on by a random part of what is left for the
		// runs that are to come.
		goal := -1.0
		for e := range p.events {
			if e["event"] != "progress" {
				continue
			}
			total, done = e["total"].(float64), e["done"].(float64)
			if total == 0 {
				continue
			}
			if goal < 0 {
				goal = done + rnd.Float64()*2*(total-done)/float64(kills+2-k)
			}
			if done >= goal {
				break
			}
		}
		time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		must(t, p.cmd.Process.Kill())
		_ = p.cmd.Wait() // killed
	}
	last := start(t, filepath.Join(dir, "home"), line...)
	fin := last.wait("finished")
	if fin == nil {
		t.Fatal("the last run did not finish")
	}
	must(t, last.cmd.Wait())
	elapsed := time.Since(began)

	sent := 0.0
	for _, s := range seeds {
		must(t, s.cmd.Process.Signal(syscall.SIGTERM))
		if e := s.wait("summary"); e != nil {
			sent += e["sent"].(float64)
		}
		must(t, s.cmd.Wait())
	}
	share := fin["size"].(float64)
	twice := sent/share - 1
	t.Logf("%.0f MB in %v with %d kills; sent %.0f MB, %.2f %% of it twice; slowest resume %v",
		share/1e6, elapsed.Round(time.Millisecond), kills, sent/1e6, 100*twice, slowest.Round(time.Millisecond))
	if twice > 0.01 {
		t.Errorf("%.2f %% of the bytes were sent twice; the limit is 1 %%", 100*twice)
	}
	m, _, err := manifest.Build(t.Context(), []string{tree, big}, manifest.BuildOptions{Name: "both"})
	must(t, err)
	if m.Root() != manifestRoot(t, ticket) {
		t.Fatal("the source has changed meanwhile")
	}
	got, _, err := manifest.Build(t.Context(), []string{filepath.Join(dest, "both")}, manifest.BuildOptions{})
	must(t, err)
	if got.Root() != m.Root() {
		must(t, manifest.Verify(t.Context(), m, nil, filepath.Join(dest, "both"), func(d manifest.Difference) { t.Error(d) }))
		t.Error("the tree that came differs from the one that was shared")
	}
}

func manifestRoot(t testing.TB, ticket string) any {
	t.Helper()
	tk, err := manifest.ParseTicket(ticket)
	must(t, err)
	return tk.Root
}
