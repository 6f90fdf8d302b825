package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mr-tron/base58"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// leakChecked runs the tests, and then looks for goroutines that were left.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	// What the developer has set for shoal is none of the tests' business.
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "SHOAL_") && name != "SHOAL_CI" && name != "SHOAL_SOAK" && !strings.HasPrefix(name, "SHOAL_TEST_") {
			_ = os.Unsetenv(name)
		}
	}
	home, err := os.MkdirTemp("", "shoal-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(home)
	_ = os.Setenv("SHOAL_HOME", home)
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// commands are what the test binary is when it is called by one of these names.
var commands = map[string]func(){"shoal": main, "bare": bare, "crashing": crashing}

// TestMain makes the test binary behave as shoal when it is called by that name.
func TestMain(m *testing.M) {
	// Nothing may leave this machine, unless a test has networks of its own.
	if _, set := os.LookupEnv("SHOAL_NO_LAN"); !set {
		_ = os.Setenv("SHOAL_NO_LAN", "1") // cannot fail for such a name
	}
	testscript.Main(leakChecked{m}, commands)
}

// TestScripts runs the stories in testdata/script with the real program. Beside
// testscript's own commands they know
//
//	waitfor FILE [TEXT]  wait until FILE is there, and holds TEXT
//	seed VAR ARGS...     run share with ARGS in the background, with its ticket in
//	                     $VAR and its address in ${VAR}_ADDR
//	stop VAR [SIGNAL]    end it, by SIGINT unless told otherwise; it must exit with 0.
//	                     What it printed is in VAR.stdout and VAR.stderr
//	web VAR DIR          serve DIR by HTTP, with its URL in $VAR
//	speak VAR TEXT       listen at an address, put it into $VAR, and answer with TEXT
//	code N ARGS...       run ARGS, which must end with the exit code N
//	say N ARGS...        the same; there must be one line on stderr, and none on stdout
//	snapshot             remember all that lies in the working folder
//	unchanged            fail unless it is the same as at the last snapshot
//	noise FILE SIZE      make a file of SIZE bytes, the same for the same name
//	link OLD NEW         give a file another name
//	head SIZE FILE NEW   copy the first SIZE bytes of FILE
//	edit FILE OFFSET     change one byte of FILE
//	future VAR           put a ticket of version 2 into $VAR
//	broken VAR TICKET    put the ticket into $VAR with a line break in it
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHOAL_HOME", filepath.Join(e.WorkDir, ".home"))
			e.Setenv("SHOAL_NO_LAN", "1")
			e.Values["seeds"] = map[string]*scriptSeed{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor, "code": exitCode, "noise": makeNoise, "edit": editFile, "say": sayCode,
			"seed": startSeed, "stop": stopSeed, "speak": speak, "snapshot": snapshot, "unchanged": unchanged, "future": future, "web": serveWeb, "broken": broken,
			"head": copyHead,
			"link": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.Link(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
			},
		},
	})
}

func serveWeb(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[1]))))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// A scriptSeed is a share that runs beside a script.
type scriptSeed struct {
	cmd            *exec.Cmd
	stdout, stderr string // names of files
}

func startSeed(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: seed VAR ARGS...")
	}
	exe, err := exec.LookPath("shoal")
	ts.Check(err)
	s := &scriptSeed{stdout: ts.MkAbs(args[0] + ".stdout"), stderr: ts.MkAbs(args[0] + ".stderr")}
	s.cmd = exec.Command(exe, append([]string{"share", "--listen", "127.0.0.1:0"}, args[1:]...)...)
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = append(os.Environ(), "SHOAL_HOME="+ts.Getenv("SHOAL_HOME"))
	out, err := os.Create(s.stdout)
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(s.stderr)
	ts.Check(err)
	defer errs.Close()
	s.cmd.Stdout, s.cmd.Stderr = out, errs
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		_ = s.cmd.Process.Kill() // it was stopped, if all went well
		_ = s.cmd.Wait()
	})
	ts.Value("seeds").(map[string]*scriptSeed)[args[0]] = s
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(s.stdout)
		ts.Check(err)
		if line, _, ok := strings.Cut(string(b), "\n"); ok {
			t, err := manifest.ParseTicket(line)
			ts.Check(err)
			ts.Setenv(args[0], line)
			ts.Setenv(args[0]+"_ADDR", t.Addrs[0])
			return
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(s.stderr)
			ts.Fatalf("no ticket from share: %s", b)
		}
	}
}

