package main

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Two gets at once, one from a seed with a limit, one with a limit of its own,
// keep to it. Nothing makes them faster than that; a busy machine may make them
// slower, so there are several tries. What the limits are exactly is for the
// tests of package transfer, in a time that is not real.
func TestLimits(t *testing.T) {
	const rate, size = 1 << 20, 6 << 20
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "data"), noise(size), 0o644))
	share := func(args ...string) string {
		s := start(t, t.TempDir(), append([]string{"share", "--json", "--quiet", "--listen", "127.0.0.1:0", filepath.Join(dir, "data")}, args...)...)
		e := s.wait("ticket")
		if e == nil {
			t.Fatal("no ticket")
		}
		return e["ticket"].(string)
	}
	slow, fast := share("--limit-up", "1M"), share()
	get := func(home, ticket string, args ...string) (rel float64) {
		p := start(t, home, append([]string{"get", "--json", "--quiet", ticket, home}, args...)...)
		e := p.wait("finished")
		if e == nil {
			return 0
		}
		return size / e["seconds"].(float64) / rate
	}
	var up, down float64
	for range 4 {
		a, b := t.TempDir(), t.TempDir()
		var wg sync.WaitGroup
		wg.Go(func() { up = max(up, get(a, slow)) })
		wg.Go(func() { down = max(down, get(b, fast, "--limit-down", "1M")) })
		wg.Wait()
		if up > 1.1 || down > 1.1 || min(up, down) > 0.9 {
			break
		}
	}
	if up < 0.9 || up > 1.1 || down < 0.9 || down > 1.1 {
		t.Errorf("of what the limit lets pass: up %.3f, down %.3f", up, down)
	}
}

// A get gives up its hope for a first peer after --timeout, and for more after
// --stall-timeout, each with its code.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}
	began := time.Now()
	if code, msg := shoal(t, dir, "get", "-q", "data.shoal", "a", "--peer", half.listen(t), "--timeout", "1h", "--stall-timeout", "1s"); code != codeStalled {
		t.Errorf("half a seed: code %d, %s", code, msg)
	}
	if code, msg := shoal(t, dir, "get", "-q", "data.shoal", "b", "--peer", "127.0.0.1:1", "--timeout", "1s", "--stall-timeout", "1h"); code != codeNoPeer {
		t.Errorf("no peer: code %d, %s", code, msg)
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("it took %v", d)
	}
}

// A get with --max-peers 1 fetches from one of two seeds.
func TestMaxPeers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	a, b := &fakeSeed{m: m, data: data, chunks: m.NumChunks()}, &fakeSeed{m: m, data: data, chunks: m.NumChunks()}
	p := start(t, filepath.Join(dir, ".home"), "get", "--json", "-q", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", a.listen(t), "--peer", b.listen(t), "--max-peers", "1")
	e := p.wait("finished")
	if e == nil {
		t.Fatal("it failed")
	}
	used := 0
	for _, p := range e["peers"].([]any) {
		if p.(map[string]any)["used"].(float64) > 0 {
			used++
		}
	}
	if used != 1 {
		t.Errorf("chunks of %d peers were used", used)
	}
}
