package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	return startCommand(t, cmd, home)
}

// startCommand starts a command that runs shoal.
func startCommand(t testing.TB, cmd *exec.Cmd, home string) *process {
	t.Helper()
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

// TestC01Kills fetches the Go toolchain's own tree and a large file from three
// processes at once. The receiver is killed at random moments, and started again
// with the same line. Nothing may be lost, and a kill may cost at most 1 % of the
// share. The same task is given again until there were as many kills as there
// should be: SHOAL_TEST_KILLS, or a few. With SHOAL_SOAK=1 there are 1,000, some ten for
// each 3 GiB, and at most 1 % of all that was moved may be moved twice.
func TestC01Kills(t *testing.T) {
	if testing.Short() {
		t.Skip("moves a gigabyte or two")
	}
	dir := t.TempDir()
	big, size, kills, perRound := filepath.Join(dir, "big.bin"), int64(256<<20), 12, 8
	soak := os.Getenv("SHOAL_SOAK") != ""
	if soak {
		size, kills, perRound = 3<<30, 1000, 10
	}
	if n := os.Getenv("SHOAL_TEST_KILLS"); n != "" {
		var err error
		kills, err = strconv.Atoi(n)
		must(t, err)
	}
	f, err := os.Create(big)
	must(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	must(t, err)
	must(t, f.Close())
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	tree := strings.TrimSpace(string(out))

	home := filepath.Join(dir, "seeds")
	var seeds []*process
	var addrs []string
	var ticket string
	for range 3 {
		s := start(t, home, "share", "--json", "--quiet", "--name", "both", "--listen", "127.0.0.1:0", tree, big)
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
	m, _, err := manifest.Build(t.Context(), []string{tree, big}, manifest.BuildOptions{Name: "both"})
	must(t, err)
	if m.Root() != manifestRoot(t, ticket) {
		t.Fatal("the source has changed meanwhile")
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var (
		began   = time.Now()
		killed  int
		rounds  int
		midway  int // kills after which there was something to resume
		slowest time.Duration
		calm    time.Duration // what one get takes on its own
		most    time.Duration // before a kill
		done    float64

		baseline float64 // bytes of the get that is not killed
	)
	for killed < kills {
		dest := filepath.Join(dir, fmt.Sprint("dest", rounds))
		line := append([]string{"get", "--json", "--quiet", "--listen", "127.0.0.1:0", ticket, dest}, addrs...)
		least := 0.0 // bytes that were there before
		since, before := time.Now(), killed
		for {
			started := time.Now()
			p := start(t, filepath.Join(dir, "home"), line...)
			// Most are killed at a random moment after chunks have begun to
			// arrive, some at any, such as while the files are being made.
			var timer *time.Timer
			kill := func() {
				if rounds > 0 && killed < kills && timer == nil {
					wait := time.Duration(rnd.Float64() * float64(most))
					timer = time.AfterFunc(wait, func() { _ = p.cmd.Process.Kill() })
				}
			}
			if rnd.IntN(5) == 0 {
				kill()
			}
			fin := false
			for e := range p.events {
				switch e["event"] {
				case "resumed":
					kill()
					midway++
					slowest = max(slowest, time.Since(started))
					if kept := e["kept"].(float64); kept < least {
						t.Fatalf("round %d: kept %.0f bytes; %.0f were there before", rounds, kept, least)
					}
					least = e["kept"].(float64)
				case "progress":
					if e["total"].(float64) > 0 {
						kill()
					}
					least = max(least, e["done"].(float64))
				case "finished":
					fin = true
					if rounds == 0 {
						calm = time.Since(started)
						baseline = e["received"].(float64)
					}
				}
			}
			if timer != nil {
				timer.Stop()
			}
			err := p.cmd.Wait()
			if err == nil {
				break
			}
			if x, ok := err.(*exec.ExitError); !ok || x.ExitCode() != -1 {
				t.Fatalf("round %d: the receiver ended with %v", rounds, err)
			}
			killed++
			if fin {
				break // between its last word and its end
			}
		}
		must(t, compareTrees(t.Context(), big, filepath.Join(dest, "both", "big.bin")))
		must(t, compareTrees(t.Context(), tree, filepath.Join(dest, "both", filepath.Base(tree))))
		left, err := filepath.Glob(filepath.Join(dest, "*"))
		must(t, err)
		if len(left) != 1 {
			t.Errorf("left behind: %q", left)
		}
		must(t, os.RemoveAll(dest))
		done += float64(m.Size())
		rounds++
		// The machine may have other work now than it had before.
		if soak || killed == before {
			most = max(time.Since(since)*2/time.Duration(perRound), 300*time.Millisecond)
		}
	}
	elapsed := time.Since(began)

	sent := 0.0
	for _, s := range seeds {
		must(t, s.cmd.Process.Signal(syscall.SIGTERM))
		if e := s.wait("summary"); e != nil {
			sent += e["sent"].(float64)
		}
		must(t, s.cmd.Wait())
	}
	done -= float64(m.Size())
	twice := sent - baseline - done
	t.Logf("%.0f MB from three peers in %v; then %d times in %v with %d kills, %d of them midway; sent twice: %.2f %%, %.2f MB a kill; slowest resume %v",
		float64(m.Size())/1e6, calm.Round(time.Millisecond), rounds-1, (elapsed - calm).Round(time.Millisecond), killed, midway,
		100*twice/done, twice/1e6/float64(kills), slowest.Round(time.Millisecond))
	// What the seeds have sent counts, down to what was still in their sockets.
	// That is a matter of the peers' windows, not of the share's size.
	if limit := 0.01 * float64(m.Size()); twice > float64(kills)*limit || soak && twice > limit*max(1, done/float64(m.Size())) {
		t.Errorf("%.2f MB were sent twice, %.2f %%", twice/1e6, 100*twice/done)
	}
	if midway < kills/2 {
		t.Errorf("only %d of %d kills came midway", midway, killed)
	}
}

func manifestRoot(t testing.TB, ticket string) any {
	t.Helper()
	tk, err := manifest.ParseTicket(ticket)
	must(t, err)
	return tk.Root
}
