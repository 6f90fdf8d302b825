package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/urfave/cli/v2"
)

// An eventSchema checks what --json prints, and notes which events it has seen.
type eventSchema struct {
	schema *jsonschema.Schema
	fields map[string]map[string]bool // of each event

	mu   sync.Mutex
	seen map[string]bool
}

func loadEventSchema(t *testing.T) *eventSchema {
	t.Helper()
	file := filepath.Join("..", "..", "testdata", "json", "events.schema.json")
	s := &eventSchema{fields: map[string]map[string]bool{}, seen: map[string]bool{}}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	var err error
	s.schema, err = c.Compile(file)
	must(t, err)
	text, err := os.ReadFile(file)
	must(t, err)
	var doc struct {
		Defs map[string]struct {
			Properties map[string]any
		} `json:"$defs"`
		Properties struct{ Event struct{ Enum []string } }
	}
	must(t, json.Unmarshal(text, &doc))
	for _, name := range doc.Properties.Event.Enum {
		s.fields[name] = map[string]bool{}
		for field := range doc.Defs[name].Properties {
			s.fields[name][field] = true
		}
	}
	return s
}

// check fails unless out is lines of JSON, each as the schema has it and without
// a field that the schema does not know. It returns the events.
func (s *eventSchema) check(t *testing.T, what string, out []byte) (events []map[string]any) {
	t.Helper()
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
		t.Errorf("%s: the last line has no end: %q", what, out)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(lines.Bytes()))
		if err == nil {
			err = s.schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: %s\n%v", what, lines.Text(), err)
			continue
		}
		e := v.(map[string]any)
		name := e["event"].(string)
		for field := range e {
			if !s.fields[name][field] {
				t.Errorf("%s: the schema does not know the field %q of %s", what, field, name)
			}
		}
		s.mu.Lock()
		s.seen[name] = true
		s.mu.Unlock()
		events = append(events, e)
	}
	return events
}

