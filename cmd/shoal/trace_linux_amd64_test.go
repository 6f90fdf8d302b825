package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A tracer runs a program and meddles with one of the calls that it makes below a
// folder. strace can do that too, but counts each thread's calls on their own: with
// Go's threads, which take turns as they like, "when=k" is neither every k nor the
// same twice. Here the calls of the whole process are counted.
type tracer struct {
	Dir    string
	Counts string // which calls count: a key of callSets
	At     int    // the call, from 0, that Fault is for; < 0: none
	Every  bool   // all that count, from 0 on
	Fault  fault

	Calls []string           // those that counted, for messages
	End   syscall.WaitStatus // of the program
	Err   string             // why it could not be traced
}

// A fault is what happens to a call.
type fault struct {
	Name  string
	Errno syscall.Errno // it does nothing and returns this
	Kill  bool          // the process dies before it
	Short bool          // it writes half of what it should
}

var callSets = map[string]func(c *call) bool{
	"all":     func(*call) bool { return true },
	"changes": (*call).changes,
	"writes":  (*call).writes,
	"flushes": (*call).flushes,
	"retried": func(c *call) bool { // those that a signal may break off
		return c.writes() || c.flushes() || c.name == "openat" || c.name == "fallocate"
	},
}

// run runs cmd under the tracer. That is a process of its own: whoever traces waits
// for all children of its thread, and this process has others.
func (tr *tracer) run(cmd *exec.Cmd) error {
	spec, err := json.Marshal(tr)
	if err != nil {
		return err
	}
	outer := exec.Command("traced", append([]string{string(spec)}, cmd.Args...)...)
	outer.Env, outer.Dir, outer.Stderr = cmd.Env, cmd.Dir, cmd.Stderr
	out, err := outer.Output()
	if err == nil {
		err = json.Unmarshal(out, tr)
	}
	if err == nil && tr.Err != "" {
		err = errors.New(tr.Err)
	}
	return err
}

func init() { commands["traced"] = traced }

// traced is the command that run calls.
func traced() {
	var tr tracer
	err := json.Unmarshal([]byte(os.Args[1]), &tr)
	if err == nil {
		err = tr.trace(exec.Command(os.Args[2], os.Args[3:]...))
	}
	if err != nil {
		tr.Err = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(&tr) // who started it sees that nothing came
}

// A call is one of those that do something to files.
type call struct {
	name string
	flag uint64 // if it opens
}

// changes reports whether the call changes what is on disk.
func (c *call) changes() bool {
	switch c.name {
	case "openat":
		return c.flag&unix.O_CREAT != 0
	case "pread64", "close", "flock":
		return false
	}
	return true
}

func (c *call) writes() bool { return c.name == "write" || c.name == "pwrite64" }

func (c *call) flushes() bool {
	return c.name == "fsync" || c.name == "fdatasync" || c.name == "syncfs"
}

// Calls on a descriptor, and those that have a folder's descriptor and a name.
var (
	fdCalls = map[uint64]string{
		unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_PREAD64: "pread64", unix.SYS_CLOSE: "close",
		unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SYNCFS: "syncfs", unix.SYS_FTRUNCATE: "ftruncate",
		unix.SYS_FALLOCATE: "fallocate", unix.SYS_FCHMOD: "fchmod", unix.SYS_FLOCK: "flock",
	}
	atCalls = map[uint64]string{
		unix.SYS_OPENAT: "openat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_RENAMEAT: "renameat",
		unix.SYS_RENAMEAT2: "renameat2", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FCHMODAT2: "fchmodat", unix.SYS_UTIMENSAT: "utimensat",
	}
)

// trace runs cmd to its end.
func (tr *tracer) trace(cmd *exec.Cmd) error {
	runtime.LockOSThread() // only the thread that has started it may trace it
	defer runtime.UnlockOSThread()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return err
	}
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return err
	}
	type state struct {
		in      bool // between the beginning and the end of a call
		rewrite bool // its result is to be errno
	}
	threads := map[int]*state{pid: {}}
	sig := 0
	for tid := pid; ; {
		if err := syscall.PtraceSyscall(tid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		for {
			var err error
			// Only for children of this thread: those of other tests are theirs to wait for.
			tid, err = syscall.Wait4(-1, &ws, syscall.WALL|unix.WNOTHREAD, nil)
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return err
			}
			if err == nil && tid == pid && (ws.Exited() || ws.Signaled()) {
				tr.End = ws
				return nil
			}
			if err == nil && ws.Stopped() {
				break
			}
		}
		th := threads[tid]
		if th == nil {
			th = &state{}
			threads[tid] = th
		}
		sig = 0
		switch s := ws.StopSignal(); {
		case s == syscall.SIGTRAP|0x80 && !th.in:
			var err error
			th.in = true
			if th.rewrite, err = tr.enter(pid, tid); err != nil {
				return err
			}
		case s == syscall.SIGTRAP|0x80:
			th.in = false
			if th.rewrite {
				var regs syscall.PtraceRegs
				if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
					return err
				}
				regs.Rax = -uint64(tr.Fault.Errno)
				if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
					return err
				}
			}
		case s == syscall.SIGTRAP || s == syscall.SIGSTOP: // a new thread
		default:
			sig = int(s)
		}
	}
}

