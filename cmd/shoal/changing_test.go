//go:build unix

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/chunk"
)

// D09, D10: a file changes while it is shared. What is served is what was hashed, or
// nothing: no receiver ever gets a wrong byte, and what did not change is served.
func TestD10ServedWhileChanging(t *testing.T) {
	t.Parallel()
	const size = 8*chunk.MinSize + 5
	flip := func(off int64) func(t *testing.T, p string) {
		return func(t *testing.T, p string) {
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			must(t, err)
			var b [1]byte
			_, err = f.ReadAt(b[:], off)
			must(t, err)
			b[0] ^= 1
			_, err = f.WriteAt(b[:], off)
			must(t, err)
			must(t, f.Close())
		}
	}
	for _, test := range []struct {
		name   string
		change func(t *testing.T, p string)
		whole  bool // all of it is still there, and is served
		none   bool // and nothing of it, if it is not
	}{
		{"touched", func(t *testing.T, p string) { must(t, os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0))) }, true, false},
		{"copied over itself", func(t *testing.T, p string) { must(t, os.WriteFile(p, noise(size), 0o644)) }, true, false},
		{"replaced by a copy", func(t *testing.T, p string) {
			must(t, os.WriteFile(p+".new", noise(size), 0o644))
			must(t, os.Rename(p+".new", p))
		}, true, false},
		{"another mode", func(t *testing.T, p string) { must(t, os.Chmod(p, 0o400)) }, true, false},
		{"appended", func(t *testing.T, p string) {
			f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString("more")
			must(t, err)
			must(t, f.Close())
		}, true, false},
		{"one bit", flip(3*chunk.MinSize + 7), false, false},
		{"one bit, with the old time", func(t *testing.T, p string) {
			fi, err := os.Stat(p)
			must(t, err)
			flip(3*chunk.MinSize+7)(t, p)
			must(t, os.Chtimes(p, fi.ModTime(), fi.ModTime()))
		}, false, false},
		{"truncated", func(t *testing.T, p string) { must(t, os.Truncate(p, 4*chunk.MinSize+1)) }, false, false},
		{"emptied", func(t *testing.T, p string) { must(t, os.Truncate(p, 0)) }, false, true},
		{"other content", func(t *testing.T, p string) { must(t, os.WriteFile(p, make([]byte, size), 0o644)) }, false, true},
		{"replaced by another", func(t *testing.T, p string) {
			must(t, os.WriteFile(p+".new", make([]byte, size), 0o644))
			must(t, os.Rename(p+".new", p))
		}, false, true},
		{"deleted", func(t *testing.T, p string) { must(t, os.Remove(p)) }, false, true},
		{"now a folder", func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, os.Mkdir(p, 0o755)) }, false, true},
		{"now a pipe", func(t *testing.T, p string) { must(t, os.Remove(p)); must(t, unix.Mkfifo(p, 0o644)) }, false, true},
		{"now a link to another", func(t *testing.T, p string) {
			must(t, os.WriteFile(p+".new", make([]byte, size), 0o644))
			must(t, os.Remove(p))
			must(t, os.Symlink(p+".new", p))
		}, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			p := filepath.Join(s.dir, "data")
			must(t, os.WriteFile(p, noise(size), 0o644))
			share := start(t, filepath.Join(s.dir, ".home"), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", p)
			e := share.wait("ticket")
			if e == nil {
				t.Fatal("no ticket")
			}
			test.change(t, p)
			get := []string{"get", "--listen", "off", e["ticket"].(string), "--timeout", "1s"}
			code, _, msg := s.run(t, get...)
			if strings.Contains(msg, "wrong bytes") || code == codeIntegrity {
				t.Errorf("it was sent something else: code %d, %s", code, msg)
			}
			got, err := os.ReadFile(filepath.Join(s.target, "data"))
			switch {
			case code == 0 && (err != nil || !bytes.Equal(got, noise(size))):
				t.Errorf("it says that it is complete, and it is not: %v", err)
			case code == 0 && !test.whole:
				t.Error("it is complete; what came from where?")
			case code != 0 && test.whole:
				t.Errorf("what is still there was not served: code %d, %s", code, msg)
			case code != 0 && code != codeStalled:
				t.Errorf("code %d, %s", code, msg)
			case code != 0 && err == nil:
				t.Error("a file that is not complete has its name")
			}
			if test.whole {
				return
			}
			// When it is as it was again, the same line finishes.
			must(t, os.RemoveAll(p))
			must(t, os.WriteFile(p, noise(size), 0o644))
			code, _, msg = s.run(t, append(get[:len(get)-1], "60s")...)
			if code != 0 {
				t.Errorf("as it was again: code %d, %s", code, msg)
			}
			if kept := strings.Contains(msg, "resumed at "); kept == test.none {
				t.Errorf("of what did not change something was kept: %v", kept)
			}
		})
	}
}

