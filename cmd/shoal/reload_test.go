//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// SIGHUP makes a share read its configuration again: a get that would take a
// minute is done at once. What is wrong in it changes nothing. SIGUSR1 asks both
// sides how far they are. Without a configuration SIGHUP is the end.
func TestReloadAndStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := filepath.Join(dir, ".home")
	must(t, os.Mkdir(home, 0o755))
	config := filepath.Join(home, "config.toml")
	must(t, os.WriteFile(config, []byte("[share]\nlimit-up = \"50K\"\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "data"), noise(4<<20), 0o644))

	run := func(home string, args ...string) (*process, *lockedBuffer) {
		exe, err := os.Executable()
		must(t, err)
		cmd := exec.Command(exe, args...)
		cmd.Args[0] = "shoal"
		cmd.Env = append(os.Environ(), "SHOAL_HOME="+home)
		errs := &lockedBuffer{}
		cmd.Stderr = errs
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it has ended, if all went well
			_ = cmd.Wait()
		})
		p := &process{cmd: cmd, events: make(chan map[string]any, 10_000)}
		go p.read(out)
		return p, errs
	}
	share, said := run(home, "share", "--json", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
	e := share.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	said.await(t, "Ctrl-C ends it")
	get, got := run(t.TempDir(), "get", "--json", e["ticket"].(string), dir+"/out", "--quiet")
	for { // until it knows what it fetches
		e := get.wait("progress")
		if e == nil {
			t.Fatal("the get ended")
		}
		if e["done"].(float64) > 0 {
			break
		}
	}
	must(t, get.cmd.Process.Signal(syscall.SIGUSR1))
	got.await(t, "shoal: ")
	got.await(t, "of 4.2 MB")
	must(t, share.cmd.Process.Signal(syscall.SIGUSR1))
	said.await(t, "shoal: serving for ")

	must(t, os.WriteFile(config, []byte("[share]\nlimit-up = \"5\"\n"), 0o644))
	must(t, share.cmd.Process.Signal(syscall.SIGHUP))
	said.await(t, "nothing was changed: "+config+`:2: limit-up "5": it is bytes/s`)
	must(t, os.WriteFile(config, []byte("\n"), 0o644))
	must(t, share.cmd.Process.Signal(syscall.SIGHUP))
	said.await(t, "config.toml was read again; limit up: none, down: none")
	if get.wait("finished") == nil {
		t.Fatalf("the get ended: %s", got.String())
	}
	must(t, os.Remove(config))
	must(t, share.cmd.Process.Signal(syscall.SIGHUP))
	said.await(t, "nothing was changed: "+config+" is not there any more")
	must(t, share.cmd.Process.Signal(os.Interrupt))
	if err := share.cmd.Wait(); err != nil {
		t.Errorf("share ended with %v: %s", err, said.String())
	}

	share, said = run(t.TempDir(), "share", "--json", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
	if share.wait("ticket") == nil {
		t.Fatal("no ticket")
	}
	must(t, share.cmd.Process.Signal(syscall.SIGHUP))
	for range share.events { // until it ends
	}
	_ = share.cmd.Wait()
	if share.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("SIGHUP without a configuration: %v, %s", share.cmd.ProcessState, said.String())
	}
}
