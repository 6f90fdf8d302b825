package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

// After very many connections of all kinds, to a share and to a get, both have as
// many descriptors, goroutines and bytes as before.
func TestR08ManyConnects(t *testing.T) {
	num := 1000
	if os.Getenv("SHOAL_CI") != "" && !testing.Short() {
		num = 10_000
	}
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	s := serveAt(t, filepath.Join(dir, "data"), 0)
	half := &fakeSeed{m: m, data: data, chunks: m.NumChunks() / 2} // so that the get goes on
	n, err := newNetwork()
	must(t, err)
	defer n.Close()
	at, _, err := n.listen("127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var getting sync.WaitGroup
	defer getting.Wait()
	defer cancel()
	up := make(chan struct{}, 100)
	o := transfer.GetOptions{
		Manifest: m, Addrs: []string{half.listen(t)}, Dir: t.TempDir(), Timeout: time.Hour, Network: n, Port: int(at.Port()),
		Events: func(e transfer.Event) {
			if p, ok := e.(transfer.Progress); ok && p.Done > 0 {
				select {
				case up <- struct{}{}:
				default:
				}
			}
		},
	}
	getting.Go(func() { _, _ = transfer.Get(ctx, o) }) // it is ended in the middle
	<-up

	polite := newVillain(t, behaviour{name: "polite", run: func(c *badConn) { c.sayf("have none\nbye\n") }}, m, data)
	rude := newVillain(t, behaviour{name: "rude", run: (*badConn).reset}, m, data)
	bare := newVillain(t, behaviour{name: "bare", raw: func(c *badConn) { _, _ = c.nc.Write([]byte("GET / HTTP/1.1\r\n")) }}, m, data)
	connect := func(v *villain, addr string) {
		if nc, err := v.dial(addr); err == nil {
			v.meet(nc, true)
		}
	}
	for _, v := range []*villain{polite, rude, bare} { // what is made once only
		connect(v, s.addr)
		connect(v, at.String())
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var st runtime.MemStats
		runtime.ReadMemStats(&st)
		return st.HeapAlloc
	}
	fds := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // not on this system
		}
		return len(d)
	}
	time.Sleep(100 * time.Millisecond) // the first ones are gone; if not, more is allowed
	goroutines, files, bytes := runtime.NumGoroutine(), fds(), heap()
	for k := range num {
		v := bare
		switch {
		case k%20 == 0:
			v = polite
		case k%20 == 10:
			v = rude
		}
		connect(v, []string{s.addr, at.String()}[k/20%2])
	}
	waitUntil(t, func() bool { return runtime.NumGoroutine() <= goroutines+5 && fds() <= files+5 })
	if now := heap(); now > bytes+8<<20 {
		t.Errorf("%d bytes of heap, %d before", now, bytes)
	}
	t.Logf("%d connections: %d goroutines (%d before), %d files (%d)", num, runtime.NumGoroutine(), goroutines, fds(), files)
}
