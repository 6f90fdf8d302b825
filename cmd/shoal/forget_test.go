package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// The folders that were made for a get go with it. What has taken the place of one
// of them stays, and so does what it leads to.
func TestForgetFolders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symlinks need a privilege")
	}
	t.Parallel()
	for _, tt := range []struct {
		name, link string // what is exchanged for a symlink
		stays      bool
	}{
		{"nothing is exchanged", "", false},
		{"the topmost", "made", true},
		{"the one below", filepath.Join("made", "sub"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			addr := halfSeed(t, dir)
			if code, msg := shoal(t, dir, "get", "data.shoal", filepath.Join("made", "sub"), "-q", "--no-lan", "--peer", addr, "--stall-timeout", "1s"); code != codeStalled {
				t.Fatalf("code %d, %s", code, msg)
			}
			link := filepath.Join(dir, tt.link)
			if tt.link != "" {
				must(t, os.Rename(link, filepath.Join(dir, "before")))
				must(t, os.MkdirAll(filepath.Join(dir, "elsewhere", "sub"), 0o755))
				must(t, os.Symlink(filepath.Join(dir, "elsewhere"), link))
			}
			if code, msg := shoal(t, dir, "forget", filepath.Join("made", "sub", "data")); code != 0 {
				t.Errorf("code %d, %s", code, msg)
			}
			if !tt.stays {
				if _, err := os.Lstat(filepath.Join(dir, "made")); !os.IsNotExist(err) {
					t.Errorf("the folder is still there: %v", err)
				}
				return
			}
			if i, err := os.Lstat(link); err != nil || i.Mode().Type() != os.ModeSymlink {
				t.Errorf("the symlink: %v, %v", i, err)
			}
			if i, err := os.Lstat(filepath.Join(dir, "elsewhere", "sub")); err != nil || !i.IsDir() {
				t.Errorf("the folder elsewhere: %v, %v", i, err)
			}
		})
	}
}
