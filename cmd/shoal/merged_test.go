package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
)

// A get into a folder that is there, ended by SIGKILL, goes on with the same line;
// what is not of the share stays as it is.
func TestMergeKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	must(t, os.MkdirAll(filepath.Join(tree, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "kept"), noise(1<<20), 0o644))
	data := noise(5 << 20)
	must(t, os.WriteFile(filepath.Join(tree, "sub", "new"), data[1<<20:], 0o644))
	m, _, err := manifest.Build(t.Context(), []string{tree}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tree.shoal"), []byte(m.Text()), 0o644))
	out := filepath.Join(dir, "out", "tree")
	must(t, os.MkdirAll(out, 0o755))
	for name, p := range map[string][]byte{"kept": noise(1 << 20), "mine": []byte("mine")} {
		must(t, os.WriteFile(filepath.Join(out, name), p, 0o600))
	}

	half := (&fakeSeed{m: m, data: data, chunks: m.NumChunks() * 3 / 5}).listen(t)
	p := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "tree.shoal"), filepath.Join(dir, "out"), "--peer", half)
	e := p.wait("progress")
	for e != nil && e["done"].(float64) < 1.5e6 {
		e = p.wait("progress")
	}
	if e == nil {
		t.Fatal("it ended")
	}
	must(t, p.cmd.Process.Kill())
	for range p.events { // until it is gone
	}
	if names, err := os.ReadDir(out); err != nil || len(names) != 2 {
		t.Errorf("something was placed before all was there: %v, %v", names, err)
	}
	whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	code, msg := shoal(t, dir, "get", "tree.shoal", "out", "--peer", whole)
	if code != 0 || !strings.Contains(msg, "resumed at ") || !strings.Contains(msg, "1 file stay") {
		t.Fatalf("code %d, %s", code, msg)
	}
	for name, want := range map[string]string{"kept": string(noise(1 << 20)), "mine": "mine", "sub/new": string(data[1<<20:])} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if fi, err := os.Stat(filepath.Join(out, "kept")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("a file that was kept was touched: %v, %v", fi.Mode(), err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
