package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules that the code of this module keeps, whoever changes it. They are
// looked for in the text of all files, those for other systems too.

// A breach is a place that breaks a rule.
type breach struct {
	at   string // file:line
	what string
}

// A sourceFile is one file, parsed.
type sourceFile struct {
	name    string // relative to the module's folder, with slashes
	fset    *token.FileSet
	ast     *ast.File
	imports map[string]string // local name: path
	used    []string          // exceptions of mayWrite that the file needs
}

func parseSourceFile(name string, src []byte) (*sourceFile, error) {
	f := &sourceFile{name: name, fset: token.NewFileSet(), imports: map[string]string{}}
	var err error
	if f.ast, err = parser.ParseFile(f.fset, name, src, parser.SkipObjectResolution); err != nil {
		return nil, err
	}
	for _, i := range f.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		local := path.Base(p)
		if i.Name != nil {
			local = i.Name.Name
		}
		f.imports[local] = p
	}
	return f, nil
}

func (f *sourceFile) breach(n ast.Node, format string, args ...any) breach {
	return breach{fmt.Sprintf("%s:%d", f.name, f.fset.Position(n.Pos()).Line), fmt.Sprintf(format, args...)}
}

// callee returns the import path and the name of a function of another package, or "".
func (f *sourceFile) callee(e ast.Expr) (pkg, name string) {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if id, ok := s.X.(*ast.Ident); ok {
			return f.imports[id.Name], s.Sel.Name
		}
	}
	return "", ""
}

func (f *sourceFile) text(n ast.Node) string {
	var b bytes.Buffer
	if err := format.Node(&b, f.fset, n); err != nil {
		return err.Error()
	}
	return b.String()
}

// functions calls f for each function with its name; what is outside has "".
func (f *sourceFile) functions(visit func(name string, body ast.Node)) {
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if fn.Body != nil {
				visit(fn.Name.Name, fn.Body)
			}
			continue
		}
		visit("", d)
	}
}

// osWrites are the functions of the system that change what lies on a disk.
var osWrites = map[string][]string{
	"os": {
		"Create", "CreateTemp", "WriteFile", "OpenFile", "Rename", "Remove", "RemoveAll", "Mkdir", "MkdirAll", "MkdirTemp",
		"Symlink", "Link", "Chmod", "Chown", "Lchown", "Chtimes", "Truncate", "CopyFS", "StartProcess",
	},
	"os/exec":                  {"Command", "CommandContext"},
	"syscall":                  unixWrites,
	"golang.org/x/sys/unix":    unixWrites,
	"golang.org/x/sys/windows": {"CreateFile", "DeleteFile", "MoveFile", "MoveFileEx", "RemoveDirectory", "CreateDirectory", "CreateSymbolicLink", "CreateHardLink", "SetFileInformationByHandle"},
}

var unixWrites = []string{
	"Open", "Openat", "Openat2", "Creat", "Rename", "Renameat", "Renameat2", "RenamexNp", "RenameatxNp", "Unlink", "Unlinkat", "Rmdir",
	"Mkdir", "Mkdirat", "Mknod", "Mknodat", "Mkfifo", "Symlink", "Symlinkat", "Link", "Linkat", "Chmod", "Fchmodat", "Chown", "Lchown",
	"Fchownat", "Truncate", "Utimes", "UtimesNano", "UtimesNanoAt", "Mount", "Exec", "ForkExec",
}