func stopSeed(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value("seeds").(map[string]*scriptSeed)[args[0]]
	var sig os.Signal = os.Interrupt
	if len(args) > 1 && args[1] == "SIGTERM" {
		sig = syscall.SIGTERM
	}
	ts.Check(s.cmd.Process.Signal(sig))
	began := time.Now()
	if err := s.cmd.Wait(); err != nil {
		b, _ := os.ReadFile(s.stderr)
		ts.Fatalf("share ended with %v: %s", err, b)
	}
	if d := time.Since(began); d > 2*time.Second {
		ts.Fatalf("share took %v to end", d)
	}
}

// speak is a server that is no peer.
func speak(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, args[1])
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	ts.Setenv(args[0], l.Addr().String())
	ts.Defer(func() {
		_ = l.Close()
		<-done
	})
}

func future(ts *testscript.TestScript, _ bool, args []string) {
	b := append([]byte{2}, make([]byte, 40)...)
	sum := chunk.Sum(b)
	ts.Setenv(args[0], "shoal:"+base58.Encode(append(b, sum[:4]...)))
}

func broken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], args[1][:20]+"\n"+args[1][20:])
}

func sayCode(ts *testscript.TestScript, neg bool, args []string) {
	exitCode(ts, neg, args)
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output: %q", out)
	}
	if msg := ts.ReadFile("stderr"); strings.Count(msg, "\n") != 1 || !strings.HasPrefix(msg, "shoal: ") {
		ts.Fatalf("it did not say one line: %q", msg)
	}
}

func snapshot(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Setenv("SNAPSHOT", listing(ts))
}

func unchanged(ts *testscript.TestScript, _ bool, _ []string) {
	if was, is := ts.Getenv("SNAPSHOT"), listing(ts); was != is {
		ts.Fatalf("before:\n%s\nnow:\n%s", was, is)
	}
}

// listing names all that lies in the working folder, except shoal's own state and
// what testscript and seeds write.
func listing(ts *testscript.TestScript) string {
	text, err := surroundings(ts.Getenv("WORK"), func(rel string) bool {
		return rel == "." || rel == ".home" || rel == ".tmp" || strings.HasSuffix(rel, ".stdout") || strings.HasSuffix(rel, ".stderr")
	})
	ts.Check(err)
	return text
}

// surroundings names all that lies beneath root, with modes, times, and hashes or
// targets. What leave reports true for is left out, with what is beneath it; for "."
// only the folder itself is.
func surroundings(root string, leave func(rel string) bool) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case !leave(rel):
		case d.IsDir() && rel != ".":
			return filepath.SkipDir
		default:
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch fi.Mode().Type() {
		case 0:
			p, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = chunk.Sum(p).String()
		case fs.ModeSymlink:
			if what, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%v %v %q %s\n", fi.Mode(), fi.ModTime().UnixNano(), rel, what)
		return nil
	})
	return b.String(), err
}

func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if len(args) == 1 {
			if _, err := os.Lstat(ts.MkAbs(args[0])); err == nil {
				return
			}
			continue
		}
		if p, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(p), args[1]) {
			return
		}
	}
	ts.Fatalf("%q did not come", args)
}

func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		x, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = x.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func makeNoise(ts *testscript.TestScript, _ bool, args []string) {
	var n int
	_, err := fmt.Sscan(args[1], &n)
	ts.Check(err)
	p := make([]byte, n)
	seed := uint32(2166136261)
	for _, c := range []byte(args[0]) {
		seed = (seed ^ uint32(c)) * 16777619
	}
	for i := range p {
		seed ^= seed << 13
		seed ^= seed >> 17
		seed ^= seed << 5
		p[i] = byte(seed)
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), p, 0o644))
}

func copyHead(ts *testscript.TestScript, _ bool, args []string) {
	var n int
	_, err := fmt.Sscan(args[0], &n)
	ts.Check(err)
	p, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), p[:n], 0o644))
}

func editFile(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	p, err := os.ReadFile(name)
	ts.Check(err)
	var off int
	_, err = fmt.Sscan(args[1], &off)
	ts.Check(err)
	p = bytes.Clone(p)
	p[off] ^= 1
	ts.Check(os.WriteFile(name, p, 0o644))
}
