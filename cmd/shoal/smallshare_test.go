package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// A smallShare is a tree with all kinds of entries, and a peer that gives it.
type smallShare struct {
	dir, tree, manifest, addr string
	m                         *manifest.Manifest
	seed                      *fakeSeed
}

// newSmallShare makes a tree of a few hundred KB.
func newSmallShare(t testing.TB) *smallShare {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the program many times")
	}
	return newSmallShareAt(t, t.TempDir())
}

// newSmallShareAt makes it in dir.
func newSmallShareAt(t testing.TB, dir string) *smallShare {
	t.Helper()
	s := &smallShare{dir: dir}
	s.tree, s.manifest = filepath.Join(s.dir, "tree"), filepath.Join(s.dir, "tree.shoal")
	data := noise(300_000)
	for _, f := range []struct {
		name string
		n    int
	}{{"a/empty", 0}, {"a/small", 5000}, {"b/large", 200_000}, {"z", 70_000}} {
		name := filepath.Join(s.tree, f.name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, data[:f.n], 0o644))
	}
	must(t, os.Mkdir(filepath.Join(s.tree, "hollow"), 0o755))
	must(t, os.Symlink("large", filepath.Join(s.tree, "b/link")))
	s.serve(t)
	return s
}

// serve makes the manifest of the tree, and starts a peer that has it.
func (s *smallShare) serve(t testing.TB) {
	t.Helper()
	m, src, err := manifest.Build(t.Context(), []string{s.tree}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(s.manifest, []byte(m.Text()), 0o644))
	s.m = m
	stream := make([]byte, 0, m.Size())
	for _, f := range src.Files {
		p, err := os.ReadFile(f.Path)
		must(t, err)
		stream = append(stream, p...)
	}
	s.seed = &fakeSeed{m: m, data: stream, chunks: m.NumChunks()}
	s.addr = s.seed.listen(t)
}

// get returns the command that fetches the share into dest, and what it says.
func (s *smallShare) get(dest string, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	stderr = &bytes.Buffer{}
	cmd = exec.Command("shoal", append([]string{"get", "-q", s.manifest, dest, "--listen", "off", "--peer", s.addr, "--stall-timeout", "60s"}, args...)...)
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, "homes", filepath.Base(dest)))
	cmd.Stderr = stderr
	return cmd, stderr
}

// again runs the get once more, undisturbed: it must end well.
func (s *smallShare) again(dest string) error {
	cmd, stderr := s.get(dest)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the same line again: %w: %s", err, stderr)
	}
	return compareTrees(context.Background(), s.tree, filepath.Join(dest, "tree"))
}

// half fetches the first half of the chunks into dest, and is killed then.
func (s *smallShare) half(t testing.TB, dest string) {
	t.Helper()
	half := &fakeSeed{m: s.m, data: s.seed.data, chunks: s.m.NumChunks() / 2}
	cmd, stderr := s.get(dest)
	cmd.Args[slices.Index(cmd.Args, s.addr)] = half.listen(t)
	must(t, cmd.Start())
	defer func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	s.waitForRecords(t, dest, half.chunks)
	if stderr.Len() > 0 {
		t.Fatalf("it said %s", stderr)
	}
}

// waitForRecords returns when the journal has n records.
func (s *smallShare) waitForRecords(t testing.TB, dest string, n int) {
	t.Helper()
	const header, record = 128, 32 // transfer/store/SPEC.md
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p, err := os.ReadFile(filepath.Join(dest, "tree"+manifest.PartSuffix, "journal"))
		if err == nil && len(p) >= header+n*record && p[header+(n-1)*record] != 0 {
			return
		}
	}
	t.Fatalf("the journal in %s has not got %d records within a minute", dest, n)
}

// holdBack lets the peer send one chunk and no more until open is called.
func (s *smallShare) holdBack(t testing.TB) (open func()) {
	gate, passed := make(chan struct{}), atomic.Bool{}
	s.seed.hold = func(int) {
		if passed.Swap(true) {
			<-gate
		}
	}
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	return open
}
