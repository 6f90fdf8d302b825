package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A memNet is a network in memory: what a test needs of sockets. Each node may
// have a rate and a delay, so that under testing/synctest it is a simulator.
type memNet struct {
	mu    sync.Mutex
	nodes map[string]*memNode
	next  int
}

func newMemNet() *memNet { return &memNet{nodes: map[string]*memNode{}} }

type memNode struct {
	net   *memNet
	addr  string
	id    [32]byte
	up    memLine
	down  memLine
	delay time.Duration
	twist func(i, off int, p []byte) []byte // what the node sends instead of p
	deaf  bool                              // dialling it fails
	still atomic.Bool                       // what it sends from now on does not arrive
	mute  bool                              // it says that it has nothing, whatever it has
	blank bool                              // payload is not copied: all is zeros
	log   *askLog                           // of what the node asks for; nil: none

	control, payload atomic.Int64 // bytes sent,
	texts            atomic.Int64 // and of those of manifests
	lines            atomic.Int64

	mu     sync.Mutex
	accept map[[32]byte]func(Conn)
	calls  sync.WaitGroup
}

// A memLine passes rate bytes/s; 0 is no limit.
type memLine struct {
	mu   sync.Mutex
	rate float64
	free time.Time
}

// pass returns when n bytes that come at time t are through.
func (l *memLine) pass(n int, t time.Time) time.Time {
	if l.rate == 0 {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(t) {
		l.free = t
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free
}

func (n *memNet) node() *memNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	d := &memNode{net: n, addr: fmt.Sprintf("198.18.%d.%d:7420", n.next>>8, n.next&0xff), accept: map[[32]byte]func(Conn){}}
	d.id = chunk.Sum([]byte(d.addr))
	n.nodes[d.addr] = d
	return d
}

var (
	errMemRefused = errors.New("connection refused")
	errMemNoShare = errors.New("no such share")
	errMemSelf    = errors.New("that is ourselves")
)

func (d *memNode) ID() [32]byte             { return d.id }
func (d *memNode) IsSelf(err error) bool    { return errors.Is(err, errMemSelf) }
func (d *memNode) IsNoShare(err error) bool { return errors.Is(err, errMemNoShare) }

func (d *memNode) Accept(key [32]byte, f func(Conn)) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accept[key] = f
	return func() {
		d.mu.Lock()
		delete(d.accept, key)
		d.mu.Unlock()
		d.calls.Wait()
	}
}

// accepting returns how many shares the node accepts peers for.
func (d *memNode) accepting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.accept)
}

func (d *memNode) setDeaf(deaf bool) {
	d.mu.Lock()
	d.deaf = deaf
	d.mu.Unlock()
}

