package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
)

// U04: whoever has the ticket can fetch the share. Other users of the machine see
// arguments, and files that they may read; in none of these is it.
func TestU04TicketStaysSecret(t *testing.T) {
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	half := (&fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2}).listen(t) // so that it goes on
	ticket := manifest.Ticket{Root: m.Root(), Addrs: []string{half}}.String()
	must(t, os.WriteFile(filepath.Join(dir, "ticket"), []byte(ticket+"\n"), 0o600))
	home := filepath.Join(dir, "home")

	old := syscall.Umask(0) // the worst that a user may have set
	p := start(t, home, "get", "--json", "--timeout", "30s", "@"+filepath.Join(dir, "ticket"), filepath.Join(dir, "out"))
	syscall.Umask(old)
	if p.wait("progress") == nil {
		t.Fatal("nothing came")
	}
	secret := ticket[len("shoal:"):]
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "cmdline"))
	must(t, err)
	if strings.Contains(string(args), secret) {
		t.Errorf("its arguments are %q", args)
	}
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	for range p.events { // until it has written what it leaves
	}
	_ = p.cmd.Wait()

	// What only the user may enter, nobody else can read.
	private := func(name string, mode fs.FileMode) {
		if mode&0o077 != 0 {
			t.Errorf("%s has the mode %v", name, mode)
		}
	}
	i, err := os.Stat(home)
	must(t, err)
	private(home, i.Mode())
	n := 0
	must(t, filepath.WalkDir(home, func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		if i, err := d.Info(); err == nil && d.Type().IsRegular() {
			private(name, i.Mode())
			n++
		}
		return nil
	}))
	if n == 0 {
		t.Error("it left no state at all")
	}
	parts, err := filepath.Glob(filepath.Join(dir, "out", "*"+manifest.PartSuffix))
	must(t, err)
	if len(parts) != 1 {
		t.Fatalf("it left %q", parts)
	}
	i, err = os.Stat(parts[0])
	must(t, err)
	private(parts[0], i.Mode())
}
