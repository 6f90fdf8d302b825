package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/text/unicode/norm"

	"github.com/shoal-p2p/shoal/manifest"
)

// mount mounts for the time of a test.
func mount(t testing.TB, at string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "mount", append(args, at)...).CombinedOutput(); err != nil {
		skip(t, "mount %q: %v %s", args, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	})
}

// onImage makes a file system in a file, of megabytes of holes, and mounts it.
func onImage(mkfs string, megabytes int64) func(t testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		if _, err := exec.LookPath(mkfs); err != nil {
			skip(t, "needs %s", mkfs)
		}
		image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, megabytes<<20))
		if out, err := exec.CommandContext(t.Context(), mkfs, "-q", image).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", mkfs, err, out)
		}
		mount(t, at, "-o", "loop", image)
		return at
	}
}

// disks are the file systems that a share is fetched to, where the kernel has them:
// a table of what is there is no table of what is skipped.
func disks(t testing.TB) map[string]func(t testing.TB) string {
	t.Helper()
	list, err := os.ReadFile("/proc/filesystems")
	must(t, err)
	all := map[string]func(t testing.TB) string{
		"tmpfs": func(t testing.TB) string {
			at := t.TempDir()
			mount(t, at, "-t", "tmpfs", "-o", "size=64m", "none")
			return at
		},
		"overlay": func(t testing.TB) string {
			base, at := t.TempDir(), t.TempDir()
			mount(t, base, "-t", "tmpfs", "-o", "size=64m", "none") // an overlay may not lie on another
			for _, d := range []string{"lower", "upper", "work"} {
				must(t, os.Mkdir(filepath.Join(base, d), 0o755))
			}
			mount(t, at, "-t", "overlay", "-o", "lowerdir="+base+"/lower,upperdir="+base+"/upper,workdir="+base+"/work", "none")
			return at
		},
		"ext4":  onImage("mkfs.ext4", 64),
		"btrfs": onImage("mkfs.btrfs", 256),
		"xfs":   onImage("mkfs.xfs", 512),
		"fuse":  func(t testing.TB) string { return mountFold(t, "keeps") },
	}
	there := map[string]func(t testing.TB) string{}
	for name, make := range all {
		for line := range strings.Lines(string(list)) {
			if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
				there[name] = make
			}
		}
	}
	if there["fuse"] != nil {
		there["fuse that decomposes"] = func(t testing.TB) string { return mountFold(t, "decomposes") }
		there["fuse that replaces"] = func(t testing.TB) string { return mountFold(t, "replaces") }
	}
	return there
}

// oddTree is a tree whose names differ from each other under every folding, but which
// few systems give back as they got them.
func oddTree(t testing.TB, dir string) (string, *manifest.Manifest) {
	t.Helper()
	tree := filepath.Join(dir, "Größe")
	for name, n := range map[string]int{
		"README": 10, "Straße/é": 20, "Straße/big": 400_000, "e\u0301te\u0301/x": 5, "日本語 \u200d🎉": 0, "exact": 131072, "K/\u212bngstrom": 7,
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(tree, name), noise(n), 0o640))
	}
	must(t, os.Mkdir(filepath.Join(tree, "empty"), 0o755))
	must(t, os.Symlink("../README", filepath.Join(tree, "Straße", "link")))
	m, _, err := manifest.Build(t.Context(), []string{tree}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "odd.shoal"), []byte(m.Text()), 0o644))
	return tree, m
}