// mayWrite are the only places that change a disk, and by what. What a share says
// comes to a disk by the confined writer alone, transfer/store/osdisk*.go.
var mayWrite = map[string][]string{
	"transfer/store/osdisk_linux.go create":     {"Openat"},    // in an open directory, one component, never through a link
	"transfer/store/osdisk_linux.go renameat2":  {"Renameat2"}, // the same
	"transfer/store/osdisk_unix.go renameOver":  {"Renameat"},
	"transfer/store/rename_darwin.go renameatx": {"RenameatxNp"},
	"transfer/store/origin.go use":              {"OpenFile"}, // to read
	"manifest/sys_unix.go openDirAt":            {"Openat"},   // to read
	"manifest/sys_unix.go openFile":             {"Open"},     // to read
	"transfer/get.go prepare":                   {"MkdirAll"}, // the folder that the user named
	"transfer/state/state.go update":            {"MkdirAll"}, // SHOAL_HOME
	"transfer/state/state.go open":              {"Rename"},
	"cmd/shoal/source.go writeManifest":         {"OpenFile", "CreateTemp", "Remove", "Rename"}, // the file that the user named
	"transfer/state/state.go create":            {"Link", "Rename", "Remove"},
	"cmd/shoal/crash.go writeTrace":             {"MkdirAll", "CreateTemp", "Remove"}, // SHOAL_HOME
	"cmd/shoal/doctor.go checkState":            {"MkdirAll"},                         // SHOAL_HOME
	"cmd/shoal/doctor.go probe":                 {"CreateTemp", "Remove"},             // a file of its own name, gone at once
	"cmd/shoal/runsocket.go serveRun":           {"MkdirAll", "Chmod"},                // SHOAL_HOME
	"cmd/shoal/runsocket.go removeSocket":       {"Remove"},
	"cmd/shoal/forget.go removeMade":            {"Remove"},                // empty folders that a get has made
	"cmd/shoal/man.go man":                      {"MkdirAll", "WriteFile"}, // our own pages, where the user says
	"cmd/shoal/source.go fetchManifest":         {"MkdirTemp", "RemoveAll"},
	"cmd/shoal/spool.go newSpool":               {"MkdirAll", "MkdirTemp", "RemoveAll"}, // in SHOAL_HOME
	"cmd/shoal/spool.go remove":                 {"RemoveAll"},
	"cmd/shoal/spool.go fill":                   {"OpenFile"},
	"cmd/shoal/demo.go demo":                    {"MkdirTemp", "RemoveAll"},
	"cmd/shoal/demo.go start":                   {"CommandContext"}, // ourselves
}

func checkDiskWrites(f *sourceFile) (found []breach) {
	f.functions(func(fn string, body ast.Node) {
		ast.Inspect(body, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, name := f.callee(s)
			switch {
			case !slices.Contains(osWrites[pkg], name):
			case slices.Contains(mayWrite[f.name+" "+fn], name):
				f.used = append(f.used, f.name+" "+fn+" "+name)
			default:
				found = append(found, f.breach(s, "%s.%s in %s changes a disk outside the confined writer", path.Base(pkg), name, fn))
			}
			return true
		})
	})
	return found
}

// checkReadAll finds io.ReadAll of anything whose length is not said.
func checkReadAll(f *sourceFile) (found []breach) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		pkg, name := f.callee(c.Fun)
		if name != "ReadAll" || pkg != "io" && pkg != "io/ioutil" {
			return true
		}
		if in, ok := c.Args[0].(*ast.CallExpr); ok {
			if pkg, name := f.callee(in.Fun); pkg == "io" && (name == "LimitReader" || name == "NewSectionReader") {
				return true
			}
		}
		found = append(found, f.breach(c, "io.ReadAll reads as much as the other side likes"))
		return true
	})
	return found
}

// checkTLS finds a configuration that skips the check of certificates and has none
// of its own.
func checkTLS(f *sourceFile) (found []breach) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			skips, checks := false, false
			for _, e := range n.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					continue
				}
				switch f.text(kv.Key) {
				case "InsecureSkipVerify":
					skips = f.text(kv.Value) != "false"
				case "VerifyConnection", "VerifyPeerCertificate":
					checks = f.text(kv.Value) != "nil"
				}
			}
			if skips && !checks {
				found = append(found, f.breach(n, "InsecureSkipVerify without VerifyConnection or VerifyPeerCertificate beside it"))
			}
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				if s, ok := l.(*ast.SelectorExpr); ok && s.Sel.Name == "InsecureSkipVerify" {
					found = append(found, f.breach(n, "InsecureSkipVerify set apart from the configuration that it is of"))
				}
			}
		}
		return true
	})
	return found
}

