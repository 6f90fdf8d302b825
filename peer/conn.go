package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
)

const (
	// idleLimit is how long a peer may be silent, and a write may move nothing.
	idleLimit = 30 * time.Second
	// pingAfter is how long either direction may be idle before a ping. It is a
	// third of idleLimit so that two may be lost in a stall.
	pingAfter = 10 * time.Second
	// closeLimit is how long the last words of a connection may take.
	closeLimit = 500 * time.Millisecond
	// byeLimit is the same, and two round trips, for a bye: nobody misses one that
	// gets lost, and whoever is done does not want to wait for a peer that hangs.
	byeLimit = 5 * time.Millisecond
	// servedLimit is the same for a peer to which data went within quietAfter: it has
	// to read that before it sees the bye.
	servedLimit = 50 * time.Millisecond
	// quietAfter is how long a peer that hangs has been silent at least. It gets
	// quietLimit for a bye: nothing of it is on its way that would have to be read
	// so that the bye arrives, and it does not close its side either.
	quietAfter = time.Second
	quietLimit = time.Millisecond

	// maxDrain bounds what is read and thrown away meanwhile: more than is on
	// its way in both systems' buffers.
	maxDrain = 16 << 20

	maxPlain = 16 << 10 // bytes in a TLS record

	// maxBatch bounds the ranges that the handler gets in one call from a bits line.
	maxBatch = 1024
)

// A Handler is what a Conn calls with what the peer says, from the one goroutine
// that is in Run. An error closes the connection with that reason. A Handler
// must not wait for the connection's writers: while it does, nothing is read.
//
// It is an alias of an unnamed interface so that others can declare the same
// one without importing this package.
type Handler = interface {
	HaveAll() error
	Have(rs []chunk.Range) error   // indexes < chunk.MaxNum; rs is reused after the call; empty: the peer has none
	Want(rs []chunk.Range) error   // rs is reused, as in Cancel and Gone
	Cancel(rs []chunk.Range) error // the peer no longer wants them
	Gone(rs []chunk.Range) error   // the peer no longer has them
	WantManifest() error
	Manifest(size int64) error // 1 to MaxManifestSize

	// Segment returns the n bytes to be filled with the data of chunk i from off
	// on; -1 is the manifest. An error means that it was not asked for.
	Segment(i, off, n int) ([]byte, error)
	Received(i, off, n int) error // the buffer of Segment is full

	Peers(addrs []string) error // "IP:port", canonical, unicast
	Listening(port int) error   // the peer takes connections at its address on this port
}

// A Conn is an admitted connection: both sides know the key of the share.
//
// One goroutine calls Run. The Send methods and Flush may be called by any,
// and are meant for one: what they are given is sent in that order, from the
// next Flush on at the latest. They return an error once the connection is
// closed, and wait while the peer does not read, for 30 s at most.
type Conn struct {
	bc      *bufConn
	tc      *tls.Conn
	id      ID
	agent   string
	dialled bool
	newer   bool // the peer speaks a later minor version
	onClose func()

	lr    *lineReader
	in    line
	batch []chunk.Range

	rtt      atomic.Int64 // ns, smallest seen
	received atomic.Int64 // payload
	sent     atomic.Int64 // payload

	lock     chan struct{} // held by who writes; a channel, as Close does not wait long
	out      []byte        // lines not yet given to TLS
	scratch  []byte
	greeted  bool  // the first Flush has sent a ping to measure the RTT
	failed   error // first error of a write
	lastPing int64 // number of the last ping sent

	pinged   atomic.Int64  // when the last ping was sent, ns since epoch; 0: answered
	pingNum  atomic.Int64  // its number
	lastIn   atomic.Int64  // ns since epoch of the last line or body
	lastData atomic.Int64  // the same of what SendData sent; 0: nothing
	lastOut  atomic.Int64  // the same of the last Flush
	answer   atomic.Int64  // ping to be answered; -1 none
	kick     chan struct{} // wakes the keeper to answer a ping
	epoch    time.Time
	closeMu  sync.Mutex
	running  bool
	closing  bool
	closed   bool // the carrier is closed
	reason   error
	said     chan struct{} // closed when our last words are on their way
	finished chan struct{} // closed with the carrier
}

func newConn(bc *bufConn, tc *tls.Conn, lr *lineReader, onClose func()) *Conn {
	c := &Conn{
		bc: bc, tc: tc, lr: lr, onClose: onClose,
		lock:     make(chan struct{}, 1),
		out:      make([]byte, 0, maxPlain),
		kick:     make(chan struct{}, 1),
		epoch:    time.Now(),
		said:     make(chan struct{}),
		finished: make(chan struct{}),
	}
	c.answer.Store(-1)
	return c
}

// ID returns the hash of the peer's key.
func (c *Conn) ID() [32]byte { return c.id }

// RemoteAddr returns the peer's address as text, for messages and to reach it again.
func (c *Conn) RemoteAddr() string { return c.bc.RemoteAddr().String() }

// Agent returns what the peer calls its program: printable ASCII, at most 64 bytes.
func (c *Conn) Agent() string { return c.agent }

// Dialled reports whether this side dialled.
func (c *Conn) Dialled() bool { return c.dialled }

// RTT returns the smallest round-trip time seen, or 0 if none is known yet.
func (c *Conn) RTT() time.Duration { return time.Duration(c.rtt.Load()) }

// Sent returns how many bytes of chunks and manifest were sent, and how many in all.
func (c *Conn) Sent() (payload, total int64) { return c.sent.Load(), c.bc.out.Load() }