// D15: a get that is stopped and gone on with, one that finds all there, one that
// replaces, and a share, on each kind of disk.
func TestD15Disks(t *testing.T) {
	t.Parallel()
	for name, make := range disks(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := make(t)
			s := &stage{dir: t.TempDir(), target: filepath.Join(at, "in")}
			must(t, os.Mkdir(s.target, 0o755))
			tree, m := oddTree(t, s.dir)
			data := stream(t, m, tree)
			saved := filepath.Join(s.dir, "odd.shoal")
			half := (&fakeSeed{m: m, data: data, chunks: 3}).listen(t)
			whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
			if code, _, msg := s.run(t, "get", "-q", saved, "--peer", half, "--timeout", "1s"); code != codeStalled {
				t.Fatalf("from half a seed: code %d, %s", code, msg)
			}
			if code, _, msg := s.run(t, "get", saved, "--peer", whole); code != 0 || !strings.Contains(msg, "resumed at ") || strings.Contains(msg, "warning") {
				t.Fatalf("gone on with: code %d, %s", code, msg)
			}
			got := filepath.Join(s.target, "Größe")
			if !sameTree(t, m, got) {
				t.Error("the tree is not right")
			}
			if code, _, msg := s.run(t, "get", saved, "--peer", whole); code != 0 || !strings.Contains(msg, "is there already") {
				t.Errorf("again: code %d, %s", code, msg)
			}
			again, _, err := manifest.Build(t.Context(), []string{got}, manifest.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if again.Root() != m.Root() && name != "fuse that decomposes" { // whose names are others
				t.Errorf("shared from there it has another root:\n%s", again.Text())
			}
			must(t, os.WriteFile(filepath.Join(got, "README"), []byte("mine"), 0o600))
			if code, _, msg := s.run(t, "get", "-q", saved, "--peer", whole); code != codeRefused {
				t.Errorf("over another file: code %d, %s", code, msg)
			}
			if p, err := os.ReadFile(filepath.Join(got, "README")); err != nil || string(p) != "mine" {
				t.Errorf("the file that was there is %q, %v", p, err)
			}
			if code, _, msg := s.run(t, "get", "-q", saved, "--peer", whole, "--overwrite"); code != 0 || !sameTree(t, m, got) {
				t.Errorf("replacing: code %d, %s", code, msg)
			}
			left, err := os.ReadDir(s.target)
			must(t, err)
			if len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// P06, P07: on a disk that takes two names for one, what is there under the other
// name is found to be there: never replaced, never mixed up.
func TestP06FoldingDisks(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"keeps", "decomposes", "replaces"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			at := mountFold(t, kind)
			s := &stage{dir: t.TempDir(), target: at}
			tree, m := oddTree(t, s.dir)
			saved := filepath.Join(s.dir, "odd.shoal")
			addr := (&fakeSeed{m: m, data: stream(t, m, tree), chunks: m.NumChunks()}).listen(t)
			line := []string{"get", "-q", saved, "--peer", addr}
			for _, other := range []string{"GRÖSSE", norm.NFD.String("größe")} {
				must(t, os.Mkdir(filepath.Join(at, other), 0o755))
				for _, inside := range []string{"readme", "STRASSE/E\u0301", "\u00c9T\u00c9/X"} { // files of the share, by other names
					p := filepath.Join(at, other, inside)
					must(t, os.MkdirAll(filepath.Dir(p), 0o755))
					must(t, os.WriteFile(p, []byte("mine"), 0o600))
					before := s.lies(t)
					if code, _, msg := s.run(t, line...); code != codeRefused {
						t.Errorf("%q/%q is there: code %d, %s", other, inside, code, msg)
					}
					if after := s.lies(t); after != before {
						t.Errorf("%q/%q: before\n%s\nafter\n%s", other, inside, before, after)
					}
					must(t, os.Remove(p))
				}
				// With the share's own content they are the same files.
				p := filepath.Join(at, other, "readme")
				must(t, os.WriteFile(p, noise(10), 0o640))
				if code, _, msg := s.run(t, line...); code != 0 {
					t.Errorf("%q: code %d, %s", other, code, msg)
				}
				if !sameTree(t, m, filepath.Join(at, "Größe")) {
					t.Errorf("%q: the tree is not right", other)
				}
				must(t, os.RemoveAll(filepath.Join(at, other)))
			}
			// Two names of one manifest that are one here are refused everywhere.
			seed := newTextSeed(t)
			for _, names := range [][2]string{{"README", "Readme"}, {"STRASSE", "Straße"}, {"e\u0301", "\u00e9"}, {"K", "\u212a"}, {"fi", "\ufb01"}} {
				text := "shoal-manifest 1\nname x\ntop dir 0755 0.000000000\ncutter fixed 131072\nsize 0\nentries 2\nchunks 0\n" +
					"file 0644 0.000000000 0 " + names[0] + "\nfile 0644 0.000000000 0 " + names[1] + "\n"
				before := s.lies(t)
				if code, _, msg := s.run(t, "get", "-q", seed.serve(t, text, nil)); code != codeRefused || !strings.Contains(msg, "would collide") {
					t.Errorf("%q: code %d, %s", names, code, msg)
				}
				if after := s.lies(t); after != before {
					t.Errorf("%q: before\n%s\nafter\n%s", names, before, after)
				}
			}
		})
	}
}

// lies returns what lies in the target, without the parts of gets.
func (s *stage) lies(t testing.TB) string {
	t.Helper()
	text, err := surroundings(s.target, func(rel string) bool {
		return rel == "." || strings.HasSuffix(rel, manifest.PartSuffix)
	})
	must(t, err)
	return text
}