// checkSilent finds printing in packages that return errors instead.
func checkSilent(f *sourceFile) (found []breach) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch pkg, name := f.callee(s); {
		case pkg == "os" && (name == "Stdout" || name == "Stderr" || name == "Exit"),
			pkg == "fmt" && strings.HasPrefix(name, "Print"), pkg == "log":
			found = append(found, f.breach(s, "%s.%s: only cmd prints and exits", pkg, name))
		}
		return true
	})
	return found
}

// safeCalls return nothing that anybody else could have chosen, or have escaped it.
var safeCalls = []string{
	"escape", "bytesText", "count", "countSize", "durationText", "percent",
	"humanize.Time", "humanize.Comma", "runtime.Version",
	"manText", // of our own pages
	"m.Root", "m.Cutter", "m.ChunkHash", "Format", "e.Mode.String",
}

// safePrints are arguments that are printed as they are, and why that is right.
var safePrints = map[string]string{
	"cmd/shoal/manifest.go m.Text()":         "the text itself, to whoever asked for it",
	"cmd/shoal/share.go t":                   "the ticket, which is base58",
	"cmd/shoal/ls.go e.Mode":                 "a mode",
	"cmd/shoal/ls.go e.Mode.String()[1:]":    "a mode",
	"cmd/shoal/version.go version":           "our own",
	"cmd/shoal/completion.go script":         "our own",
	"cmd/shoal/man.go version":               "our own",
	"cmd/shoal/man.go strings.ToUpper(page)": "our own",
	"cmd/shoal/crash.go lead":                "a line end",
	"cmd/shoal/plan.go what":                 "our own",
	"cmd/shoal/version.go rev":               "our own",
	"cmd/shoal/version.go runtime.GOOS":      "Go's own",
	"cmd/shoal/version.go runtime.GOARCH":    "Go's own",
}

// checkPrints finds text that goes to a terminal or a file as it is, although
// somebody else may have written it.
func checkPrints(f *sourceFile) (found []breach) {
	f.functions(func(_ string, body ast.Node) {
		escaped := map[string]bool{} // variables that hold what escape has returned
		builders := map[string]bool{}
		ast.Inspect(body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for k, r := range n.Rhs {
					if c, ok := r.(*ast.CallExpr); ok && f.text(c.Fun) == "escape" && len(n.Lhs) == len(n.Rhs) {
						escaped[f.text(n.Lhs[k])] = true
					}
				}
			case *ast.ValueSpec: // var b strings.Builder
				if n.Type != nil && (f.text(n.Type) == "strings.Builder" || f.text(n.Type) == "bytes.Buffer") {
					for _, id := range n.Names {
						builders["&"+id.Name] = true
					}
				}
			}
			return true
		})
		var safe func(e ast.Expr) bool
		safe = func(e ast.Expr) bool {
			text := f.text(e)
			if escaped[text] || safePrints[f.name+" "+text] != "" {
				return true
			}
			switch e := e.(type) {
			case *ast.BasicLit:
				return true
			case *ast.BinaryExpr:
				return safe(e.X) && safe(e.Y)
			case *ast.CallExpr:
				name := f.text(e.Fun)
				return slices.Contains(safeCalls, name) || slices.Contains(safeCalls, name[strings.LastIndexByte(name, '.')+1:])
			}
			return false
		}
		ast.Inspect(body, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			args := printed(f, c)
			if args == nil || len(c.Args) > 0 && builders[f.text(c.Args[0])] {
				return true
			}
			for _, a := range args {
				if !safe(a) {
					found = append(found, f.breach(a, "%s is printed by %s without escape", f.text(a), f.text(c.Fun)))
				}
			}
			return true
		})
	})
	return found
}