// D10: a file is written to all the time, while it is hashed and while it is served.
func TestD10WrittenAllTheTime(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := filepath.Join(s.dir, "data")
	must(t, os.WriteFile(p, noise(4<<20), 0o644))
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	must(t, err)
	scribble := func() (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for k := int64(0); ctx.Err() == nil; k++ {
				if _, err := f.WriteAt([]byte{byte(k)}, k*7919%(4<<20)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		end = sync.OnceFunc(func() { cancel(); wg.Wait() })
		t.Cleanup(end)
		return end
	}
	t.Cleanup(func() { must(t, f.Close()) })
	end := scribble()
	// On a busy machine the writer may rest while all of it is hashed.
	noticed := false
	for range 50 {
		code, _, msg := s.run(t, "manifest", "create", p, "-o", "saved.shoal")
		if noticed = code == codeOther && strings.Contains(msg, "has changed"); noticed {
			break
		}
		if code != 0 {
			t.Fatalf("hashed while it was written to: code %d, %s", code, msg)
		}
	}
	if !noticed {
		t.Error("that it was written to was never noticed")
	}
	end()
	share := start(t, filepath.Join(s.dir, ".home"), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", p)
	e := share.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	_, err = f.WriteAt([]byte{^noise(1)[0], 1, 2, 3}, 0)
	must(t, err)
	scribble()
	code, _, msg := s.run(t, "get", "--listen", "off", e["ticket"].(string), "--timeout", "1s")
	if code != codeStalled || strings.Contains(msg, "wrong bytes") {
		t.Errorf("served while it is written to: code %d, %s", code, msg)
	}
}

// P18: what is no file is neither read nor waited for, and told of; with --strict it
// is an error.
func TestP18Share(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tree := filepath.Join(s.dir, "tree")
	must(t, os.Mkdir(tree, 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "file"), []byte("file"), 0o644))
	must(t, unix.Mkfifo(filepath.Join(tree, "pipe"), 0o644))
	must(t, os.Symlink("../outside/secret", filepath.Join(tree, "out")))
	must(t, os.Symlink("loop", filepath.Join(tree, "loop")))
	must(t, os.Symlink("/proc/self/environ", filepath.Join(tree, "proc")))
	must(t, os.WriteFile(filepath.Join(tree, "esc\x1b[2J"), nil, 0o644))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(s.dir, "s"), Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, os.Rename(filepath.Join(s.dir, "s"), filepath.Join(tree, "socket")))
	must(t, l.Close())
	code, _, msg := s.run(t, "manifest", "create", tree, "-o", "saved.shoal")
	if code != 0 {
		t.Fatalf("code %d, %s", code, msg)
	}
	for _, want := range []string{`"pipe": it is a named pipe`, `"out": the link leads out`, `"loop": the link goes round`, `"proc": the link leads to an absolute path`, `"socket": it is a socket`, `control character`} {
		if !strings.Contains(msg, want) {
			t.Errorf("it did not say %q: %s", want, msg)
		}
	}
	if _, list, _ := s.run(t, "ls", "saved.shoal"); strings.Count(list, "\n") != 1 || !strings.Contains(list, " file\n") {
		t.Errorf("the share has %q", list)
	}
	if code, _, msg := s.run(t, "manifest", "create", tree, "--strict"); code == 0 || !strings.Contains(msg, "cannot be shared") {
		t.Errorf("strict: code %d, %s", code, msg)
	}
}

// U01: whatever an argument or a name holds, and wherever it is repeated, nothing of
// it acts on a terminal (stage.run looks at each byte), and it is one line.
func TestU01Sinks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, text := range []string{"\x1b[2J", "\x1b]52;c;aGk=\x07", "a\rb", "a\nb", "\u202egpj", "\u009b2J", "\xff", strings.Repeat("\u202e", 2000)} {
		for _, args := range [][]string{
			{text},
			{"get", text},
			{"get", "--" + text},
			{"get", "x.shoal", "--peer", text},
			{"ls", text},
			{"share", text},
			{"share", ".", "--name", text},
			{"resume", text},
			{"verify", "x.shoal", text},
			{"manifest", text},
			{"help", text},
			{"get", "shoal:" + text},
			{"get", "x.shoal", "-o", text + "/.."},
		} {
			code, stdout, msg := s.run(t, args...)
			if code == 0 || stdout != "" || strings.Count(msg, "\n") != 1 {
				t.Errorf("%.60q: code %d, printed %q, said %q", args, code, stdout, msg)
			}
		}
	}
	odd := (&hostileName{path: "odd\u200b\u3164\u00ad\U000e0041name"}).manifest("share\u200b")
	must(t, os.WriteFile(filepath.Join(s.target, "odd.shoal"), []byte(odd), 0o644))
	ticket := newTextSeed(t).serve(t, odd, nil)
	for _, args := range [][]string{
		{"ls", "odd.shoal"},
		{"ls", "--json", "odd.shoal"},
		{"manifest", "show", "odd.shoal"},
		{"verify", "odd.shoal", "."},
		{"get", ticket},
		{"get", "--json", ticket, "new"},
		{"verify", "odd.shoal", "new"},
	} {
		if code, stdout, msg := s.run(t, args...); code != 0 && args[0] != "verify" || strings.Contains(stdout+msg, "panic") {
			t.Errorf("%q: code %d, printed %q, said %q", args, code, stdout, msg)
		}
	}
}
