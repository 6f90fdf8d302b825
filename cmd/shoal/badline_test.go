package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// A badLine is a line to one peer that loses nothing but is bad: what goes over it
// has a rate, takes its time, and some of it comes late, with all that is behind it.
type badLine struct {
	bytesPerSecond float64       // each way; 0 is no limit
	delay          time.Duration // each way
	late           int           // one segment of so many is late by
	by             time.Duration
}

// A lineSegment is what is on its way.
type lineSegment struct {
	data []byte
	due  time.Time
}

// lineSegmentSize is what one packet of an ordinary line carries.
const lineSegmentSize = 1400

// listen starts the line to a target, and returns its near end. It ends with the
// test.
func (b *badLine) listen(t testing.TB, target string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer near.Close()
				far, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer far.Close()
				defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
				var both sync.WaitGroup
				both.Go(func() { b.carry(ctx, far, near) })
				both.Go(func() { b.carry(ctx, near, far) })
				both.Wait()
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return l.Addr().String()
}

// carry passes on what comes, one way, until the end.
func (b *badLine) carry(ctx context.Context, to, from net.Conn) {
	limit := rate.Inf
	if b.bytesPerSecond > 0 {
		limit = rate.Limit(b.bytesPerSecond)
	}
	pace := rate.NewLimiter(limit, lineSegmentSize)
	way := make(chan lineSegment, 1024) // 1.4 MB on its way at most
	var out sync.WaitGroup
	out.Go(func() {
		defer to.Close()
		for s := range way {
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(s.due)):
			}
			if _, err := to.Write(s.data); err != nil {
				from.Close()
				break
			}
		}
		for range way { // so that the reader never waits
		}
	})
	for n := 1; ; n++ {
		buf := make([]byte, lineSegmentSize)
		m, err := from.Read(buf)
		if m > 0 && pace.WaitN(ctx, m) == nil {
			due := time.Now().Add(b.delay)
			if b.late > 0 && n%b.late == 0 {
				due = due.Add(b.by)
			}
			way <- lineSegment{buf[:m], due}
		}
		if err != nil {
			break
		}
	}
	close(way)
	out.Wait()
}

// Bad lines are slow and nothing else: a get over one finishes, is right, and
// fetches next to nothing twice.
func TestN04BadLines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, tt := range []struct {
		name string
		line badLine
		size int
	}{
		{"56 kbit a second", badLine{bytesPerSecond: 7000}, 64 << 10},
		{"200 ms each way", badLine{delay: 200 * time.Millisecond}, 1 << 20},
		{"one segment of a hundred is late", badLine{delay: 10 * time.Millisecond, late: 100, by: 300 * time.Millisecond}, 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data, _ := shareFile(t, dir, tt.size)
			s := start(t, filepath.Join(dir, ".seed"), "share", "--json", "-q", "--no-lan", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
			e := s.wait("ticket")
			if e == nil {
				t.Fatal("no ticket")
			}
			addr := tt.line.listen(t, e["listen"].(string))
			began := time.Now()
			p := start(t, filepath.Join(dir, ".home"), "get", "--json", "-q", "--no-lan", "--listen", "off",
				filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr)
			e = p.wait("finished")
			if e == nil {
				t.Fatal("it ended")
			}
			if got, err := os.ReadFile(filepath.Join(dir, "out", "data")); err != nil || string(got) != string(data) {
				t.Errorf("the file is not right: %v", err)
			}
			received, wasted := e["received"].(float64), e["wasted"].(float64)
			if limit := 0.05 * float64(len(data)); wasted > limit || received > float64(len(data))+limit {
				t.Errorf("%.0f bytes came for %d, %.0f in vain", received, len(data), wasted)
			}
			for _, p := range e["peers"].([]any) {
				if a := p.(map[string]any)["addr"]; a != addr {
					t.Errorf("something came from %v, not over the line", a)
				}
			}
			t.Logf("%d bytes in %v, %.0f received, %.0f in vain", len(data), time.Since(began).Round(time.Millisecond), received, wasted)
		})
	}
}

// An address at which nothing can be done is named, with the reason.
func TestN09Listen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shareFile(t, dir, 1000)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	taken, inUse, notOurs := l.Addr().String(), "address already in use", "cannot assign requested address"
	if runtime.GOOS != "linux" { // others have other words
		inUse, notOurs = "", ""
	}
	for _, tt := range []struct{ at, why, hint string }{
		{taken, inUse, "choose another with --listen"},
		{"192.0.2.1:0", notOurs, ""},
	} {
		for _, args := range [][]string{{"share", "data", "--no-lan"}, {"get", "data.shoal", "out", "--no-lan", "--peer", "127.0.0.1:1"}} {
			code, msg := shoal(t, dir, append(args, "-q", "--listen", tt.at)...)
			if code != codeOther || strings.Count(msg, "\n") != 1 || !strings.HasPrefix(msg, "shoal: listen at "+tt.at+": ") ||
				!strings.Contains(msg, tt.why) || !strings.Contains(msg, tt.hint) {
				t.Errorf("%s at %s: code %d, %q", args[0], tt.at, code, msg)
			}
		}
	}
}
