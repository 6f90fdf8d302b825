package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/shoal-p2p/shoal/chunk"
)

// admitted returns, within a synctest bubble, a rawPeer and the Conn of a node
// at the other end of a pipe. stop ends the node.
func admitted(t *testing.T) (p *rawPeer, c *Conn, stop func()) {
	t.Helper()
	n, err := NewNode(Config{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	got := make(chan *Conn)
	hold := make(chan struct{})
	n.Accept(testKey, func(c *Conn) { got <- c; <-hold })
	n.Serve(b)
	p = newRawPeer(t, a, true, testKey)
	p.admit()
	a.SetDeadline(time.Time{})
	c = <-got
	return p, c, func() { c.Close(nil); a.Close(); close(hold); n.Close() }
}

// run runs c and returns a channel with its error and the time that it took.
func run(c *Conn, h Handler) <-chan result {
	done := make(chan result, 1)
	began := time.Now()
	go func() {
		err := c.Run(context.Background(), h)
		done <- result{err, time.Since(began)}
	}()
	return done
}

type result struct {
	err  error
	took time.Duration
}

func (r result) check(t *testing.T, is error, least, most time.Duration) {
	t.Helper()
	if !errors.Is(r.err, is) || (is == nil) != (r.err == nil) || r.took < least || r.took > most {
		t.Errorf("Run: %v after %v, want %v after %v to %v", r.err, r.took, is, least, most)
	}
}

// TestW17SilentPeer: pings at 10 s and 20 s, and then a reason.
func TestW17SilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		var heard []string
		began := time.Now()
		for {
			b, err := p.lr.next()
			if err != nil {
				break
			}
			heard = append(heard, fmt.Sprintf("%v %s", time.Since(began), b))
		}
		(<-done).check(t, ErrTimeout, 30*time.Second, 31*time.Second)
		if got := strings.Join(heard, ", "); got != "10s ping 1, 10s ping 2, 20s ping 3, 30s error timeout no line in time" &&
			got != "10s ping 1, 10s ping 2, 20s ping 3, 30s ping 4, 30s error timeout no line in time" {
			t.Errorf("heard %s", got)
		}
	})
}

// TestW17QuietPeers: two that have nothing to say stay together.
func TestW17QuietPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		began := time.Now()
		for time.Since(began) < time.Hour {
			b, err := p.lr.next()
			if err != nil {
				t.Fatal(err)
			}
			if n, ok := strings.CutPrefix(string(b), "ping "); ok {
				time.Sleep(70 * time.Millisecond)
				fmt.Fprintf(p.tc, "pong %s\n", n)
			}
		}
		if c.RTT() != 70*time.Millisecond {
			t.Errorf("RTT %v", c.RTT())
		}
		go io.Copy(io.Discard, p.tc)
		io.WriteString(p.tc, "bye\n")
		(<-done).check(t, nil, time.Hour, 2*time.Hour)
	})
}

// TestW17SlowLine: one byte a second is no line.
func TestW17SlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		go io.Copy(io.Discard, p.tc)
		for {
			if _, err := p.tc.Write([]byte("e")); err != nil {
				break
			}
			time.Sleep(time.Second)
			if len(done) > 0 {
				break
			}
		}
		(<-done).check(t, ErrTimeout, 29*time.Second, 31*time.Second)
	})
}

// TestW17SlowRecord: nor is one byte a second of a TLS record, which the reader of
// lines does not even see.
func TestW17SlowRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		go io.Copy(io.Discard, p.tc)
		raw := p.tc.NetConn()
		raw.Write([]byte{23, 3, 3, 0x40, 0})
		for len(done) == 0 {
			if _, err := raw.Write([]byte{1}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		(<-done).check(t, ErrTimeout, 29*time.Second, 31*time.Second)
	})
}

// TestW17SlowBody: 4 KiB in 30 s are enough, less is not.
func TestW17SlowBody(t *testing.T) {
	for _, tt := range []struct {
		rate int // bytes a second
		ok   bool
	}{
		{1, false},
		{minProgress / 30 / 2, false},
		{minProgress / 30 * 2, true},
	} {
		t.Run(fmt.Sprint(tt.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c, stop := admitted(t)
				defer stop()
				h := &testSeed{c: c}
				done := run(c, h)
				go io.Copy(io.Discard, p.tc)
				fmt.Fprintf(p.tc, "data 0 0 100000\n")
				b := make([]byte, tt.rate)
				for left := 100_000; left > 0; left -= len(b) {
					if _, err := p.tc.Write(b[:min(left, len(b))]); err != nil || len(done) > 0 {
						break
					}
					time.Sleep(time.Second)
				}
				if tt.ok {
					io.WriteString(p.tc, "bye\n")
					(<-done).check(t, nil, 5*time.Minute, time.Hour)
					if len(h.calls()) != 1 {
						t.Errorf("calls %.100q", h.calls())
					}
					return
				}
				(<-done).check(t, ErrTimeout, 29*time.Second, 61*time.Second)
			})
		})
	}
}

