package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A tree that was shared before, and has not changed, is not read again: its ticket
// is there at once.
func TestKnownTreeIsNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 64 << 20
	must(t, os.WriteFile(filepath.Join(dir, "data"), noise(size), 0o644))
	time.Sleep(100 * time.Millisecond) // what was changed just before it was read is not remembered
	share := func() (root any, read int64) {
		p := start(t, filepath.Join(dir, ".home"), "share", filepath.Join(dir, "data"), "--json", "--quiet", "--listen", "127.0.0.1:0")
		e := p.wait("ticket")
		if e == nil {
			t.Fatal("no ticket")
		}
		io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.cmd.Process.Pid))
		must(t, err)
		_, line, _ := strings.Cut(string(io), "rchar: ")
		_, err = fmt.Sscan(line, &read)
		must(t, err)
		must(t, p.cmd.Process.Signal(os.Interrupt))
		must(t, p.cmd.Wait())
		// The port is another one each time.
		return manifestRoot(t, e["ticket"].(string)), read
	}
	first, all := share()
	again, read := share()
	if first != again {
		t.Errorf("the ticket is for another share: %v, %v", first, again)
	}
	if all < size || read > size/8 {
		t.Errorf("read %d bytes, and of the known tree %d", all, read)
	}
}