// enter looks at a call that thread tid is about to make. rewrite says that it does
// nothing, and that its result is to be replaced.
func (tr *tracer) enter(pid, tid int) (rewrite bool, err error) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		if errors.Is(err, syscall.ESRCH) { // it was killed meanwhile
			return false, nil
		}
		return false, err
	}
	c, at, dirfd, name := call{}, false, int32(regs.Rdi), uintptr(regs.Rsi)
	if c.name = fdCalls[regs.Orig_rax]; c.name != "" {
		// On a descriptor.
	} else if c.name, at = atCalls[regs.Orig_rax]; at {
		c.flag = regs.Rdx
	} else if regs.Orig_rax == unix.SYS_SYMLINKAT {
		c.name, at, dirfd, name = "symlinkat", true, int32(regs.Rsi), uintptr(regs.Rdx)
	}
	if c.name == "" || !callSets[tr.Counts](&c) {
		return false, nil
	}
	var path string
	if at {
		path, err = pathAt(pid, dirfd, name)
	} else {
		path, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, dirfd))
	}
	if err != nil || !strings.HasPrefix(path+"/", tr.Dir+"/") {
		return false, nil // a socket, or elsewhere
	}
	k := len(tr.Calls)
	tr.Calls = append(tr.Calls, fmt.Sprintf("%s of %s", c.name, strings.TrimPrefix(path, tr.Dir)))
	if k != tr.At && !tr.Every {
		return false, nil
	}
	switch {
	case tr.Fault.Kill:
		return false, syscall.Kill(pid, syscall.SIGKILL)
	case tr.Fault.Short:
		regs.Rdx = (regs.Rdx + 1) / 2
		return false, syscall.PtraceSetRegs(tid, &regs)
	}
	regs.Orig_rax = ^uint64(0) // no such call
	return true, syscall.PtraceSetRegs(tid, &regs)
}

// pathAt returns what a name in the memory of a process stands for.
func pathAt(pid int, dirfd int32, name uintptr) (string, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return "", err
	}
	defer mem.Close()
	p := make([]byte, 4096)
	n, err := mem.ReadAt(p, int64(name))
	if n == 0 {
		return "", err
	}
	p, _, _ = bytes.Cut(p[:n], []byte{0})
	if filepath.IsAbs(string(p)) {
		return filepath.Clean(string(p)), nil
	}
	at := fmt.Sprintf("/proc/%d/fd/%d", pid, dirfd)
	if dirfd == unix.AT_FDCWD {
		at = fmt.Sprintf("/proc/%d/cwd", pid)
	}
	dir, err := os.Readlink(at)
	return filepath.Join(dir, string(p)), err
}
