package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A stick that fills up ends pack with the code for the disk, and what it wrote
// is kept: the same line goes on once there is room.
func TestPackOntoFullStick(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, _ := shareFile(t, dir, 3<<20)
	stick := filepath.Join(dir, "stick")
	must(t, os.Mkdir(stick, 0o755))
	mountTmpfs(t, stick, "size=2m")
	line := []string{"pack", "data.shoal", "--from", ".", "-o", "stick/all.shoalpack", "--quiet"}
	code, msg := shoal(t, dir, line...)
	if code != 7 || !strings.Contains(msg, "no space for") || strings.Count(msg, "\n") != 1 {
		t.Fatalf("on a full stick: code %d, %s", code, msg)
	}
	if _, err := os.Lstat(filepath.Join(stick, "all.shoalpack")); err == nil {
		t.Error("half a pack has the name of a whole one")
	}
	remountTmpfs(t, stick, 0, "size=8m")
	code, msg = shoal(t, dir, "pack", "data.shoal", "--from", ".", "-o", "stick/all.shoalpack")
	if code != 0 || !strings.Contains(msg, "resumed at ") {
		t.Fatalf("with room: code %d, %s", code, msg)
	}
	if code, msg := shoal(t, dir, "get", "data.shoal", "to", "--from", "stick", "--listen", "off"); code != 0 {
		t.Fatalf("from the stick: code %d, %s", code, msg)
	}
	got, err := os.ReadFile(filepath.Join(dir, "to", "data"))
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("the file is not right")
	}
}

// A pack that is killed while it is written is gone on with by the same line.
func TestPackKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shareFile(t, dir, 16<<20)
	seed := start(t, filepath.Join(dir, "seedhome"), "share", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--limit-up", "4M", "--json", "--quiet")
	at := seed.wait("ticket")["listen"].(string)
	must(t, os.Mkdir(filepath.Join(dir, "stick"), 0o755))
	out := filepath.Join(dir, "stick", "all.shoalpack")
	args := []string{"pack", filepath.Join(dir, "data.shoal"), "--peer", at, "-o", out, "--json", "--quiet"}
	for round := range 3 {
		p := start(t, filepath.Join(dir, "home"), args...)
		for {
			e := p.wait("progress")
			if e == nil {
				t.Fatalf("round %d ended early", round)
			}
			if e["done"].(float64) >= float64((round+1)<<20) {
				break
			}
		}
		must(t, p.cmd.Process.Kill())
		for range p.events { // until it has ended
		}
	}
	last := start(t, filepath.Join(dir, "home"), args...)
	began := time.Now()
	e := last.wait("resumed")
	if e == nil || e["kept"].(float64) < 1<<20 {
		t.Fatalf("nothing was kept: %v", e)
	}
	if last.wait("packed") == nil {
		t.Fatalf("it did not finish in %v", time.Since(began))
	}
	if code, msg := shoal(t, dir, "get", "data.shoal", "to", "--from", "stick", "--listen", "off", "--quiet"); code != 0 {
		t.Fatalf("from the pack: code %d, %s", code, msg)
	}
}
