package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is mounted in a folder that an update replaces is not of it: another disk is
// refused before anything is done, and what lies in a mounted folder stays in any case.
func TestUpdateLeavesWhatIsMounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree, in := filepath.Join(dir, "tree"), filepath.Join(dir, "in")
	must(t, os.Mkdir(tree, 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "a"), []byte("first"), 0o644))
	get := func(name string, more ...string) (int, string) {
		t.Helper()
		if code, msg := shoal(t, dir, "manifest", "create", "tree", "-o", name, "--quiet"); code != 0 {
			t.Fatal(msg)
		}
		return shoal(t, dir, append([]string{"get", name, "in", "--from", "tree", "--listen", "off", "--quiet"}, more...)...)
	}
	if code, msg := get("1.shoal"); code != 0 {
		t.Fatalf("code %d, %s", code, msg)
	}
	must(t, os.WriteFile(filepath.Join(tree, "a"), []byte("second"), 0o644))
	at := filepath.Join(in, "tree", "sub", "at")
	mountTmpfs(t, at, "size=1m")
	must(t, os.WriteFile(filepath.Join(at, "mine"), []byte("mine"), 0o644))
	code, msg := get("2.shoal", "--update")
	if code != 8 || !strings.Contains(msg, "sub/at is on another disk") || !strings.Contains(msg, "unmount it") || strings.Count(msg, "\n") != 1 {
		t.Errorf("another disk: code %d, %s", code, msg)
	}
	if p, err := os.ReadFile(filepath.Join(at, "mine")); err != nil || string(p) != "mine" {
		t.Fatalf("on the other disk: %q, %v", p, err)
	}
	if _, err := os.Lstat(filepath.Join(in, "tree.shoal-part")); err == nil {
		t.Error("a part was left")
	}
	unmount(t, at)

	// A folder of the same disk cannot be told by its number.
	mine := filepath.Join(dir, "mine")
	must(t, os.Mkdir(mine, 0o755))
	must(t, os.WriteFile(filepath.Join(mine, "data"), []byte("mine"), 0o644))
	if err := unix.Mount(mine, at, "", unix.MS_BIND, ""); err != nil {
		skip(t, "mounting needs root: %v", err)
	}
	old := filepath.Join(in, "tree.shoal-part", "old", "sub", "at")
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH); _ = unix.Unmount(old, unix.MNT_DETACH) })
	code, msg = get("2.shoal", "--update")
	if p, err := os.ReadFile(filepath.Join(mine, "data")); err != nil || string(p) != "mine" {
		t.Errorf("in the mounted folder: %q, %v", p, err)
	}
	if code != 0 || !strings.Contains(msg, "the old tree is not all removed") {
		t.Errorf("a mounted folder: code %d, %s", code, msg)
	}
	if p, err := os.ReadFile(filepath.Join(in, "tree", "a")); err != nil || string(p) != "second" {
		t.Errorf("the new version: %q, %v", p, err)
	}
	unmount(t, old)
	if code, msg := get("2.shoal", "--update"); code != 0 {
		t.Errorf("the same line again: code %d, %s", code, msg)
	}
	if _, err := os.Lstat(filepath.Join(in, "tree.shoal-part")); err == nil {
		t.Error("the part is still there")
	}
}