func (d *memNode) Dial(ctx context.Context, addr string, key [32]byte) (Conn, error) {
	d.net.mu.Lock()
	to := d.net.nodes[addr]
	d.net.mu.Unlock()
	if to == nil {
		return nil, errMemRefused
	}
	if to == d {
		return nil, errMemSelf
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.deaf {
		return nil, errMemRefused
	}
	f := to.accept[key]
	if f == nil {
		return nil, errMemNoShare
	}
	there, back := newMemPipe(), newMemPipe()
	a := &memConn{us: d, them: to, out: there, in: back, dialled: true}
	b := &memConn{us: to, them: d, out: back, in: there}
	to.calls.Go(func() { f(b) })
	return a, nil
}

// A memPipe carries messages one way.
type memPipe struct {
	msgs chan memMsg
	done chan struct{} // closed by either side's end
	once sync.Once
	err  error
}

type memMsg struct {
	at time.Time
	do func(Handler) error
}

func newMemPipe() *memPipe {
	return &memPipe{msgs: make(chan memMsg, 64), done: make(chan struct{})}
}

func (p *memPipe) close(err error) { p.once.Do(func() { p.err = err; close(p.done) }) }

type memConn struct {
	us, them *memNode
	out, in  *memPipe
	dialled  bool
}

func (c *memConn) ID() [32]byte       { return c.them.id }
func (c *memConn) RemoteAddr() string { return c.them.addr }
func (c *memConn) Dialled() bool      { return c.dialled }
func (c *memConn) Flush() error       { return nil }

func (c *memConn) RTT() time.Duration {
	return 2*(c.us.delay+c.them.delay) + 200*time.Microsecond
}

func (c *memConn) Close(reason error) error {
	if reason == nil {
		reason = io.EOF
	}
	c.out.close(reason)
	c.in.close(reason)
	return nil
}

func (c *memConn) Run(ctx context.Context, h Handler) error {
	defer context.AfterFunc(ctx, func() { _ = c.Close(nil) })()
	for {
		select {
		case m := <-c.in.msgs:
			if d := time.Until(m.at); d > 0 {
				time.Sleep(d)
			}
			if err := m.do(h); err != nil {
				_ = c.Close(err)
				return err
			}
		case <-c.in.done:
			if c.in.err == io.EOF {
				return nil
			}
			return fmt.Errorf("the peer said: %w", c.in.err)
		}
	}
}

// send puts a message of n bytes on the line, and waits while too much is on it.
func (c *memConn) send(n int, do func(Handler) error) error {
	if c.us.still.Load() {
		<-c.out.done
		return io.ErrClosedPipe
	}
	now := time.Now()
	through := c.us.up.pass(n, now)
	m := memMsg{at: c.them.down.pass(n, through.Add(c.us.delay+c.them.delay)), do: do}
	select {
	case <-c.out.done:
		return io.ErrClosedPipe
	case c.out.msgs <- m:
	}
	if d := through.Sub(now) - 5*time.Millisecond; d > 0 {
		time.Sleep(d)
	}
	return nil
}

// line sends a control line of about n bytes.
func (c *memConn) line(n int, do func(Handler) error) error {
	c.us.control.Add(int64(n))
	c.us.lines.Add(1)
	return c.send(n, do)
}

func (c *memConn) ranges(verb string, rs []chunk.Range, do func(Handler, []chunk.Range) error) error {
	rs = slices.Clone(rs)
	n := len(chunk.AppendRanges([]byte(verb+" "), rs)) + 1
	return c.line(n, func(h Handler) error { return do(h, rs) })
}

func (c *memConn) SendHaveAll() error { return c.line(9, Handler.HaveAll) }

func (c *memConn) SendHaves(b *chunk.Bitfield) error {
	return c.SendHave(slices.Collect(b.Ranges()))
}

func (c *memConn) SendHave(rs []chunk.Range) error {
	if c.us.mute {
		rs = nil
	}
	return c.ranges("have", rs, Handler.Have)
}

func (c *memConn) SendWant(rs []chunk.Range) error {
	if c.us.log != nil {
		c.us.log.want(c.in, rs)
	}
	return c.ranges("want", rs, Handler.Want)
}

func (c *memConn) SendCancel(rs []chunk.Range) error {
	if c.us.log != nil {
		c.us.log.cancel(c.in, rs)
	}
	return c.ranges("cancel", rs, Handler.Cancel)
}

func (c *memConn) SendGone(rs []chunk.Range) error { return c.ranges("gone", rs, Handler.Gone) }
func (c *memConn) SendWantManifest() error         { return c.line(14, Handler.WantManifest) }

func (c *memConn) SendManifest(size int64) error {
	return c.line(20, func(h Handler) error { return h.Manifest(size) })
}

func (c *memConn) SendPeers(addrs []string) error {
	return c.line(len(addrs)*20, func(h Handler) error { return h.Peers(addrs) })
}

func (c *memConn) SendListen(port int) error {
	return c.line(13, func(h Handler) error { return h.Listening(port) })
}

func (c *memConn) SendData(i, off int, p []byte) error {
	if i < 0 {
		c.us.texts.Add(int64(len(p)))
	}
	if c.us.twist != nil && i >= 0 {
		p = c.us.twist(i, off, slices.Clone(p))
	}
	n := len(p)
	if c.us.blank && i >= 0 {
		p = nil
	} else {
		p = slices.Clone(p)
	}
	c.us.payload.Add(int64(n))
	c.us.control.Add(25)
	return c.send(n+25, func(h Handler) error {
		buf, err := h.Segment(i, off, n)
		if err != nil {
			return err
		}
		copy(buf, p)
		err = h.Received(i, off, n)
		if c.them.log != nil && i >= 0 && err == nil {
			c.them.log.got(c.out, i, off+n)
		}
		return err
	})
}
