package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestC07SecondSignal presses Ctrl-C again while the first one cannot come to its
// end: nobody reads what the program has to say, and the pipe is full.
func TestC07SecondSignal(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	open := s.holdBack(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	fd := int(w.Fd())
	must(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 1))
	}
	must(t, unix.SetNonblock(fd, false))
	dest := filepath.Join(s.dir, "dest")
	cmd, _ := s.get(dest)
	cmd.Stderr = w
	must(t, cmd.Start())
	must(t, w.Close())
	s.waitForRecords(t, dest, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its code is looked at below
	}()
	signals := 0
	for end := false; !end && signals < 100; signals++ {
		must(t, cmd.Process.Signal(os.Interrupt))
		select {
		case <-ended:
			end = true
		case <-time.After(time.Second):
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 || signals != 2 {
		t.Errorf("it took %d signals to end it, with %d", signals, code)
	}
	open()
	must(t, s.again(dest))
}

// TestC07Timeout ends a get by timeout(1), which sends its signal to the process
// and then to its group: that is no second Ctrl-C.
func TestC07Timeout(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	s.holdBack(t)
	dest := filepath.Join(s.dir, "dest")
	cmd, stderr := s.get(dest)
	cmd.Args = append([]string{"timeout", "--signal=INT", "2"}, cmd.Args...)
	path, err := exec.LookPath("timeout")
	if err != nil {
		skip(t, "needs timeout (coreutils)")
	}
	cmd.Path = path
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its group is its own
	_ = cmd.Run()                                         // timeout's code says nothing
	if code := cmd.ProcessState.ExitCode(); code != 124 || !strings.Contains(stderr.String(), "to go on: ") || strings.Contains(stderr.String(), "at once") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

// TestC07TerminalClosed closes the terminal that a get runs in.
func TestC07TerminalClosed(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	open := s.holdBack(t)
	master, slave := openTerminal(t)
	dest := filepath.Join(s.dir, "dest")
	cmd, _ := s.get(dest)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	must(t, slave.Close())
	s.waitForRecords(t, dest, 1)
	must(t, master.Close())
	_ = cmd.Wait() // its code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 129 {
		t.Errorf("it ended with %d", code)
	}
	open()
	must(t, s.again(dest))
}

// openTerminal returns both ends of a new terminal.
func openTerminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		skip(t, "no terminals here: %v", err)
	}
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return master, slave
}

// TestC08OutOfMemory has a get killed by the kernel because its group has no
// memory left, as a container would.
func TestC08OutOfMemory(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	group, procs, limit := memoryGroup(t)
	s.holdBack(t)
	dest := filepath.Join(s.dir, "dest")
	cmd, stderr := s.get(dest)
	// It is the first that the kernel picks.
	cmd.Args = append([]string{"sh", "-c", `echo $$ > "$0" && echo 1000 > /proc/self/oom_score_adj && exec "$@"`, procs}, cmd.Args...)
	sh, err := exec.LookPath("sh")
	must(t, err)
	cmd.Path = sh
	must(t, cmd.Start())
	s.waitForRecords(t, dest, 1)
	must(t, os.WriteFile(filepath.Join(group, limit), []byte("128M"), 0o644))
	hog := exec.Command("sh", "-c", `echo $$ > "$0" && exec tail /dev/zero`, procs)
	hog.Stderr = io.Discard
	must(t, hog.Start())
	err = cmd.Wait()
	_ = hog.Process.Kill() // the kernel may have done it
	_ = hog.Wait()
	var x *exec.ExitError
	if !errors.As(err, &x) || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it ended with %v: %s", err, stderr)
	}
	s.serve(t) // by another peer
	must(t, s.again(dest))
	if sent := s.seed.count.Load(); sent > int64(s.m.NumChunks()-1) {
		t.Errorf("%d chunks of %d were sent again", sent, s.m.NumChunks())
	}
}

// memoryGroup makes a control group, and returns its folder, the file that takes
// its processes, and the name of its limit.
func memoryGroup(t testing.TB) (dir, procs, limit string) {
	t.Helper()
	name := fmt.Sprintf("shoal-test-%d", os.Getpid())
	for _, c := range []struct{ root, limit string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir = filepath.Join(c.root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // it is empty by then
		if _, err := os.Stat(filepath.Join(dir, c.limit)); err == nil {
			for name, value := range map[string]string{"memory.swappiness": "0", "memory.swap.max": "0"} {
				_ = os.WriteFile(filepath.Join(dir, name), []byte(value), 0) // there is one of them; it must not swap
			}
			return dir, filepath.Join(dir, "cgroup.procs"), c.limit
		}
	}
	skip(t, "needs root and a control group for memory")
	return "", "", ""
}
