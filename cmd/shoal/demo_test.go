package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The demo works with the smallest tree that it makes, on a fast machine too, and
// leaves nothing behind.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o755))
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp) // Windows
	story := output(t, dir, "demo", "--size", "50")
	for _, want := range []string{"takes at most 25 MB/s", `SIGKILL at about [3-8]\d %`, `from .* \(until it was killed\)`, "the same\nall done in "} {
		if !regexp.MustCompile(want).MatchString(story) {
			t.Errorf("it does not say %q:\n%s", want, story)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Other sizes are refused, and the error and the help name those that work.
func TestDemoSize(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []string{"-1", "0", "1", "49", "100001"} {
		code, msg := shoal(t, dir, "demo", "--size="+size)
		if code != codeUsage || !strings.Contains(msg, "--size "+size+": it is a number of MB from 50 to 100000") {
			t.Errorf("%s: code %d, %q", size, code, msg)
		}
	}
	if help := output(t, dir, "demo", "--help"); !strings.Contains(help, "N MB, 50 to 100000") {
		t.Errorf("the help does not name the sizes:\n%s", help)
	}
	for _, size := range []int64{50, 60, 300, 2000, 5000, 100_000} {
		rate := (&demo{size: size * 1e6}).rate()
		if n, err := parseSize(strconv.FormatInt(rate, 10)); err != nil || n != rate || rate*demoSeconds > size*1e6 {
			t.Errorf("%d MB: a rate of %d: %v", size, rate, err)
		}
	}
}