// Every command that prints something has --json, and what it prints with it,
// also when it fails, is as the schema says.
func TestJSON(t *testing.T) {
	schema := loadEventSchema(t)
	text := []string{"completion", "man"} // print programs and pages
	leaves(testApp().cli().Commands, nil, func(names []string, cmd *cli.Command) {
		if lookup(cmd.Flags, "json") == nil && !slices.Contains(text, names[0]) {
			t.Errorf("%q has no --json", names)
		}
	})

	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "large"), noise(3<<20), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "sub", "a\u202eb \x1b[31m"), []byte("x"), 0o644))
	must(t, os.Symlink("large", filepath.Join(dir, "tree", "link")))
	data, m := shareFile(t, dir, 4<<20)
	run := func(code int, args ...string) []map[string]any {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "shoal", append(args, "--json")...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run()
		what := fmt.Sprintf("%q", args)
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("%s: code %d, want %d; %s", what, got, code, errs.String())
		}
		events := schema.check(t, what, out.Bytes())
		if code != 0 {
			if k := len(events) - 1; k < 0 || fmt.Sprint(events[k]["code"]) != fmt.Sprint(code) || !strings.Contains(errs.String(), "shoal: ") {
				t.Errorf("%s: the last line does not tell of code %d: %v", what, code, events)
			}
		}
		return events
	}

	share := exec.Command("shoal", "share", "tree", "--json", "--listen", "127.0.0.1:0", "--any-name")
	share.Dir = dir
	share.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	shared := &lockedBuffer{}
	share.Stdout = shared
	must(t, share.Start())
	t.Cleanup(func() {
		_ = share.Process.Kill() // it has ended, if all went well
		_ = share.Wait()
	})
	shared.await(t, "\n")
	ticket := schema.check(t, "share", []byte(shared.String()))[0]["ticket"].(string)

	run(0, "version")
	run(0, "manifest", "create", "tree", "-o", "tree.shoal", "--any-name")
	run(0, "manifest", "show", "tree.shoal")
	run(0, "ls", ticket)
	run(0, "manifest", "diff", "tree.shoal", "data.shoal")
	run(0, "why")
	run(0, "doctor", ticket)
	run(0, "get", ticket, "one", "--any-name", "--reuse", "data")
	run(0, "get", ticket, "one", "--any-name")
	run(0, "get", ticket, "two", "--any-name", "--plan")
	must(t, os.WriteFile(filepath.Join(dir, "one", "tree", "large"), noise(99), 0o644))
	run(6, "verify", "tree.shoal", "one/tree")
	run(8, "get", ticket, "one", "--any-name")
	run(8, "get", ticket, "one", "--any-name", "--plan")
	run(9, "get", ticket, "one", "--any-name", "--skip")
	run(0, "get", ticket, "one", "--any-name", "--rename")

	half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}
	liar := &fakeSeed{m: m, data: data, chunks: m.NumChunks(), wrong: true}
	run(10, "get", "data.shoal", "half", "--peer", half.listen(t), "--peer", liar.listen(t), "--stall-timeout", "2s")
	run(0, "status")
	whole := &fakeSeed{m: m, data: data, chunks: m.NumChunks()}
	run(0, "resume", "half", "--peer", whole.listen(t))
	run(10, "get", "data.shoal", "again", "--peer", half.listen(t), "--stall-timeout", "1s")
	run(0, "forget", filepath.Join("again", "data"))
	run(4, "get", "data.shoal", "none", "--peer", "127.0.0.1:1", "--timeout", "1200ms")

	// Progress comes at most twice a second.
	events := run(0, "get", "data.shoal", "slow", "--peer", whole.listen(t), "--limit-down", "2M")
	num, seconds := 0, 0.0
	for _, e := range events {
		switch e["event"] {
		case "progress":
			num++
		case "finished":
			var err error
			seconds, err = e["seconds"].(json.Number).Float64()
			must(t, err)
		}
	}
	if num == 0 || float64(num) > 2*seconds+1 {
		t.Errorf("%d times progress in %.2f s", num, seconds)
	}

	must(t, share.Process.Signal(os.Interrupt))
	must(t, share.Wait())
	schema.check(t, "share", []byte(shared.String()))

	r, w, err := os.Pipe()
	must(t, err)
	d := &demo{a: &app{ui: newUI(w, os.Stderr)}}
	d.a.json = true
	d.say("%d peers", 3)
	must(t, w.Close())
	var said bytes.Buffer
	_, err = said.ReadFrom(r)
	must(t, errors.Join(err, r.Close()))
	schema.check(t, "demo", said.Bytes())

	elsewhere := []string{"warning", "stock", "packed", "why"} // the tests of those commands look at them
	for name := range schema.fields {
		if !schema.seen[name] && !slices.Contains(elsewhere, name) {
			t.Errorf("the test has seen no %q", name)
		}
	}
}

// Each event that the program prints is in the schema, and each of those is in
// the table of README.md with its fields.
func TestEventsAreDocumented(t *testing.T) {
	schema := loadEventSchema(t)
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	must(t, err)
	files, err := filepath.Glob("*.go")
	must(t, err)
	printed := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`\b(?:emit|event|list)\("([a-z_]+)"`).FindAllSubmatch(src, -1) {
			printed[string(m[1])] = true
		}
	}
	for name := range printed {
		if schema.fields[name] == nil {
			t.Errorf("%q is not in the schema", name)
		}
	}
	for name, fields := range schema.fields {
		if !printed[name] {
			t.Errorf("nothing prints %q", name)
		}
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\|.*$").Find(readme)
		if row == nil {
			t.Errorf("%q is not in the table of README.md", name)
			continue
		}
		for field := range fields {
			if field != "shoal" && field != "event" && !bytes.Contains(row, []byte("`"+field+"`")) {
				t.Errorf("README.md: the row of %q does not have %q", name, field)
			}
		}
	}
}
