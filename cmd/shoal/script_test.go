package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// leakChecked runs the tests, and then looks for goroutines that were left.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// TestMain makes the test binary behave as shoal when it is called by that name.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"shoal": main})
}

// TestScripts runs the stories in testdata/script with the real program. Beside
// testscript's own commands they know
//
//	waitfor FILE TEXT   wait until FILE holds TEXT
//	ticket VAR FILE     put the ticket that FILE holds into $VAR
//	code N ARGS...      run ARGS, which must end with the exit code N
//	noise FILE SIZE     make a file of SIZE bytes, the same for the same name
//	edit FILE OFFSET    change one byte of FILE
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SHOAL_HOME", filepath.Join(e.WorkDir, ".home"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor, "ticket": ticketOf, "code": exitCode, "noise": makeNoise, "edit": editFile,
		},
	})
}

func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if p, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(p), args[1]) {
			return
		}
	}
	ts.Fatalf("%s does not hold %q", args[0], args[1])
}

func ticketOf(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, false, []string{args[1], "\n"})
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
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
