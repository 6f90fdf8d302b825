package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
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

// TestP18ManyInOneFolder: a folder with 20,000 pipes, names that cannot be shared, or
// links that lead out or through each other, costs some seconds, little memory, and
// a few lines: the others are counted. So do files, one by one, until they are more
// than a share may have. With SHOAL_SOAK=1 there are a million of each.
func TestP18ManyInOneFolder(t *testing.T) {
	t.Parallel()
	n := 20_000
	if os.Getenv("SHOAL_SOAK") != "" {
		n = 1_000_000
	}
	s := newStage(t)
	dir := filepath.Join(s.dir, "memory")
	mountTmpfs(t, dir, "size=4g,nr_inodes=0")
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	must(t, syscall.Mkfifo(pipe, 0o644))
	must(t, os.WriteFile(file, []byte("file"), 0o644))
	for _, tt := range []struct {
		name    string
		add     func(folder string, i int) error
		skipped int
	}{
		{"pipes", func(folder string, i int) error { return os.Link(pipe, fmt.Sprintf("%s/%d", folder, i)) }, n},
		{"names", func(folder string, i int) error { return os.Link(file, fmt.Sprintf("%s/\x1b%d", folder, i)) }, n},
		{"long", func(folder string, i int) error { return os.Link(file, fmt.Sprintf("%s/%0255d", folder, i)) }, n},
		{"out", func(folder string, i int) error { return os.Symlink("../../x", fmt.Sprintf("%s/%d", folder, i)) }, n},
		{"chain", func(folder string, i int) error {
			return os.Symlink(fmt.Sprint(i+1), fmt.Sprintf("%s/%d", folder, i))
		}, n - 40},
		{"files", func(folder string, i int) error { return os.Link(file, fmt.Sprintf("%s/%d", folder, i)) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := filepath.Join(dir, tt.name)
			folder := filepath.Join(tree, "folder")
			must(t, os.MkdirAll(folder, 0o755))
			num := n
			if tt.name == "out" || tt.name == "chain" {
				num = min(num, manifest.MaxEntries-1) // before they are looked at
				tt.skipped -= n - num
			}
			for i := range num {
				must(t, tt.add(folder, i))
			}
			began := time.Now()
			cmd := exec.Command("shoal", "manifest", "create", tree, "-o", filepath.Join(s.dir, tt.name))
			cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, ".home"))
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			must(t, cmd.Start())
			peak := peakMemory(cmd.Process.Pid)
			err := cmd.Wait()
			took, rss, out := time.Since(began), <-peak, said.String()
			t.Logf("%d in %v, with %d MB of memory", num, took.Round(time.Millisecond), rss/1e6)
			if n >= manifest.MaxEntries && tt.name == "files" {
				if cmd.ProcessState.ExitCode() != codeRefused || !strings.Contains(out, "share of more than 1000000 entries") {
					t.Errorf("%v: %s", err, out)
				}
			} else if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if tt.skipped > 0 && !strings.Contains(out, fmt.Sprintf("skipped %d more; --strict makes that an error\n", tt.skipped-mostSkipped)) {
				t.Errorf("%d were skipped: %s", tt.skipped, out)
			}
			if lines := strings.Count(out, "skipped"); lines > mostSkipped+1 {
				t.Errorf("%d lines for %d that were skipped", lines, tt.skipped)
			}
			// Names and paths are the user's own, and may be as long as the system lets them.
			most := int64(256<<20 + n*len(folder))
			if tt.name == "long" {
				most += int64(n) * 256
			}
			if took > 2*time.Minute || rss > most {
				t.Errorf("it took %v and %d bytes of memory", took, rss)
			}
			must(t, os.RemoveAll(tree))
		})
	}
}
