//go:build unix

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Without HOME it is said what is missing, once, and not only that some folder at
// the root of the disk cannot be made. Commands that remember nothing are silent.
func TestWithoutHome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe, err := os.Executable()
	must(t, err)
	run := func(args ...string) (string, error) {
		cmd := exec.Command(exe, args...)
		cmd.Args[0], cmd.Dir = "shoal", dir
		for _, v := range os.Environ() {
			if name, _, _ := strings.Cut(v, "="); name != "HOME" && name != "SHOAL_HOME" && !strings.HasPrefix(name, "XDG_") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const said = "neither HOME nor SHOAL_HOME is set"
	out, err := run("status")
	if err != nil || strings.Count(out, said) != 1 || !strings.Contains(out, homeFix) {
		t.Errorf("status: %v, %s", err, out)
	}
	out, err = run("doctor")
	if err == nil || !strings.Contains(out, "PROBLEM  state     "+said) || !strings.Contains(out, homeFix) {
		t.Errorf("doctor: %v, %s", err, out)
	}
	out, err = run("version")
	if err != nil || strings.Contains(out, "HOME") {
		t.Errorf("version: %v, %s", err, out)
	}
}
