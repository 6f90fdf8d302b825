//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/manifest"
)

// What another user of the machine, or another program, puts where a get is about to
// write (T4): before it, between two runs, and while it runs.

// plantedTree makes a tree that is shared, and returns its folder and its manifest.
// It has a file of several chunks, small ones, and a folder.
func plantedTree(t testing.TB, dir string) (string, *manifest.Manifest) {
	t.Helper()
	tree := filepath.Join(dir, "tree")
	for name, n := range map[string]int{"big": 400_000, "out/passwd": 10, "small": 20} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(tree, name), noise(n), 0o644))
	}
	m, _, err := manifest.Build(t.Context(), []string{tree}, manifest.BuildOptions{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tree.shoal"), []byte(m.Text()), 0o644))
	return tree, m
}

// stream returns the bytes of a share, as its chunks cut them.
func stream(t testing.TB, m *manifest.Manifest, tree string) []byte {
	t.Helper()
	var all []byte
	for i := range m.Entries() {
		if e := &m.Entries()[i]; e.Kind == manifest.File {
			p, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(e.Path)))
			must(t, err)
			all = append(all, p...)
		}
	}
	return all
}

// A heldSeed gives the first chunk of a share at once, and the others when it is let.
type heldSeed struct {
	fakeSeed
	let  chan struct{}
	once sync.Once
}

func newHeldSeed(t testing.TB, m *manifest.Manifest, data []byte) (s *heldSeed, addr string) {
	s = &heldSeed{let: make(chan struct{})}
	s.fakeSeed = fakeSeed{m: m, data: data, chunks: m.NumChunks(), hold: func(i int) {
		if i > 0 {
			<-s.let
		}
	}}
	t.Cleanup(s.release) // before the node ends, which waits for it
	return s, s.listen(t)
}

func (s *heldSeed) release() { s.once.Do(func() { close(s.let) }) }

// sameTree reports whether the tree at path is the shared one.
func sameTree(t testing.TB, m *manifest.Manifest, path string) bool {
	t.Helper()
	same := true
	err := manifest.Verify(t.Context(), m, nil, path, func(d manifest.Difference) { same = same && !d.Failed() })
	return err == nil && same
}

