package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestW02Garbage: a listener outlives everything that is no handshake.
func TestW02Garbage(t *testing.T) {
	var log syncBuffer
	n := newTestNode(t, Config{
		Logger: slog.New(slog.NewTextHandler(&log, nil)), AdmitTimeout: 500 * time.Millisecond,
	})
	addr := serveTest(t, n)
	rnd := mrand.NewChaCha8([32]byte{})
	noise := make([]byte, 100_000)
	rnd.Read(noise)
	record := append([]byte{22, 3, 1, 0x40, 0}, noise[:10_000]...)
	for name, b := range map[string][]byte{
		"HTTP":          []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":           []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		"noise":         noise,
		"one byte":      {22},
		"half a record": record,
		"a record":      append(record, noise[:10_000]...),
		"nothing":       nil,
		"our lines":     []byte("hello shoal/1.0 x\n"),
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			began := time.Now()
			nc.Write(b)
			nc.SetDeadline(time.Now().Add(5 * time.Second))
			got, err := io.ReadAll(nc)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 7 { // an alert
				t.Errorf("%d bytes, %v after %v", len(got), err, time.Since(began))
			}
		})
	}
	c, err := newTestNode(t, Config{}).Dial(t.Context(), addr, testKey)
	if err != nil {
		t.Fatal(err)
	}
	c.Close(nil)
	n.Close()
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > 12 {
		t.Errorf("%d lines in the log:\n%s", lines, log.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestR07LogFlood: a flood of errors does not become a flood of log lines.
func TestR07LogFlood(t *testing.T) {
	var log syncBuffer
	n := newTestNode(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 100_000 {
		n.log(slog.LevelInfo, "not admitted", "err", "x\ny")
	}
	n.limiter.SetBurst(1000)
	n.limiter.SetLimit(1e9)
	time.Sleep(time.Millisecond)
	n.log(slog.LevelInfo, "last")
	if lines := strings.Count(log.String(), "\n"); lines > 20 || !strings.Contains(log.String(), "msg=last dropped=9") {
		t.Errorf("%d lines\n%s", lines, log.String())
	}
}

// TestW01FloodOfLine: an admitted peer sends a gigabyte without a LF.
func TestW01FloodOfLine(t *testing.T) {
	p := dialRaw(t, "x")
	p.admit()
	a := bytes.Repeat([]byte{'a'}, 16<<10)
	sent := 0
	for range 1 << 16 {
		m, err := p.tc.Write(a)
		sent += m
		if err != nil {
			break
		}
	}
	if sent > 64<<20 {
		t.Errorf("could send %d bytes", sent)
	}
}

// TestWrongLengths: the handler is asked for exactly what the line says, and
// before the body is read.
func TestW07CutBody(t *testing.T) {
	for _, cut := range []int{0, 1, 100, 262143} {
		a, b := tcpPair(t)
		n := newTestNode(t, Config{})
		done := make(chan error, 1)
		h := &testSeed{}
		n.Accept(testKey, func(c *Conn) { h.c = c; done <- c.Run(context.Background(), h) })
		n.Serve(b)
		p := newRawPeer(t, a, true, testKey)
		p.admit()
		fmt.Fprintf(p.tc, "data 0 0 262144\n")
		p.tc.Write(make([]byte, cut))
		a.Close()
		if err := <-done; !errors.Is(err, ErrLost) {
			t.Errorf("cut after %d: %v", cut, err)
		}
		if calls := h.calls(); len(calls) != 0 {
			t.Errorf("calls %q", calls)
		}
	}
}

// TestR01Flood (R01): silent connections and half handshakes, from the honest
// peer's own address and faster than they time out, do not keep it out.
func TestR01Flood(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			n := newTestNode(t, Config{})
			addr := serveTest(t, n)
			var hello []byte
			if half {
				hello = clientHello(t)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() {
				var open []net.Conn
				for ctx.Err() == nil {
					nc, err := net.Dial("tcp", addr)
					if err == nil {
						nc.Write(hello)
						open = append(open, nc)
					}
					if len(open) > 500 {
						open[0].Close()
						open = open[1:]
					}
					time.Sleep(time.Millisecond)
				}
				for _, nc := range open {
					nc.Close()
				}
			})
			time.Sleep(300 * time.Millisecond)
			began := time.Now()
			honest := newTestNode(t, Config{})
			tries := 0
			for {
				tries++
				c, err := honest.Dial(t.Context(), addr, testKey)
				if err == nil {
					c.Close(nil)
					break
				}
				if time.Since(began) > 5*time.Second {
					t.Fatalf("not in after %d tries: %v", tries, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("in after %v and %d tries", time.Since(began), tries)
			n.gate.mu.Lock()
			if len(n.pending) > DefaultMaxPending {
				t.Errorf("%d pending", len(n.pending))
			}
			n.gate.mu.Unlock()
		})
	}
}

// clientHello returns the first flight of a handshake.
func clientHello(t testing.TB) []byte {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	go func() {
		tls.Client(a, id.tlsConfig()).Handshake()
	}()
	p := make([]byte, 10_000)
	m, err := b.Read(p)
	a.Close()
	b.Close()
	if err != nil {
		t.Fatal(err)
	}
	return p[:m]
}

// TestR08ManyConnects (R08): connections of all kinds leave nothing behind.
func TestR08ManyConnects(t *testing.T) {
	num := 10_000
	if testing.Short() {
		num = 300
	}
	n := newTestNode(t, Config{AdmitTimeout: 2 * time.Second})
	addr := serveTest(t, n)
	leech := newTestNode(t, Config{})
	before, fds := runtime.NumGoroutine(), numFDs()
	for i := range num {
		if i%10 == 0 {
			c, err := leech.Dial(t.Context(), addr, testKey)
			if err != nil {
				continue // the slots of our address may all be taken
			}
			if i%20 == 0 {
				go c.Close(nil)
				c.Run(t.Context(), &testSeed{c: c})
			} else {
				c.Close(nil)
			}
			continue
		}
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			io.WriteString(nc, "GET / HTTP/1.1\r\n")
		}
		nc.Close()
	}
	waitFor(t, func() bool {
		n.gate.mu.Lock()
		defer n.gate.mu.Unlock()
		n.nmu.Lock()
		defer n.nmu.Unlock()
		return len(n.pending)+len(n.perAddr)+len(n.waiting)+len(n.conns)+len(n.halfway) == 0
	})
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+1 && numFDs() <= fds+1 })
}

func numFDs() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(d)
}
