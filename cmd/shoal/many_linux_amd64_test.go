package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manyFiles adds n files of size bytes, 1,000 in a folder.
func (s *smallShare) manyFiles(t testing.TB, n, size int) {
	t.Helper()
	data := noise(size + n)
	for i := range n {
		dir := filepath.Join(s.tree, fmt.Sprint("many-", size), fmt.Sprint(i/1000))
		if i%1000 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data[i:i+size], 0o644))
	}
}

// manyShare is a small share in memory, since a disk that others use takes minutes
// for thousands of files; with SHOAL_SOAK=1 it is on the disk.
func manyShare(t testing.TB) *smallShare {
	t.Helper()
	if testing.Short() {
		t.Skip("makes thousands of files")
	}
	dir := t.TempDir()
	if os.Getenv("SHOAL_SOAK") == "" {
		dir = filepath.Join(dir, "memory")
		mountTmpfs(t, dir, "size=1g")
	}
	return newSmallShareAt(t, dir)
}

// TestR02FewDescriptors lets both sides open 64 files at most, for a share of
// thousands, dozens of them large.
func TestR02FewDescriptors(t *testing.T) {
	t.Parallel()
	s := manyShare(t)
	n := 1000
	if os.Getenv("SHOAL_CI") != "" || os.Getenv("SHOAL_SOAK") != "" {
		n = 10_000
	}
	s.manyFiles(t, n, 100)
	s.manyFiles(t, 40, 150_000)
	limited := func(args ...string) *exec.Cmd {
		return exec.Command("sh", append([]string{"-c", `ulimit -n 64; exec "$@"`, "sh", "shoal"}, args...)...)
	}
	seed := startCommand(t, limited("share", "--json", "--quiet", "--listen", "127.0.0.1:0", s.tree), filepath.Join(s.dir, "home"))
	e := seed.wait("ticket")
	if e == nil {
		t.Fatal("the seed ended")
	}
	dest := filepath.Join(s.dir, "dest")
	get := limited("get", "-q", e["ticket"].(string), dest, "--peer", e["listen"].(string))
	get.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, "other home"))
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, compareTrees(t.Context(), s.tree, filepath.Join(dest, "tree")))
}

// TestR06ManyFiles fetches 10,000 files of one byte, 20,000 in CI, a million with
// SHOAL_SOAK=1: in a minute, with less than 256 MiB, and without a flush for each.
func TestR06ManyFiles(t *testing.T) {
	t.Parallel()
	n, soak := 10_000, os.Getenv("SHOAL_SOAK") != ""
	switch {
	case soak:
		n = 1_000_000
	case os.Getenv("SHOAL_CI") != "":
		n = 20_000
	}
	s := manyShare(t)
	s.manyFiles(t, n, 1)
	s.serve(t)
	dest := filepath.Join(s.dir, "dest")
	cmd, stderr := s.get(dest)
	began := time.Now()
	must(t, cmd.Start())
	peak := peakMemory(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	took, rss := time.Since(began), <-peak
	t.Logf("%d files in %v, with %d MB of memory", n, took.Round(time.Millisecond), rss/1e6)
	if took > time.Minute || rss > 256<<20 {
		t.Errorf("it took %v and %d bytes of memory", took, rss)
	}
	if soak {
		return
	}
	must(t, compareTrees(t.Context(), s.tree, filepath.Join(dest, "tree")))

	dest = filepath.Join(s.dir, "traced")
	cmd, stderr = s.get(dest)
	tr := &tracer{Dir: dest, Counts: "flushes", At: -1}
	began = time.Now()
	if err := tr.run(cmd); err != nil || tr.End.ExitStatus() != 0 {
		t.Fatalf("%v, %v: %s", err, tr.End, stderr)
	}
	took = time.Since(began)
	// One a thousand files, those of the few large ones, and one each 2 s.
	if most := n/1000 + 20 + 3*int(took/(2*time.Second)); len(tr.Calls) > most {
		t.Errorf("%d flushes in %v for %d files, more than %d", len(tr.Calls), took, n, most)
	}
	t.Logf("%d flushes in %v: %s", len(tr.Calls), took.Round(time.Millisecond), strings.Join(tr.Calls[:min(len(tr.Calls), 20)], ", "))
}

// TestD05CannotFlush fetches to a disk on which no flush works: there is one
// warning, and the share.
func TestD05CannotFlush(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	for _, errno := range []syscall.Errno{syscall.ENOTSUP, syscall.EINVAL} {
		dest := filepath.Join(s.dir, errno.Error())
		cmd, stderr := s.get(dest)
		tr := &tracer{Dir: dest, Counts: "flushes", Every: true, Fault: fault{Errno: errno}}
		if err := tr.run(cmd); err != nil {
			skip(t, "ptrace does not work here: %v", err)
		}
		if msg := stderr.String(); tr.End.ExitStatus() != 0 || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, "warning: this file system cannot flush") {
			t.Errorf("%v: code %d, %q", errno, tr.End.ExitStatus(), msg)
		}
		must(t, compareTrees(t.Context(), s.tree, filepath.Join(dest, "tree")))
	}
}