// TestE06NeverReads: the write deadline. The peer goes on sending, so it is not silent.
func TestE06NeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(p.tc, "ping %d\n", i); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		began := time.Now()
		var err error
		for err == nil {
			err = c.SendData(0, 0, make([]byte, MaxSegment))
		}
		if took := time.Since(began); !errors.Is(err, ErrTimeout) || took < 29*time.Second || took > 31*time.Second {
			t.Errorf("write: %v after %v", err, took)
		}
		(<-done).check(t, ErrTimeout, 29*time.Second, 32*time.Second)
		<-ended
	})
}

// TestE06ReadsSlowly: a peer that reads at 1 KiB a second is slow, not dead.
func TestE06ReadsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		done := run(c, &testSeed{c: c})
		wg.Go(func() {
			raw := p.tc.NetConn()
			b := make([]byte, 1024)
			for {
				if _, err := io.ReadFull(raw, b); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		wg.Go(func() {
			for {
				if _, err := io.WriteString(p.tc, "ping 1\n"); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		})
		began := time.Now()
		for range 3 {
			if err := c.SendData(0, 0, make([]byte, MaxSegment)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d < 4*time.Minute {
			t.Errorf("took %v", d)
		}
		c.Close(nil)
		(<-done).check(t, nil, 0, time.Hour)
	})
}

// TestE06BothBlocked: two that both write more than fits, and read, do not wait
// for each other, though each has pings to answer.
func TestE06BothBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, err := NewNode(Config{})
		if err != nil {
			t.Fatal(err)
		}
		n2, err := NewNode(Config{})
		if err != nil {
			t.Fatal(err)
		}
		a, b := net.Pipe()
		exchange := func(c *Conn) {
			go func() {
				for range 20 {
					c.ping2()
					if err := c.SendData(0, 0, make([]byte, MaxSegment)); err != nil {
						t.Error(err)
					}
				}
				c.Flush()
				time.Sleep(time.Second)
				c.Close(nil)
			}()
			h := &testSeed{c: c}
			if err := c.Run(context.Background(), h); err != nil {
				t.Error(err)
			}
			if len(h.calls()) != 20 {
				t.Errorf("%d segments", len(h.calls()))
			}
		}
		done := make(chan struct{})
		n2.Accept(testKey, func(c *Conn) { exchange(c); close(done) })
		n2.Serve(b)
		c, err := n1.Join(t.Context(), a, testKey)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		exchange(c)
		<-done
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %v", d)
		}
		n1.Close()
		n2.Close()
	})
}

func (c *Conn) ping2() { c.write(func() error { return c.ping() }) }

// TestW18SlowAdmission: a listener waits 10 s for all of it.
func TestW18SlowAdmission(t *testing.T) {
	for _, how := range []string{"silent", "no join", "slow lines"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := NewNode(Config{})
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				defer wg.Wait()
				defer n.Close()
				a, b := net.Pipe()
				defer a.Close()
				n.Serve(b)
				began := time.Now()
				if how == "silent" {
					io.Copy(io.Discard, a)
				} else {
					p := newRawPeer(t, a, true, testKey)
					wg.Go(func() {
						fmt.Fprintf(p.tc, "hello shoal/1.0 x\n")
						for how == "slow lines" {
							if _, err := p.tc.Write([]byte("j")); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
					io.Copy(io.Discard, p.tc)
				}
				if d := time.Since(began); d < 9*time.Second || d > 11*time.Second {
					t.Errorf("closed after %v", d)
				}
			})
		})
	}
}

// TestContext: the end of the context is a goodbye.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		done := make(chan error)
		go func() { done <- c.Run(ctx, &testSeed{c: c}) }()
		p.play("< bye\n< {end}")
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestByeTakesLittle: whoever is done waits for a peer that does not hang up as
// long as something of it may be on its way, for one that has been silent not even so
// long, and longest for one that was sent data; the bye arrives all the same.
func TestByeTakesLittle(t *testing.T) {
	for _, tt := range []struct {
		serve   bool
		silence time.Duration
		most    time.Duration
	}{
		{false, quietAfter / 2, byeLimit},
		{false, quietAfter * 2, quietLimit},
		{true, quietAfter / 2, servedLimit},
		{true, quietAfter * 2, quietLimit},
	} {
		silence, most := tt.silence, tt.most
		synctest.Test(t, func(t *testing.T) {
			p, c, stop := admitted(t)
			defer stop()
			done := run(c, &testSeed{c: c})
			io.WriteString(p.tc, "have all\n")
			if tt.serve {
				c.lastData.Store(max(c.now(), 1))
			}
			time.Sleep(silence)
			heard := make(chan struct{})
			go func() { p.play("< bye\n< {end}"); close(heard) }()
			began := time.Now()
			if err := c.Close(nil); err != nil {
				t.Error(err)
			}
			(<-done).check(t, nil, 0, time.Hour)
			if d := time.Since(began); d > most+2*c.RTT() || d < most {
				t.Errorf("silent for %v: closed after %v, want %v", silence, d, most)
			}
			<-heard
		})
	}
}

