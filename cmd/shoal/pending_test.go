package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// output runs the program and returns what it wrote to stdout.
func output(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "shoal", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// interrupted leaves half a get of data.shoal in dir/to.
func interrupted(t testing.TB, dir, to string) {
	t.Helper()
	data, m := shareFile(t, dir, 4<<20)
	half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}
	if code, msg := shoal(t, dir, "get", "data.shoal", to, "--peer", half.listen(t), "--timeout", "2s"); code != codeStalled {
		t.Fatalf("a get from half a seed: code %d, %s", code, msg)
	}
}

// A get is on the list while it runs and when it was interrupted; when its folder
// was moved, it is found again by naming the new one.
func TestStatusFollows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 4<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}).listen(t)
	p := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr)
	for e := p.wait("progress"); e["done"].(float64) < float64(len(data)/2); e = p.wait("progress") {
	}
	if got := output(t, dir, "status", "-q"); !strings.Contains(got, " 50 %  2.1 MB of 4.2 MB  begun ") || !strings.Contains(got, "from "+addr+"  (running: process ") {
		t.Errorf("while it runs: %q", got)
	}
	if code, msg := shoal(t, dir, "forget", "out/data"); code != codeRunning || !strings.Contains(msg, "already being fetched by process") {
		t.Errorf("forget while it runs: code %d, %q", code, msg)
	}
	must(t, p.cmd.Process.Kill())
	for range p.events { // until it is gone
	}
	if got := output(t, dir, "status", "--json", "-q"); !strings.Contains(got, `"state":"interrupted"`) || !strings.Contains(got, `"from":["`+addr+`"]`) {
		t.Errorf("when it was killed: %q", got)
	}

	must(t, os.Rename(filepath.Join(dir, "out"), filepath.Join(dir, "moved")))
	if got := output(t, dir, "status", "-q"); !strings.HasPrefix(got, " gone ") {
		t.Errorf("when its folder was moved: %q", got)
	}
	if got := output(t, dir, "status", "-q", "moved"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, " 50 %") || !strings.Contains(got, filepath.Join(dir, "moved", "data")) {
		t.Errorf("when the new place was named: %q", got)
	}
	if got := output(t, dir, "status", "-q"); !strings.HasPrefix(got, " 50 %") || !strings.Contains(got, filepath.Join(dir, "moved", "data")) {
		t.Errorf("it is not remembered: %q", got)
	}
	whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	if code, msg := shoal(t, dir, "resume", "--peer", whole); code != 0 || !strings.Contains(msg, "resumed at 50 %") {
		t.Errorf("resume: code %d, %s", code, msg)
	}
}

// forget removes what shoal has made, and nothing else.
func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "new", "folder")
	interrupted(t, dir, out)
	if code, msg := shoal(t, dir, "forget", "new/folder/data"); code != 0 {
		t.Fatalf("code %d, %s", code, msg)
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder that get had made is left: %v", err)
	}
	if got := output(t, dir, "status", "-q"); got != "" {
		t.Errorf("status: %q", got)
	}

	// What others have put there stays, also behind a link.
	interrupted(t, dir, out)
	precious := filepath.Join(dir, "precious")
	must(t, os.WriteFile(precious, []byte("mine"), 0o600))
	part := filepath.Join(out, "data.shoal-part")
	must(t, os.WriteFile(filepath.Join(part, "guest"), []byte("mine"), 0o600))
	must(t, os.Remove(filepath.Join(part, "data")))
	must(t, os.Symlink(precious, filepath.Join(part, "data")))
	code, msg := shoal(t, dir, "forget", part)
	if code != 0 || !strings.Contains(msg, "2 things in ") {
		t.Errorf("code %d, %s", code, msg)
	}
	for _, name := range []string{precious, filepath.Join(part, "guest")} {
		if p, err := os.ReadFile(name); err != nil || string(p) != "mine" {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(part, "manifest")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the manifest is left: %v", err)
	}

	// A folder that only has the name is not touched.
	must(t, os.MkdirAll(filepath.Join(dir, "x.shoal-part"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "x.shoal-part", "data"), []byte("mine"), 0o600))
	if code, msg := shoal(t, dir, "forget", "x"); code != codeRefused || strings.Count(msg, "\n") != 1 {
		t.Errorf("code %d, %s", code, msg)
	}
	if code, msg := shoal(t, dir, "forget", "nothing"); code != codeOther || !strings.Contains(msg, "no interrupted get at") {
		t.Errorf("code %d, %s", code, msg)
	}

	// One that is gone can be dropped.
	interrupted(t, dir, "third")
	must(t, os.RemoveAll(filepath.Join(dir, "third")))
	if code, msg := shoal(t, dir, "forget", "--gone"); code != 0 || !strings.Contains(msg, "forgotten: "+filepath.Join(dir, "third", "data")) {
		t.Errorf("code %d, %s", code, msg)
	}
	if got := output(t, dir, "status", "-q"); got != "" {
		t.Errorf("status: %q", got)
	}
}

// What another process fetches is not resumed: with its folder named that is an
// error that names the process, also if there are others; else it is said, and the
// rest is resumed.
func TestResumeRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 4<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}).listen(t)
	p := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr)
	if p.wait("progress") == nil {
		t.Fatal("the get ended")
	}
	fetched := fmt.Sprintf("is already being fetched by process %d on ", p.cmd.Process.Pid)
	refused := func(args ...string) {
		t.Helper()
		code, msg := shoal(t, dir, append(args, "--peer", addr, "--timeout", "20s")...)
		if code != codeRunning || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, fetched) {
			t.Errorf("%q: code %d, %q", args, code, msg)
		}
	}
	refused("resume", "out")
	refused("resume")

	if code, msg := shoal(t, dir, "get", "data.shoal", "other", "--peer", addr, "--timeout", "2s"); code != codeStalled {
		t.Fatalf("a get from half a seed: code %d, %s", code, msg)
	}
	refused("resume", "out")
	whole := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	code, msg := shoal(t, dir, "resume", "--peer", whole, "--timeout", "20s")
	if code != 0 || strings.Count(msg, fetched) != 1 || !strings.Contains(msg, "resumed at 50 %") {
		t.Errorf("resume of the rest: code %d, %s", code, msg)
	}

	q := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "third"), "--peer", addr)
	if q.wait("progress") == nil {
		t.Fatal("the get ended")
	}
	code, msg = shoal(t, dir, "resume")
	if code != 0 || strings.Count(msg, " is already being fetched by process ") != 2 || !strings.HasSuffix(msg, "nothing else to resume\n") {
		t.Errorf("resume when all are being fetched: code %d, %s", code, msg)
	}
}
