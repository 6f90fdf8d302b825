//go:build unix

package reuse_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// special makes a pipe, which to read would never end.
func special(t testing.TB, name string) { must(t, unix.Mkfifo(name, 0o644)) }

// An unreadable file is told of, once, and costs what lies in it. Root may read
// everything, and so lets nobody look.
func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		exe, err := os.Executable()
		must(t, err)
		if runtime.GOOS == "linux" {
			exe = "/proc/self/exe" // whose folder nobody may not enter
		}
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o777))
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		cmd := exec.Command(exe, "-test.run=^TestUnreadable$", "-test.v")
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestUnreadable")) {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	dir := tree(t)
	m := share(t, dir, "")
	must(t, os.Chmod(filepath.Join(dir, "big1"), 0))
	r := find(t, m, nil, dir)
	if r.size != m.Size()-large || len(r.warns) != 1 || !strings.Contains(r.warns[0], "big1") {
		t.Errorf("found %d of %d bytes, %q", r.size, m.Size(), r.warns)
	}
}