// P10, P13: something stands at the final name, or in the folder that stands there.
// It is never followed, and never replaced.
func TestP13FinalNameTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tree, m := plantedTree(t, s.dir)
	addr := (&fakeSeed{m: m, data: stream(t, m, tree), chunks: m.NumChunks()}).listen(t)
	outside := filepath.Join(s.dir, "outside")
	secret := filepath.Join(outside, "secret")
	write := func(at, name string, p []byte) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(at, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(at, name), p, 0o644))
	}
	for name, plant := range map[string]func(at string){
		"a file":                func(at string) { must(t, os.WriteFile(at, []byte("mine"), 0o600)) },
		"an empty file":         func(at string) { must(t, os.WriteFile(at, nil, 0o600)) },
		"a link to a folder":    func(at string) { must(t, os.Symlink(outside, at)) },
		"a link to nowhere":     func(at string) { must(t, os.Symlink(filepath.Join(outside, "new"), at)) },
		"a pipe":                func(at string) { must(t, unix.Mkfifo(at, 0o600)) },
		"a hard link":           func(at string) { must(t, os.Link(secret, at)) },
		"other content":         func(at string) { write(at, "small", noise(21)) },
		"content of its length": func(at string) { write(at, "small", make([]byte, 20)) },
		"P10 a link inside": func(at string) {
			write(at, "mine", nil)
			must(t, os.Symlink(outside, filepath.Join(at, "out")))
		},
		"P10 a relative link inside": func(at string) {
			write(at, "mine", nil)
			must(t, os.Symlink("../../outside", filepath.Join(at, "out")))
		},
		"P10 a link for a file": func(at string) {
			write(at, "mine", nil)
			must(t, os.Symlink(secret, filepath.Join(at, "small")))
		},
		"P10 a link to nowhere for a file": func(at string) {
			write(at, "mine", nil)
			must(t, os.Symlink(filepath.Join(outside, "new"), filepath.Join(at, "small")))
		},
		"P10 a link in the folder": func(at string) {
			write(at, "out/mine", nil)
			must(t, os.Symlink(secret, filepath.Join(at, "out", "passwd")))
		},
		"a pipe inside":       func(at string) { write(at, "mine", nil); must(t, unix.Mkfifo(filepath.Join(at, "small"), 0o600)) },
		"a hard link inside":  func(at string) { write(at, "mine", nil); must(t, os.Link(secret, filepath.Join(at, "small"))) },
		"a folder for a file": func(at string) { write(at, "small/mine", nil) },
		"a file for a folder": func(at string) { write(at, "out", nil) },
		"a socket for a file": func(at string) {
			write(at, "mine", nil)
			must(t, unix.Mknod(filepath.Join(at, "small"), unix.S_IFSOCK|0o600, 0))
		},
		"a file that is not ours": func(at string) { write(at, "big", noise(400_000)); write(at, "small", []byte("mine")) },
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(s.target, "tree")
			plant(at)
			t.Cleanup(func() { must(t, os.RemoveAll(at)) })
			before := s.look(t, ".")
			for _, args := range [][]string{
				{"get", "-q", "../tree.shoal", "--peer", addr},
				{"get", "-q", "../tree.shoal", "--peer", addr, "-o", "./tree"},
				{"get", "-q", "../tree.shoal", s.target, "--peer", addr, "--only", "*"},
			} {
				code, _, msg := s.run(t, args...)
				if code != codeRefused || strings.Count(msg, "\n") != 1 {
					t.Errorf("%q: code %d, %q", args, code, msg)
				}
				if after := s.look(t, ".", "tree"+manifest.PartSuffix); after != before {
					t.Errorf("%q: before\n%s\nafter\n%s", args, before, after)
				}
				_ = os.RemoveAll(at + manifest.PartSuffix) // of what was fetched to be compared
			}
		})
	}
	t.Run("the same", func(t *testing.T) {
		at := filepath.Join(s.target, "tree")
		must(t, os.CopyFS(at, os.DirFS(tree)))
		before := s.look(t, ".")
		if code, _, msg := s.run(t, "get", "-q", "../tree.shoal", "--peer", addr); code != 0 {
			t.Errorf("code %d, %q", code, msg)
		}
		if after := s.look(t, "."); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	})
}

