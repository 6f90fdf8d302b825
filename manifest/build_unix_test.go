//go:build unix

package manifest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestP18Specials(t *testing.T) {
	top := plant(t, []node{
		{path: "t/a", text: "a"},
		{path: "t/d/deep", text: "d"},
		{path: "t/in", target: "d/deep"},
		{path: "t/d/up", target: "../a"},
		{path: "t/dangling", target: "d/nothing"},
		{path: "t/out", target: "../x"},
		{path: "t/d/out deep", target: "../../x"},
		{path: "t/absolute", target: "/etc/passwd"},
		{path: "t/loop", target: "loop"},
		{path: "t/loop 1", target: "loop 2"},
		{path: "t/loop 2", target: "loop 1"},
		{path: "t/via out", target: "out/passwd"},
		{path: "t/control", target: "d/\x1b"},
		{path: "x", text: "outside"},
	})
	path := filepath.Join(top, "t")
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o644))
	must(t, unix.Mkfifo(filepath.Join(path, "d", "fifo 2"), 0o644))
	// A socket's path is short; its name in the tree can be any.
	dir, err := os.MkdirTemp("", "s")
	must(t, err)
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	must(t, err)
	defer l.Close()
	must(t, os.Rename(filepath.Join(dir, "s"), filepath.Join(path, "socket")))

	want := map[string]string{
		"out":        "the link leads out of the share",
		"d/out deep": "the link leads out of the share",
		"absolute":   "the link leads to an absolute path",
		"loop":       "the link goes round in a circle",
		"loop 1":     "circle",
		"loop 2":     "circle",
		"via out":    "the link leads through a link that leads out of the share",
		"control":    "the link has a target that holds the control character 0x1b",
		"fifo":       "it is a named pipe",
		"d/fifo 2":   "it is a named pipe",
		"socket":     "it is a socket",
	}
	if mkdev(filepath.Join(path, "device")) == nil {
		want["device"] = "it is a device"
	} else if os.Getenv("SHOAL_CI") == "1" {
		t.Error("device nodes cannot be made")
	}
	got := make(map[string]string)
	start := time.Now()
	m, _ := build(t, path, BuildOptions{Skipped: skips(got)})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	for path, why := range want {
		if !strings.Contains(got[path], why) || why == "" {
			t.Errorf("%s is left out as %q, want %q", path, got[path], why)
		}
	}
	if len(got) != len(want) {
		t.Errorf("left out are %q", got)
	}
	paths := ""
	for _, e := range m.Entries() {
		paths += " " + e.Path
	}
	if paths != " a d d/deep d/up dangling in" {
		t.Errorf("entries are%s", paths)
	}

	_, _, err = Build(t.Context(), []string{path}, BuildOptions{Strict: true})
	if pe := (*PathError)(nil); !errors.As(err, &pe) || !strings.Contains(err.Error(), "cannot be shared: ") {
		t.Errorf("strict: %v", err)
	}
	// What the user names must be what it is named for.
	for _, name := range []string{"fifo", "socket"} {
		for _, paths := range [][]string{{filepath.Join(path, name)}, {path, filepath.Join(path, name)}} {
			if _, _, err := Build(t.Context(), paths, BuildOptions{}); err == nil || !strings.Contains(err.Error(), "it is a ") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// asNobody calls f while this thread may read no files of others.
func asNobody(t *testing.T, f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("root can read all files")
	}
	before := euid
	defer func() { euid = before }()
	euid = 65534
	defer setfsuid(0)()
	f()
}

func TestP18Unreadable(t *testing.T) {
	top := plant(t, []node{
		{path: "t/a", text: "a"},
		{path: "t/b secret", text: "b", mode: 0o644},
		{path: "t/c/in", text: "c"},
		{path: "t/d", text: "d"},
	})
	path := filepath.Join(top, "t")
	for _, p := range []string{filepath.Dir(top), top, path} {
		must(t, os.Chmod(p, 0o755))
	}
	must(t, os.Chmod(filepath.Join(path, "b secret"), 0))
	must(t, os.Chmod(filepath.Join(path, "c"), 0))
	defer os.Chmod(filepath.Join(path, "c"), 0o755)
	asNobody(t, func() {
		got := make(map[string]string)
		m, _ := build(t, path, BuildOptions{Skipped: skips(got), Workers: 1})
		if got["b secret"] != "permission denied" || got["c"] != "permission denied" || len(got) != 2 {
			t.Errorf("left out are %q", got)
		}
		if len(m.Entries()) != 2 || m.Size() != 2 {
			t.Errorf("the share has %d entries and %d bytes", len(m.Entries()), m.Size())
		}
		for _, name := range []string{"b secret", "c"} {
			if _, _, err := Build(t.Context(), []string{filepath.Join(path, name)}, BuildOptions{}); !errors.Is(err, os.ErrPermission) {
				t.Errorf("share of %s: %v", name, err)
			}
		}
	})
}
