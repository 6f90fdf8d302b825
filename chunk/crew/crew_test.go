package crew

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A crash is announced once, in the goroutine that crashed, and then ends the
// program with the trace of where it was. A listener that hangs does not hold it up.
func TestCrashIsAnnounced(t *testing.T) {
	if os.Getenv("CREW_CRASH") != "" {
		OnCrash(func(v any) { fmt.Fprintln(os.Stderr, "last words:", v) })
		OnCrash(func(any) { fmt.Fprintln(os.Stderr, "should not be said") })()
		OnCrash(func(any) { select {} })
		var c Crew
		for range 3 {
			c.Go(func() { goesWrong(nil) })
		}
		c.Wait()
		os.Exit(0)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestCrashIsAnnounced$")
	cmd.Env = append(os.Environ(), "CREW_CRASH=1")
	out, err := cmd.CombinedOutput()
	text := string(out)
	if exit := (&exec.ExitError{}); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("it ended with %v", err)
	}
	if strings.Count(text, "last words: ") != 1 || !strings.HasPrefix(text, "last words: runtime error") {
		t.Errorf("it said %q", text)
	}
	if strings.Contains(text, "should not be said") || !strings.Contains(text, "crew.goesWrong") {
		t.Errorf("no trace of the crash: %s", text)
	}
}

//go:noinline
func goesWrong(p *int) { *p++ }

// What ends without a crash is not announced, even if it ends oddly.
func TestNoCrash(t *testing.T) {
	defer OnCrash(func(v any) { t.Errorf("announced %v", v) })()
	var c Crew
	c.Go(func() {})
	c.Go(runtime.Goexit)
	c.Wait()
}

// Every goroutine of the packages below cmd is started by a Crew or guarded.
func TestNobodyElseStartsGoroutines(t *testing.T) {
	for _, pkg := range []string{"chunk", "manifest", "peer", "transfer"} {
		err := filepath.WalkDir(filepath.Join("..", "..", pkg), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "crew.go") {
				return err
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a go statement; use crew.Crew", set.Position(n.Pos()))
				case *ast.CallExpr:
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "AfterFunc" {
						if g, ok := n.Args[len(n.Args)-1].(*ast.CallExpr); !ok || !isGuard(g) {
							t.Errorf("%s: a function that nobody guards; use crew.Guard", set.Position(n.Pos()))
						}
					}
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "errgroup" {
						t.Errorf("%s: errgroup starts goroutines; use crew.Crew", set.Position(n.Pos()))
					}
				case *ast.Field:
					checkWaitGroup(t, set, n.Type, n.Names)
				case *ast.ValueSpec:
					checkWaitGroup(t, set, n.Type, n.Names)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func isGuard(call *ast.CallExpr) bool {
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Guard"
}

// counters are wait groups that only count.
var counters = map[string]bool{"running": true, "calls": true}

func checkWaitGroup(t *testing.T, set *token.FileSet, typ ast.Expr, names []*ast.Ident) {
	s, ok := typ.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "WaitGroup" {
		return
	}
	for _, name := range names {
		if !counters[name.Name] {
			t.Errorf("%s: sync.WaitGroup %s; use crew.Crew", set.Position(name.Pos()), name.Name)
		}
	}
}