// P10: a part that somebody has prepared: links and pipes where our own files lie.
// Whatever becomes of the get, nothing outside changes, and what it calls complete is.
func TestP10PreparedPart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tree, m := plantedTree(t, s.dir)
	addr := (&fakeSeed{m: m, data: stream(t, m, tree), chunks: m.NumChunks()}).listen(t)
	outside := filepath.Join(s.dir, "outside")
	secret := filepath.Join(outside, "secret")
	text := []byte(m.Text())
	part := filepath.Join(s.target, "tree"+manifest.PartSuffix)
	link := func(to string, at ...string) {
		at = append([]string{part}, at...)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(at...)), 0o755))
		must(t, os.Symlink(to, filepath.Join(at...)))
	}
	for name, plant := range map[string]func(){
		"the part itself":           func() { must(t, os.Symlink(outside, part)) },
		"the part, to nowhere":      func() { must(t, os.Symlink(filepath.Join(outside, "new"), part)) },
		"the part is a pipe":        func() { must(t, unix.Mkfifo(part, 0o600)) },
		"data":                      func() { link(outside, "data") },
		"data, relative":            func() { link("../../outside", "data") },
		"a folder":                  func() { link(outside, "data", "out") },
		"a file":                    func() { link(secret, "data", "big") },
		"a small file":              func() { link(secret, "data", "small") },
		"a file to nowhere":         func() { link(filepath.Join(outside, "new"), "data", "big") },
		"a small file to nowhere":   func() { link(filepath.Join(outside, "new"), "data", "small") },
		"the lock":                  func() { link(secret, "lock") },
		"the journal":               func() { link(secret, "journal") },
		"the new journal":           func() { link(secret, "journal.new") },
		"the manifest":              func() { link(secret, "manifest") },
		"the new manifest":          func() { link(secret, "manifest.new") },
		"the request":               func() { link(secret, "request") },
		"what is compared":          func() { link(secret, "merge") },
		"the placing":               func() { link(secret, "placing") },
		"a pipe for a file":         func() { link("x", "data", "x"); must(t, unix.Mkfifo(filepath.Join(part, "data", "big"), 0o600)) },
		"a pipe for the journal":    func() { link("x", "x"); must(t, unix.Mkfifo(filepath.Join(part, "journal"), 0o600)) },
		"a pipe for the lock":       func() { link("x", "x"); must(t, unix.Mkfifo(filepath.Join(part, "lock"), 0o600)) },
		"a pipe for the manifest":   func() { must(t, os.Mkdir(part, 0o755)); must(t, unix.Mkfifo(filepath.Join(part, "manifest"), 0o600)) },
		"a hard link for a file":    func() { link("x", "data", "x"); must(t, os.Link(secret, filepath.Join(part, "data", "big"))) },
		"a hard link, small":        func() { link("x", "data", "x"); must(t, os.Link(secret, filepath.Join(part, "data", "small"))) },
		"a hard link for a journal": func() { link("x", "x"); must(t, os.Link(secret, filepath.Join(part, "journal"))) },
		"a hard link for a lock":    func() { link("x", "x"); must(t, os.Link(secret, filepath.Join(part, "lock"))) },
	} {
		for _, ours := range []bool{false, true} { // the part has the right manifest too
			t.Run(name+map[bool]string{true: ", with the manifest"}[ours], func(t *testing.T) {
				t.Cleanup(func() {
					must(t, os.RemoveAll(part))
					must(t, os.RemoveAll(filepath.Join(s.target, "tree")))
				})
				before := s.look(t, ".")
				plant()
				if ours {
					if fi, err := os.Lstat(part); err != nil || !fi.IsDir() {
						return
					}
					if _, err := os.Lstat(filepath.Join(part, "manifest")); err == nil {
						return
					}
					must(t, os.WriteFile(filepath.Join(part, "manifest"), text, 0o644))
				}
				code, _, msg := s.run(t, "get", "-q", "../tree.shoal", "--peer", addr)
				if code == 0 && !sameTree(t, m, filepath.Join(s.target, "tree")) {
					t.Error("it says that it is complete, and it is not")
				}
				if code != 0 && (strings.Count(msg, "\n") != 1 || code == codeOther) {
					t.Errorf("code %d, %q", code, msg)
				}
				if code != 0 { // and it can be given up
					s.run(t, "forget", "-q", "tree")
				}
				if after := s.look(t, ".", "tree", "tree"+manifest.PartSuffix); after != before {
					t.Errorf("code %d, %s: before\n%s\nafter\n%s", code, msg, before, after)
				}
			})
		}
	}
}