// TestHandlerError: the reason goes to the peer, and out of Run.
func TestHandlerError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		io.WriteString(p.tc, "want 7\n")
		p.play("< error limit there is no chunk 7\n< {end}")
		if r := <-done; !errors.As(r.err, new(*ProtocolError)) {
			t.Errorf("Run: %v", r.err)
		}
	})
}

// TestR01Gate: who has to go.
func TestR01Gate(t *testing.T) {
	g := newGate(4, 3)
	enter := func(addr string, started bool) *visit {
		t.Helper()
		bc := newBufConn(&addrConn{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}, time.Second)
		v := g.enter(bc)
		if v != nil {
			bc.started.Store(started)
			v.since = time.Unix(int64(len(g.pending)), 0)
		}
		return v
	}
	gone := func(name string, v *visit, want bool) {
		t.Helper()
		if v.gone != want || v.bc.Conn.(*addrConn).closed != want {
			t.Errorf("%s: gone %v, want %v", name, v.gone, want)
		}
	}
	a1, a2, a3 := enter("192.0.2.1:1", true), enter("192.0.2.1:2", true), enter("192.0.2.1:3", true)
	a4 := enter("192.0.2.1:4", true) // over its share: the oldest of its own goes
	gone("a1", a1, true)
	b1 := enter("192.0.2.2:1", true)
	gone("a2", a2, false)
	c1 := enter("192.0.2.3:1", true) // full: the oldest of who has most goes
	gone("a2", a2, true)
	gone("b1", b1, false)
	b1.bc.started.Store(false)
	d1 := enter("192.0.2.4:1", true) // a silent one goes first
	gone("b1", b1, true)
	for _, v := range []*visit{a3, a4, c1} {
		gone("another", v, false)
	}
	if !g.admit(a3) || g.admit(b1) {
		t.Error("admit")
	}
	if !g.admit(a4) {
		t.Error("admit")
	}
	a5 := enter("192.0.2.1:5", true)
	if !g.admit(a5) {
		t.Error("admit")
	}
	if enter("192.0.2.1:6", true) != nil { // three admitted, none to go
		t.Error("a fourth of one address came in")
	}
	g.leave(a5)
	g.leave(a5)
	if enter("192.0.2.1:6", true) == nil {
		t.Error("no room after one left")
	}
	// An address does not rob others that hold as little as it does.
	g = newGate(2, 2)
	x, y := enter("192.0.2.1:1", true), enter("192.0.2.2:1", true)
	x2 := enter("192.0.2.1:2", true)
	gone("x", x, true)
	gone("y", y, false)
	for _, v := range []*visit{x2, y, d1} {
		g.leave(v)
	}
	// An IPv6 /64 is one address, and IPv4 is IPv4 however it is written.
	for _, p := range [][2]string{
		{"[2001:db8::1]:1", "[2001:db8::ffff:2]:2"}, {"192.0.2.1:1", "[::ffff:192.0.2.1]:9"}, {"[fe80::1%eth0]:1", "[fe80::2%eth0]:1"},
	} {
		a, b := netip.MustParseAddrPort(p[0]), netip.MustParseAddrPort(p[1])
		if hostOf(net.TCPAddrFromAddrPort(a)) != hostOf(net.TCPAddrFromAddrPort(b)) {
			t.Errorf("%s and %s are two", p[0], p[1])
		}
	}
}

type addrConn struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *addrConn) RemoteAddr() net.Addr { return c.addr }
func (c *addrConn) Close() error         { c.closed = true; return nil }

// TestAlignment: the kernel's copies begin on a page.
func TestAlignment(t *testing.T) {
	bc := newBufConn(nil, time.Second)
	bc.grow()
	for _, p := range [][]byte{bc.rbuf, bc.wbuf[:1]} {
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(p))); at%4096 != 0 {
			t.Errorf("buffer at %#x", at)
		}
	}
}

// TestSteadyAllocs: nothing of ours is allocated per segment and line.
func TestSteadyAllocs(t *testing.T) {
	rs := []chunk.Range{{First: 1, N: 3}, {First: 10, N: 1}}
	a, b := tcpPair(t)
	c1, c2 := pair(t, a, b)
	go c2.Run(context.Background(), &sink{p: make([]byte, MaxSegment), left: -1})
	defer c2.Close(nil)
	defer c1.Close(nil)
	c1.SendHave(rs)
	if n := testing.AllocsPerRun(50, func() {
		c1.SendHave(rs)
		c1.SendWant(rs)
		c1.Flush()
	}); n > 4 { // crypto/tls on the reading side allocates one object a record
		t.Errorf("%v allocations per flush", n)
	}
}
