package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A share says of a receiver how much it takes now: as much as it takes in all, and
// nothing once it is stopped.
func TestWhyOfAShare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := filepath.Join(dir, ".home")
	shareFile(t, dir, 8<<20)
	s := start(t, home, "share", "--json", "--quiet", "--no-lan", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
	ticket, _ := s.wait("ticket")["ticket"].(string)
	g := start(t, home, "get", "--json", "--quiet", "--no-lan", "--limit-down", "200K", ticket, filepath.Join(dir, "out"))
	ask := func() (w answer) {
		must(t, json.Unmarshal([]byte(output(t, dir, "why", strconv.Itoa(s.cmd.Process.Pid), "--json")), &w))
		return w
	}
	end := time.Now().Add(time.Minute)
	for w := ask(); len(w.Peers) == 0 || w.Rate == 0; w = ask() {
		if time.Now().After(end) {
			t.Fatalf("nothing is taken: %+v", w)
		}
	}
	for range 10 {
		w := ask()
		sum := 0.0
		for _, p := range w.Peers {
			sum += p.Out
		}
		if len(w.Peers) != 1 || math.Abs(sum-w.Rate) > 1 {
			t.Errorf("those who take %.0f bytes/s in all: %+v", w.Rate, w.Peers)
		}
	}
	must(t, g.cmd.Process.Signal(syscall.SIGSTOP))
	for w := ask(); w.Rate > 0 || len(w.Peers) != 1 || w.Peers[0].Out > 0 || w.Peers[0].Sent == 0; w = ask() {
		if time.Now().After(end) {
			t.Fatalf("one that is stopped: %+v", w)
		}
	}
	must(t, g.cmd.Process.Kill())
	must(t, s.cmd.Process.Signal(os.Interrupt))
	for _, p := range []*process{g, s} {
		for range p.events { // until it is gone
		}
		_ = p.cmd.Wait()
	}
}