// printed returns the arguments that a call prints as text; nil if it prints none.
func printed(f *sourceFile, c *ast.CallExpr) []ast.Expr {
	pkg, name := f.callee(c.Fun)
	args := c.Args
	switch {
	case pkg == "io" && name == "WriteString":
		if strings.HasSuffix(f.text(args[0]), "stdout") || strings.HasSuffix(f.text(args[0]), "stderr") {
			return args[1:]
		}
		return nil
	case pkg != "fmt":
		return nil
	case strings.HasPrefix(name, "Fprint"):
		args = args[1:]
	case !strings.HasPrefix(name, "Print"):
		return nil
	}
	if !strings.HasSuffix(name, "f") {
		return args
	}
	lit, ok := args[0].(*ast.BasicLit)
	if !ok {
		return args // a format that somebody else could have chosen
	}
	layout, err := strconv.Unquote(lit.Value)
	if err != nil {
		return args
	}
	var texts []ast.Expr
	k := 1
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			continue
		}
		for i++; i < len(layout) && strings.IndexByte("+-# 0123456789.*[]", layout[i]) >= 0; i++ {
			if layout[i] == '*' {
				k++
			}
		}
		if i == len(layout) || layout[i] == '%' {
			continue
		}
		if k < len(args) && (layout[i] == 's' || layout[i] == 'v') {
			texts = append(texts, args[k])
		}
		k++
	}
	return texts
}

// A rule is looked for in the files that it is for.
type rule struct {
	name  string
	find  func(*sourceFile) []breach
	where func(name string) bool
}

func in(dirs ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(name, d+"/") })
	}
}

var rules = []rule{
	{"disk", checkDiskWrites, func(name string) bool {
		return in("chunk", "manifest", "peer", "transfer", "cmd/shoal")(name) && name != "cmd/shoal/demotree.go"
	}},
	{"readall", checkReadAll, in("chunk", "manifest", "peer", "transfer", "cmd/shoal")},
	{"tls", checkTLS, in("chunk", "manifest", "peer", "transfer", "cmd")},
	{"silent", checkSilent, in("chunk", "manifest", "peer", "transfer")},
	{"print", checkPrints, in("cmd/shoal")},
}

func TestRules(t *testing.T) {
	root := filepath.Join("..", "..")
	num := map[string]int{}
	used := map[string]bool{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && p != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parseSourceFile(filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if !r.where(f.name) {
				continue
			}
			num[r.name]++
			for _, b := range r.find(f) {
				t.Errorf("%s: %s", b.at, b.what)
			}
		}
		for _, x := range f.used {
			used[x] = true
		}
		return nil
	}))
	for _, r := range rules {
		if num[r.name] == 0 {
			t.Errorf("the rule %q was held against no file", r.name)
		}
	}
	for place, names := range mayWrite {
		for _, name := range names {
			if !used[place+" "+name] {
				t.Errorf("%s does not use %s: take it off the list of exceptions", place, name)
			}
		}
	}
}

