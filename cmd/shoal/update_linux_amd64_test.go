package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// oldVersion puts another version of the share at name: a file changed, one
// missing, one more, and a folder where the share has a file.
func (s *smallShare) oldVersion(name string) error {
	if err := os.CopyFS(name, os.DirFS(s.tree)); err != nil {
		return err
	}
	p, err := os.ReadFile(filepath.Join(name, "b", "large"))
	if err != nil {
		return err
	}
	p[150_000] ^= 1
	for _, do := range []func() error{
		func() error { return os.WriteFile(filepath.Join(name, "b", "large"), p, 0o644) },
		func() error { return os.Remove(filepath.Join(name, "z")) },
		func() error { return os.MkdirAll(filepath.Join(name, "z", "in"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(name, "z", "in", "gone"), []byte("gone"), 0o644) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	// What a copy does not have: the same times everywhere, so that trees compare.
	when := time.Unix(1_600_000_000, 0)
	return filepath.WalkDir(name, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, when, when)
	})
}

// killedAtEach kills cmd before each call that changes something below its folder,
// and lets look judge what it has left. setUp prepares the folder.
func killedAtEach(t *testing.T, dir string, setUp func(dest string) error, cmd func(dest string) (*exec.Cmd, *bytes.Buffer), look func(dest string) error) {
	step := 12
	switch {
	case os.Getenv("SHOAL_SOAK") != "":
		step = 1
	case os.Getenv("SHOAL_CI") != "":
		step = 2
	}
	todo := make(chan int)
	var (
		crew  sync.WaitGroup
		mu    sync.Mutex
		ended bool
		kills int
	)
	one := func(k int) (hit bool, err error) {
		dest := filepath.Join(dir, fmt.Sprint("killed", k))
		if err := os.Mkdir(dest, 0o755); err != nil {
			return false, err
		}
		defer os.RemoveAll(dest)
		if err := setUp(dest); err != nil {
			return false, err
		}
		tr := &tracer{Dir: dest, Counts: "changes", At: k, Fault: fault{Name: "killed", Kill: true}}
		c, stderr := cmd(dest)
		if err := tr.run(c); err != nil {
			return false, err
		}
		if len(tr.Calls) <= k {
			if tr.End.ExitStatus() != 0 {
				return false, fmt.Errorf("nobody killed it: %d, %s", tr.End.ExitStatus(), stderr)
			}
			return false, look(dest)
		}
		if err := look(dest); err != nil {
			return true, fmt.Errorf("killed before %q: %w", tr.Calls[k], err)
		}
		c, stderr = cmd(dest)
		if err := c.Run(); err != nil {
			return true, fmt.Errorf("killed before %q, and then: %w: %s", tr.Calls[k], err, stderr)
		}
		return true, look(dest)
	}
	for range runtime.GOMAXPROCS(0) {
		crew.Go(func() {
			for k := range todo {
				hit, err := one(k)
				mu.Lock()
				if hit {
					kills++
				} else {
					ended = true
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("call %d: %v", k, err)
				}
			}
		})
	}
	for k := os.Getpid() % step; k < 2000; k += step {
		mu.Lock()
		done := ended
		mu.Unlock()
		if done || t.Failed() {
			break
		}
		todo <- k
	}
	close(todo)
	crew.Wait()
	if kills == 0 {
		t.Error("nothing was killed")
	}
	t.Logf("%d kills", kills)
}

// Wherever an update is killed, what has the name is entirely the old version or
// entirely the new one, and the same line then completes it.
func TestUpdateKilledAtEachCall(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	old := filepath.Join(s.dir, "old")
	must(t, s.oldVersion(old))
	probe := filepath.Join(s.dir, "probe")
	must(t, os.Mkdir(probe, 0o755))
	must(t, s.oldVersion(filepath.Join(probe, "tree")))
	cmd, _ := s.get(probe, "--update")
	if err := (&tracer{Dir: probe, Counts: "all", At: -1}).run(cmd); err != nil {
		skip(t, "ptrace does not work here: %v", err)
	}
	var mu sync.Mutex
	looked := map[string]int{} // how often each folder was judged
	killedAtEach(
		t, s.dir, func(dest string) error { return s.oldVersion(filepath.Join(dest, "tree")) },
		func(dest string) (*exec.Cmd, *bytes.Buffer) { return s.get(dest, "--update") },
		func(dest string) error {
			mu.Lock()
			looked[dest]++
			again := looked[dest] > 1
			mu.Unlock()
			oldErr := compareTrees(t.Context(), old, filepath.Join(dest, "tree"))
			newErr := compareTrees(t.Context(), s.tree, filepath.Join(dest, "tree"))
			if oldErr != nil && newErr != nil {
				return fmt.Errorf("neither the old version (%w) nor the new one (%w)", oldErr, newErr)
			}
			if !again {
				return nil
			}
			left, err := os.ReadDir(dest)
			if newErr != nil || err != nil || len(left) != 1 {
				return fmt.Errorf("at the end: %w, and %v is there", newErr, left)
			}
			return nil
		},
	)
}

// Wherever a repair is killed, each file is as it was or as it should be, and those
// that were right are not touched.
func TestRepairKilledAtEachCall(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	damage := func(dest string) error {
		tree := filepath.Join(dest, "tree")
		if err := os.CopyFS(tree, os.DirFS(s.tree)); err != nil {
			return err
		}
		p, err := os.ReadFile(filepath.Join(tree, "b", "large"))
		if err != nil {
			return err
		}
		p[199_999] ^= 1
		if err := os.WriteFile(filepath.Join(tree, "b", "large"), p, 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tree, "a", "small"), []byte("short"), 0o644)
	}
	cmd := func(dest string) (*exec.Cmd, *bytes.Buffer) {
		var stderr bytes.Buffer
		c := exec.Command("shoal", "verify", "-q", "--repair", s.manifest, dest, "--listen", "off", "--peer", s.addr)
		c.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(s.dir, "homes", filepath.Base(dest)))
		c.Stderr = &stderr
		return c, &stderr
	}
	probe := filepath.Join(s.dir, "probe")
	must(t, os.Mkdir(probe, 0o755))
	must(t, damage(probe))
	c, _ := cmd(probe)
	if err := (&tracer{Dir: probe, Counts: "all", At: -1}).run(c); err != nil {
		skip(t, "ptrace does not work here: %v", err)
	}
	must(t, manifest.Verify(t.Context(), s.m, nil, filepath.Join(probe, "tree"), func(d manifest.Difference) {
		if d.Failed() {
			t.Error(d)
		}
	}))
	before := filepath.Join(s.dir, "before")
	must(t, os.Mkdir(before, 0o755))
	must(t, damage(before))
	var mu sync.Mutex
	untouched := map[string]os.FileInfo{} // z, as it was at first
	killedAtEach(t, s.dir, func(dest string) error {
		if err := damage(dest); err != nil {
			return err
		}
		fi, err := os.Lstat(filepath.Join(dest, "tree", "z"))
		mu.Lock()
		untouched[dest] = fi
		mu.Unlock()
		return err
	}, cmd, func(dest string) error {
		for _, name := range []string{"a/small", "b/large", "z"} {
			got, err := os.ReadFile(filepath.Join(dest, "tree", name))
			if err != nil {
				return err
			}
			was, err := os.ReadFile(filepath.Join(before, "tree", name))
			if err != nil {
				return err
			}
			is, err := os.ReadFile(filepath.Join(s.tree, name))
			if err != nil {
				return err
			}
			if !bytes.Equal(got, was) && !bytes.Equal(got, is) {
				return fmt.Errorf("%s is neither as it was nor as it should be", name)
			}
		}
		mu.Lock()
		was := untouched[dest]
		mu.Unlock()
		fi, err := os.Lstat(filepath.Join(dest, "tree", "z"))
		if err != nil || !os.SameFile(fi, was) || !fi.ModTime().Equal(was.ModTime()) {
			return fmt.Errorf("a file that was right has been replaced: %w", err)
		}
		return nil
	})
}
