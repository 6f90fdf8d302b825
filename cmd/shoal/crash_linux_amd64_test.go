package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestC02EveryCall kills the program before each call that changes something
// below its folder, and lets each of them fail in turn with EIO (D03), for want of
// space (D01), by a short write, EINTR and EAGAIN (D06), with EDQUOT, EROFS and EACCES (D02). Each time nothing but the
// transfer may have been touched, what has the final name is whole, the message
// says what and where, and the same line again ends well.
func TestC02EveryCall(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	dest := filepath.Join(s.dir, "none")
	must(t, os.Mkdir(dest, 0o755))
	tr := &tracer{Dir: dest, Counts: "all", At: -1}
	cmd, _ := s.get(dest)
	if err := tr.run(cmd); err != nil {
		skip(t, "ptrace does not work here: %v", err)
	}
	if tr.End.ExitStatus() != 0 || len(tr.Calls) < 50 {
		t.Fatalf("without a fault: %v, %d calls", tr.End, len(tr.Calls))
	}

	type job struct {
		fault
		counts string
		cause  string // in the message; "": it must end well
	}
	jobs := []job{
		{fault{Name: "killed", Kill: true}, "changes", ""},
		{fault{Name: "EIO", Errno: syscall.EIO}, "all", "input/output error"},
		{fault{Name: "ENOSPC", Errno: syscall.ENOSPC}, "changes", "no space"},
		{fault{Name: "short", Short: true}, "writes", ""},
		{fault{Name: "EINTR", Errno: syscall.EINTR}, "retried", ""},
		{fault{Name: "EAGAIN", Errno: syscall.EAGAIN}, "writes", "temporarily unavailable"},
		{fault{Name: "EDQUOT", Errno: syscall.EDQUOT}, "changes", "quota"},
		{fault{Name: "EROFS", Errno: syscall.EROFS}, "changes", "read-only"},
		{fault{Name: "EACCES", Errno: syscall.EACCES}, "changes", "permission denied"},
	}
	type task struct {
		job
		k int
	}
	todo := make(chan task)
	var crew sync.WaitGroup
	var mu sync.Mutex
	runs, ends := map[string]int{}, map[string]int{}
	ended := map[string]bool{} // faults that have no call left
	for w := range runtime.GOMAXPROCS(0) {
		crew.Go(func() {
			for x := range todo {
				mu.Lock()
				done := ended[x.Name]
				mu.Unlock()
				if done {
					continue
				}
				dest := filepath.Join(s.dir, fmt.Sprintf("%s-%d-%d", x.Name, x.k, w))
				hit, code, err := s.disturbed(dest, x.fault, x.counts, x.k, x.cause)
				mu.Lock()
				if hit == "" {
					ended[x.Name] = true
				} else {
					runs[x.Name]++
					ends[fmt.Sprintf("%s: %d", x.Name, code)]++
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("%s at call %d (%s): %v", x.Name, x.k, hit, err)
				}
				_ = os.RemoveAll(dest)
			}
		})
	}
	for n, j := range jobs {
		step := 20
		switch {
		case os.Getenv("SHOAL_SOAK") != "", os.Getenv("SHOAL_CI") != "" && n < 6:
			step = 1
		case os.Getenv("SHOAL_CI") != "":
			step = 5 // they take the same ways
		}
		for k := os.Getpid() % step; ; k += step {
			mu.Lock()
			done := ended[j.Name]
			mu.Unlock()
			if done || t.Failed() || k > 1000 {
				break
			}
			todo <- task{j, k}
		}
	}
	close(todo)
	crew.Wait()
	t.Logf("runs: %v; exit codes: %v", runs, ends)
}

// disturbed runs a get into dest with a fault at call k, and judges what it leaves.
// hit is the call, or "" if there was none of that number.
func (s *smallShare) disturbed(dest string, f fault, counts string, k int, cause string) (hit string, code int, err error) {
	if err := os.Mkdir(dest, 0o755); err != nil {
		return "", 0, err
	}
	mine := filepath.Join(dest, "mine")
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		return "", 0, err
	}
	tr := &tracer{Dir: dest, Counts: counts, At: k, Fault: f}
	cmd, stderr := s.get(dest)
	err = tr.run(cmd)
	if err != nil || len(tr.Calls) <= k {
		return "", 0, err
	}
	hit, code = tr.Calls[k], tr.End.ExitStatus()
	msg := stderr.String()
	final := filepath.Join(dest, "tree")
	_, ferr := os.Lstat(final)
	switch {
	case f.Kill && !tr.End.Signaled():
		return hit, code, fmt.Errorf("it was not killed: %d, %s", code, msg)
	case f.Kill:
	case code == 0 && ferr != nil:
		return hit, code, fmt.Errorf("exit code 0, and nothing there: %w", ferr)
	case code == 0 && strings.Contains(hit, "sync") && f.Errno != syscall.EINTR:
		return hit, code, fmt.Errorf("a flush has failed, and the exit code is 0")
	case code == 0:
	case cause == "":
		return hit, code, fmt.Errorf("it ended with %d: %s", code, msg)
	case code != codeDisk || !strings.Contains(msg, cause) || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1:
		return hit, code, fmt.Errorf("exit code %d, %q", code, msg)
	}
	if ferr == nil {
		if err := compareTrees(context.Background(), s.tree, final); err != nil {
			return hit, code, fmt.Errorf("at the final name: %w", err)
		}
	}
	if err := s.again(dest); err != nil {
		return hit, code, fmt.Errorf("after %q: %w", msg, err)
	}
	if left, err := os.ReadDir(dest); err != nil || len(left) != 2 {
		return hit, code, fmt.Errorf("left behind: %v, %v", left, err)
	}
	if p, err := os.ReadFile(mine); err != nil || string(p) != "mine" {
		return hit, code, fmt.Errorf("the bystander: %q, %v", p, err)
	}
	return hit, code, nil
}