// Each rule finds what breaks it, and leaves alone what does not.
func TestRulesFind(t *testing.T) {
	for _, test := range []struct {
		rule, file, body string
		want             string // "" is no breach
	}{
		{"disk", "transfer/x.go", `import "os"; func f() { os.Remove("x") }`, "os.Remove in f"},
		{"disk", "transfer/x.go", `import ours "os"; func f() { g(ours.WriteFile) }`, "os.WriteFile in f"},
		{"disk", "transfer/x.go", `import "os"; var make = os.MkdirAll`, "os.MkdirAll in "},
		{"disk", "transfer/x.go", `import "os"; func f() { os.Open("x"); os.Lstat("y") }`, ""},
		{"disk", "peer/x.go", `import "golang.org/x/sys/unix"; func f() { unix.Unlinkat(1, "x", 0) }`, "unix.Unlinkat in f"},
		{"disk", "transfer/get.go", `import "os"; func f() { os.MkdirAll("x", 0) }`, "os.MkdirAll in f"},
		{"disk", "transfer/get.go", `import "os"; func prepare() { os.MkdirAll("x", 0) }`, ""},
		{"disk", "transfer/get.go", `import "os"; func prepare() { os.RemoveAll("x") }`, "os.RemoveAll in prepare"},
		{"disk", "cmd/shoal/x.go", `import "os/exec"; func f() { exec.Command("sh") }`, "exec.Command in f"},
		{"readall", "peer/x.go", `import "io"; func f(c io.Reader) { io.ReadAll(c) }`, "io.ReadAll"},
		{"readall", "peer/x.go", `import "io"; func f(c io.Reader) { io.ReadAll(io.LimitReader(c, 5)) }`, ""},
		{"readall", "peer/x.go", `import r "io/ioutil"; func f(c io.Reader) { r.ReadAll(c) }`, "io.ReadAll"},
		{"tls", "peer/x.go", `var c = tls.Config{InsecureSkipVerify: true}`, "InsecureSkipVerify without"},
		{"tls", "peer/x.go", `var c = &tls.Config{InsecureSkipVerify: yes, VerifyConnection: nil}`, "InsecureSkipVerify without"},
		{"tls", "peer/x.go", `var c = &tls.Config{InsecureSkipVerify: true, VerifyConnection: pin}`, ""},
		{"tls", "peer/x.go", `var c = &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: pin}`, ""},
		{"tls", "peer/x.go", `var c = &tls.Config{InsecureSkipVerify: false}`, ""},
		{"tls", "peer/x.go", `func f() { c.InsecureSkipVerify = true }`, "set apart"},
		{"silent", "transfer/x.go", `import "fmt"; func f() { fmt.Println() }`, "only cmd"},
		{"silent", "transfer/x.go", `import "os"; func f() { fmt.Fprint(os.Stderr) }`, "only cmd"},
		{"silent", "transfer/x.go", `import "log"; func f() { log.Fatal(1) }`, "only cmd"},
		{"silent", "transfer/x.go", `import "fmt"; func f() { fmt.Sprint(1) }`, ""},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Fprintf(w, "%s", e.Path) }`, "e.Path is printed"},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Fprintf(w, "%d %-*v", 1, 5, e.Path) }`, "e.Path is printed"},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Fprintf(w, "%q %d%%\n", e.Path, n) }`, ""},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Fprintf(w, e.Path) }`, "e.Path is printed"},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Println(err) }`, "err is printed"},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { fmt.Fprintln(w, escape(e.Path)) }`, ""},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { p := escape(e.Path); fmt.Fprintln(w, p) }`, ""},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { p := e.Path; fmt.Fprintln(w, p) }`, "p is printed"},
		{"print", "cmd/shoal/x.go", `import "io"; func f() { io.WriteString(a.stdout, s+"x") }`, `s + "x" is printed`},
		{"print", "cmd/shoal/x.go", `import "io"; func f() { io.WriteString(a.stderr, escape(s)+"x") }`, ""},
		{"print", "cmd/shoal/x.go", `import "fmt"; func f() { var b strings.Builder; fmt.Fprintf(&b, "%s", s) }`, ""},
	} {
		k := slices.IndexFunc(rules, func(r rule) bool { return r.name == test.rule })
		f, err := parseSourceFile(test.file, []byte("package x\n"+test.body))
		must(t, err)
		if !rules[k].where(f.name) {
			t.Errorf("%s is not held against %s", test.rule, test.file)
		}
		found := fmt.Sprint(rules[k].find(f))
		if (test.want == "") != (found == "[]") || !strings.Contains(found, test.want) {
			t.Errorf("%s in %s, %s: found %s, want %q", test.rule, test.file, test.body, found, test.want)
		}
	}
}

// The README and the page on security name tests; each of them exists.
func TestNamedTestsExist(t *testing.T) {
	root := filepath.Join("..", "..")
	tests := map[string]bool{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		src, err := os.ReadFile(p)
		for _, m := range testFunc.FindAllSubmatch(src, -1) {
			tests[string(m[1])] = true
		}
		return err
	}))
	for _, page := range []string{"README.md", filepath.Join(".github", "SECURITY.md")} {
		text, err := os.ReadFile(filepath.Join(root, page))
		must(t, err)
		named := testName.FindAllSubmatch(text, -1)
		if len(named) < 10 {
			t.Errorf("%s names %d tests", page, len(named))
		}
		for _, m := range named {
			if !tests[string(m[1])] {
				t.Errorf("%s names %s, and there is no such test", page, m[1])
			}
		}
	}
}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	testName = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
)
