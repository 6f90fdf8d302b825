package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// setfsuid makes this thread nobody to file systems, and returns what undoes it.
func setfsuid(back int) func() {
	runtime.LockOSThread()
	unix.Setfsuid(65534)
	return func() {
		unix.Setfsuid(back)
		runtime.UnlockOSThread()
	}
}

// mkdev makes a device like /dev/zero.
func mkdev(path string) error {
	return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
}

func TestP18KernelFiles(t *testing.T) {
	if !isKernelFS("/proc/self") {
		t.Skip("no /proc")
	}
	if _, _, err := Build(t.Context(), []string{"/proc/version"}, BuildOptions{}); err == nil || !strings.Contains(err.Error(), `share "/proc/version": it is not on a disk but made up by the kernel`) {
		t.Errorf("/proc/version: %v", err)
	}
	start := time.Now()
	got := make(map[string]string)
	m, _ := build(t, "/proc/self", BuildOptions{Name: "self", Skipped: skips(got)})
	for _, e := range m.Entries() {
		if e.Kind == File || e.Kind == Dir {
			t.Errorf("%s is shared", e.Path)
		}
	}
	if !strings.Contains(got["status"], "made up by the kernel") || !strings.Contains(got["net"], "made up by the kernel") {
		t.Errorf("left out are %q", got)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	// A link to such a file is followed when the user names it, and then refused.
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("/proc/self/status", link))
	if _, _, err := Build(t.Context(), []string{link}, BuildOptions{}); err == nil || !strings.Contains(err.Error(), "made up by the kernel") {
		t.Errorf("a link to /proc: %v", err)
	}
}

// A file that becomes a pipe after it was listed must not be waited for.
func TestP18NowAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, cutter := range cutters {
		os.Remove(path)
		must(t, os.WriteFile(path, []byte("text"), 0o644))
		c := &mapCache{get: func() {
			os.Remove(path)
			must(t, unix.Mkfifo(path, 0o644))
		}}
		start := time.Now()
		_, _, err := Build(t.Context(), []string{filepath.Dir(path)}, BuildOptions{Cutter: cutter, Cache: c})
		if ce := (*ChangedError)(nil); !errors.As(err, &ce) || ce.Why != "it is now a named pipe" {
			t.Errorf("error is %v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %v", d)
		}
	}
}