// Received returns how many bytes of chunks and manifest came, and how many in all.
func (c *Conn) Received() (payload, total int64) { return c.received.Load(), c.bc.in.Load() }

func (c *Conn) now() int64 { return int64(time.Since(c.epoch)) }

func (c *Conn) sawRTT(d time.Duration) {
	d = max(d, 1)
	for {
		old := c.rtt.Load()
		if old != 0 && old <= int64(d) || c.rtt.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// Run reads until the connection ends and calls h with what comes. It returns
// nil after bye from either side, the peer's *RemoteError, the reason given to
// Close, or what went wrong. When ctx ends, Run says bye and returns ctx's
// error. The connection is closed when Run returns. Run is called once.
func (c *Conn) Run(ctx context.Context, h Handler) error {
	c.closeMu.Lock()
	if c.running {
		c.closeMu.Unlock()
		panic("peer: internal error: Run called twice")
	}
	if c.closing {
		c.closeMu.Unlock()
		<-c.finished
		return c.endError()
	}
	c.running = true
	c.closeMu.Unlock()

	c.lastIn.Store(c.now())
	c.lastOut.Store(c.now())
	stop := context.AfterFunc(ctx, crew.Guard(func() { c.Close(nil) }))
	var keeper crew.Crew
	ended := make(chan struct{})
	keeper.Go(func() { c.keep(ended) })

	err := c.read(h)
	stop()
	hungUp := err == nil || errors.As(err, new(*RemoteError))
	if failed := c.writeError(); failed != nil && !hungUp {
		err = failed // that is why the read ended
	}
	if hungUp {
		c.mute(err)
	} else {
		c.Close(err)
	}
	c.drain()
	<-c.said
	close(ended)
	c.shut()
	keeper.Wait()
	if err := c.endError(); err != nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// endError returns why the connection ended: what was first.
func (c *Conn) endError() error {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	return c.reason
}

// keep sends pings and answers those of the peer until ended is closed. Run
// itself never writes: were both sides to wait until the other reads, neither would.
func (c *Conn) keep(ended chan struct{}) {
	t := time.NewTimer(pingAfter)
	defer t.Stop()
	for {
		select {
		case <-ended:
			return
		case <-c.kick:
		case <-t.C:
		}
		now := c.now()
		idle := min(c.lastIn.Load(), c.lastOut.Load())
		wait := time.Duration(idle + int64(pingAfter) - now)
		if wait <= 0 {
			wait = pingAfter
			if !c.write(func() error { return c.ping() }) {
				return
			}
		} else if c.answer.Load() >= 0 && !c.write(func() error { return nil }) {
			return
		}
		t.Reset(wait)
	}
}

// Close says bye, or the reason why not, and closes the connection. A reason
// with a method ProtocolCode is told in full, others only as "internal". The
// first call counts. Close takes half a second at most; if Run is running, it
// returns soon after. It may be called from a Handler.
func (c *Conn) Close(reason error) error {
	c.closeMu.Lock()
	if c.closing {
		c.closeMu.Unlock()
		return nil
	}
	c.closing = true
	c.reason = reason
	c.closeMu.Unlock()

	// From here on nothing waits longer, not even a writer that holds the lock.
	limit := closeLimit
	if reason == nil {
		now, quiet := c.now(), int64(quietAfter+2*c.RTT())
		switch data := c.lastData.Load(); {
		case data > 0 && now-data < quiet:
			limit = min(limit, servedLimit+2*c.RTT())
		case now-c.lastIn.Load() > quiet:
			limit = quietLimit
		default:
			limit = min(limit, byeLimit+2*c.RTT())
		}
	}
	c.bc.limit(time.Now().Add(limit))
	c.lock <- struct{}{}
	if c.failed == nil && !errors.Is(reason, ErrLost) {
		if reason == nil {
			c.out = append(c.out, "bye\n"...)
		} else {
			code, text := errorLine(reason)
			l := line{verb: verbError, code: code, text: text}
			c.out = l.append(c.out)
		}
		c.push()
		c.tc.CloseWrite() // only ever after the handshake
		c.bc.Flush()
		c.bc.CloseWrite()
	}
	c.hangUp()
	c.release()
	close(c.said)

	c.closeMu.Lock()
	running := c.running
	c.closeMu.Unlock()
	if !running {
		c.shut()
	}
	return nil
}

// hangUp lets writers fail from here on; lock is held.
func (c *Conn) hangUp() {
	if c.failed == nil {
		c.failed = ErrClosed
	}
}

func (c *Conn) isClosing() bool {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	return c.closing
}

// mute closes without last words, as the peer has said its own: err, or bye if
// it is nil. If Close is at work already, it goes on.
func (c *Conn) mute(err error) {
	c.closeMu.Lock()
	first := !c.closing
	if first {
		c.closing = true
		c.reason = err
	}
	c.closeMu.Unlock()
	if !first {
		return
	}
	c.bc.limit(time.Now()) // releases a writer
	c.lock <- struct{}{}
	c.hangUp()
	c.release()
	close(c.said)
}

// drain reads what the peer still sends after our last words, until the limit
// that Close has set: if bytes were left unread, the system would reset the
// connection, and the peer might never see why.
func (c *Conn) drain() {
	for left := maxDrain; left > 0; {
		n, err := c.bc.Read(c.lr.buf)
		if err != nil || n == 0 {
			return
		}
		left -= n
	}
}

// shut closes the carrier.
func (c *Conn) shut() {
	c.closeMu.Lock()
	first := !c.closed
	c.closed = true
	c.closeMu.Unlock()
	if !first {
		return
	}
	c.bc.Conn.Close()
	close(c.finished)
	if c.onClose != nil {
		c.onClose()
	}
}