// P12: a folder that is given by a link is found once. What the link is made to lead
// to afterwards, or the name of the folder, does not matter.
func TestP12FolderSwapped(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"link", "folder", "part", "data"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			tree, m := plantedTree(t, s.dir)
			seed, addr := newHeldSeed(t, m, stream(t, m, tree))
			real := filepath.Join(s.dir, "real")
			must(t, os.Mkdir(real, 0o755))
			to := real
			if kind == "link" {
				to = filepath.Join(s.dir, "by link")
				must(t, os.Symlink("real", to))
			}
			before := s.look(t)
			p := start(t, filepath.Join(s.dir, ".home"), "get", "-q", "--json", filepath.Join(s.dir, "tree.shoal"), to, "--peer", addr)
			if p.wait("progress") == nil {
				t.Fatal("it ended")
			}
			part := filepath.Join(to, "tree"+manifest.PartSuffix)
			switch kind {
			case "link":
				must(t, os.Remove(to))
				must(t, os.Symlink("outside", to))
			case "folder":
				real = filepath.Join(s.dir, "moved")
				must(t, os.Rename(to, real))
				must(t, os.Symlink("outside", to))
			case "part":
				must(t, os.Rename(part, part+".away"))
				must(t, os.Symlink(filepath.Join(s.dir, "outside"), part))
			case "data":
				must(t, os.Rename(filepath.Join(part, "data"), filepath.Join(part, "away")))
				must(t, os.Symlink(filepath.Join(s.dir, "outside"), filepath.Join(part, "data")))
			}
			seed.release()
			for range p.events { // until it ends
			}
			_ = p.cmd.Wait()
			code := p.cmd.ProcessState.ExitCode()
			there := sameTree(t, m, filepath.Join(real, "tree"))
			switch kind {
			case "link", "folder":
				if code != 0 || !there {
					t.Errorf("code %d; complete where it began: %v", code, there)
				}
			default:
				if (code == 0) != there {
					t.Errorf("code %d; complete: %v", code, there)
				}
			}
			for _, name := range []string{to, real, filepath.Join(s.dir, "moved")} {
				must(t, os.RemoveAll(name))
			}
			must(t, os.Mkdir(filepath.Join(s.dir, "real"), 0o755))
			if kind == "link" {
				must(t, os.Symlink("real", to))
			}
			left := func(text string) string { // the two that were made anew have other times
				var keep []string
				for line := range strings.Lines(text) {
					if !strings.Contains(line, `"real"`) && !strings.Contains(line, `"by link"`) {
						keep = append(keep, line)
					}
				}
				return strings.Join(keep, "")
			}
			if after := s.look(t); left(after) != left(before) {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// P14: something takes the final name while the share is being fetched. It stays,
// what was fetched is kept, and the same line finishes once the place is free.
func TestP14FinalNameAppears(t *testing.T) {
	t.Parallel()
	for kind, plant := range map[string]func(t *testing.T, s *stage, at string){
		"file":   func(t *testing.T, _ *stage, at string) { must(t, os.WriteFile(at, []byte("mine"), 0o600)) },
		"folder": func(t *testing.T, _ *stage, at string) { must(t, os.Mkdir(at, 0o700)) },
		"link": func(t *testing.T, s *stage, at string) {
			must(t, os.Symlink(filepath.Join(s.dir, "outside"), at))
		},
		"dangling": func(t *testing.T, s *stage, at string) {
			must(t, os.Symlink(filepath.Join(s.dir, "outside", "new"), at))
		},
		"pipe": func(t *testing.T, _ *stage, at string) { must(t, unix.Mkfifo(at, 0o600)) },
		"hard": func(t *testing.T, s *stage, at string) {
			must(t, os.Link(filepath.Join(s.dir, "outside", "secret"), at))
		},
	} {
		for _, one := range []bool{false, true} {
			t.Run(kind+map[bool]string{true: ", one file"}[one], func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				var m *manifest.Manifest
				var data []byte
				if one {
					data, m = shareFile(t, s.dir, 400_000)
				} else {
					var tree string
					tree, m = plantedTree(t, s.dir)
					data = stream(t, m, tree)
				}
				seed, addr := newHeldSeed(t, m, data)
				at := filepath.Join(s.target, m.Name())
				line := []string{"get", "-q", "--json", filepath.Join(s.dir, m.Name()+".shoal"), s.target, "--peer", addr}
				p := start(t, filepath.Join(s.dir, ".home"), line...)
				if p.wait("progress") == nil {
					t.Fatal("it ended")
				}
				plant(t, s, at)
				before := s.look(t, ".", m.Name()+manifest.PartSuffix)
				seed.release()
				for range p.events {
				}
				_ = p.cmd.Wait()
				code := p.cmd.ProcessState.ExitCode()
				if after := s.look(t, ".", m.Name()+manifest.PartSuffix); after != before {
					t.Errorf("before\n%s\nafter\n%s", before, after)
				}
				if code != codeRefused {
					t.Errorf("code %d, want %d", code, codeRefused)
				}
				fi, err := os.Lstat(filepath.Join(s.target, m.Name()+manifest.PartSuffix, "data"))
				if err != nil {
					t.Fatalf("what was fetched: %v, %v", fi, err)
				}
				must(t, os.Remove(at))
				whole := (&fakeSeed{m: m, data: data, chunks: 0}).listen(t) // nothing is missing
				line[len(line)-1] = whole
				if code, _, msg := s.run(t, line...); code != 0 {
					t.Fatalf("the same line again: code %d, %s", code, msg)
				}
				if one {
					if got, err := os.ReadFile(at); err != nil || !bytes.Equal(got, data) {
						t.Error("the file is not right")
					}
				} else if !sameTree(t, m, at) {
					t.Error("the tree is not right")
				}
			})
		}
	}
}
