package peer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
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
	byeLimit = 50 * time.Millisecond

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
	stop := context.AfterFunc(ctx, func() { c.Close(nil) })
	var keeper sync.WaitGroup
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

// read handles lines until one ends the session. It returns nil after bye.
func (c *Conn) read(h Handler) error {
	for {
		c.bc.expect(0)
		b, err := c.lr.next()
		if err != nil {
			return readError(err, "line")
		}
		c.lastIn.Store(c.now())
		l := &c.in
		if err := l.parse(b); err != nil {
			return err
		}
		if st, err := stateOpen.step(l.verb, c.newer); err != nil || st == stateClosed {
			if l.verb == verbError {
				return remoteError(l)
			}
			return err
		}
		if c.isClosing() {
			return ErrClosed
		}
		if err := c.handle(h, l); err != nil {
			return err
		}
	}
}

func remoteError(l *line) error {
	// The line's strings alias the read buffer.
	return &RemoteError{Code: string([]byte(l.code)), Text: string([]byte(l.text))}
}

func (c *Conn) handle(h Handler, l *line) error {
	switch l.verb {
	case verbHave:
		switch l.word {
		case "all":
			return h.HaveAll()
		case "none":
			return h.Have(nil)
		}
		return h.Have(l.ranges)
	case verbBits:
		return c.handleBits(h, l)
	case verbWant:
		if l.word != "" {
			return h.WantManifest()
		}
		return h.Want(l.ranges)
	case verbCancel:
		return h.Cancel(l.ranges)
	case verbGone:
		return h.Gone(l.ranges)
	case verbManifest:
		return h.Manifest(l.num)
	case verbData:
		return c.handleData(h, int(l.num), int(l.off), int(l.size))
	case verbPeer:
		return h.Peers(l.addrs)
	case verbListen:
		return h.Listening(int(l.num))
	case verbPing:
		c.answer.Store(l.num)
		select {
		case c.kick <- struct{}{}:
		default:
		}
	case verbPong:
		if at := c.pinged.Load(); at != 0 && l.num == c.pingNum.Load() {
			c.pinged.Store(0)
			c.sawRTT(time.Duration(c.now() - at))
		}
	}
	return nil
}

// handleData reads the bytes after a data line. Nothing of them is read before
// the handler has given the place for them.
func (c *Conn) handleData(h Handler, i, off, n int) error {
	p, err := h.Segment(i, off, n)
	if err != nil {
		return err
	}
	if len(p) != n {
		panic(fmt.Sprintf("peer: internal error: buffer of %d bytes for %d", len(p), n))
	}
	c.bc.expect(minProgress)
	if err := c.lr.body(p); err != nil {
		return readError(err, "data")
	}
	c.received.Add(int64(n))
	c.lastIn.Store(c.now())
	return h.Received(i, off, n)
}

// handleBits gives the handler the runs of set bits, a bounded number at a time.
func (c *Conn) handleBits(h Handler, l *line) error {
	rs := c.batch[:0]
	next := int(l.num)
	for i := 0; i < len(l.bits); {
		var word [8]byte
		n := copy(word[:], l.bits[i:])
		w := binary.LittleEndian.Uint64(word[:])
		for w != 0 {
			first := bits.TrailingZeros64(w)
			run := bits.TrailingZeros64(^(w >> first))
			at := next + first
			if k := len(rs) - 1; k >= 0 && rs[k].First+rs[k].N == at {
				rs[k].N += run
			} else {
				if len(rs) == maxBatch {
					if err := h.Have(rs); err != nil {
						return err
					}
					rs = rs[:0]
				}
				rs = append(rs, chunk.Range{First: at, N: run})
			}
			if first+run == 64 {
				break
			}
			w &^= (1<<run - 1) << first
		}
		i += n
		next += 8 * n
	}
	c.batch = rs
	return h.Have(rs)
}

func readError(err error, what string) error {
	if isTimeout(err) {
		return &timeoutError{what: what}
	}
	return connError(err)
}

// A timeoutError is ErrTimeout, and is told to the peer.
type timeoutError struct{ what string }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("peer: timeout: no %s in %v", e.what, idleLimit)
}
func (e *timeoutError) Is(target error) bool { return target == ErrTimeout }
func (e *timeoutError) Timeout() bool        { return true }
func (e *timeoutError) ProtocolCode() string { return codeTimeout }
func (e *timeoutError) lineText() string     { return "no " + e.what + " in time" }

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

// write calls f with the lock held and flushes. It reports whether the
// connection can still be written to.
func (c *Conn) write(f func() error) bool {
	if c.acquire() != nil {
		return false
	}
	defer c.release()
	if err := f(); err != nil {
		return false
	}
	return c.flush() == nil
}

// ping appends a ping; lock is held.
func (c *Conn) ping() error {
	c.lastPing++
	c.pingNum.Store(c.lastPing)
	c.pinged.Store(max(c.now(), 1))
	c.out = append(c.out, "ping"...)
	c.out = append(appendNum(c.out, c.lastPing), '\n')
	return c.room()
}

// acquire takes the lock of the writers.
func (c *Conn) acquire() error {
	c.lock <- struct{}{}
	if c.failed != nil {
		defer c.release()
		return c.failed
	}
	return nil
}

func (c *Conn) release() { <-c.lock }

// fail notes the first error of a write; lock is held.
func (c *Conn) fail(err error) error {
	if err == nil || c.failed != nil {
		return c.failed
	}
	if isTimeout(err) {
		err = fmt.Errorf("%w: the peer does not read", ErrTimeout)
	} else {
		err = connError(err)
	}
	c.failed = err
	// Wake Run, but let it read first whether the peer has said why.
	c.bc.limit(time.Now().Add(closeLimit))
	return err
}

// writeError returns why writing failed, or nil.
func (c *Conn) writeError() error {
	c.lock <- struct{}{}
	defer c.release()
	if errors.Is(c.failed, ErrClosed) {
		return nil
	}
	return c.failed
}

// room gives the lines to TLS when there may be no room for another one.
func (c *Conn) room() error {
	if len(c.out) > maxPlain-maxListLine {
		return c.push()
	}
	return nil
}

// push gives the lines to TLS; lock is held.
func (c *Conn) push() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.tc.Write(c.out)
	c.out = c.out[:0]
	return c.fail(err)
}

// flush sends everything; lock is held.
func (c *Conn) flush() error {
	if n := c.answer.Swap(-1); n >= 0 {
		c.out = append(c.out, "pong"...)
		c.out = append(appendNum(c.out, n), '\n')
	}
	if !c.greeted && !c.dialled {
		c.greeted = true
		c.ping() // the dialler knows the RTT from admission
	}
	if err := c.push(); err != nil {
		return err
	}
	if err := c.bc.Flush(); err != nil {
		return c.fail(err)
	}
	c.lastOut.Store(c.now())
	return nil
}

// send appends a line with f and makes room.
func (c *Conn) send(f func(b []byte) []byte) error {
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()
	c.out = f(c.out)
	return c.room()
}

// SendHaveAll tells that we have every chunk.
func (c *Conn) SendHaveAll() error {
	return c.send(func(b []byte) []byte { return append(b, "have all\n"...) })
}

// SendHaves tells what we have, in the shortest way: all, none, ranges or bits.
func (c *Conn) SendHaves(b *chunk.Bitfield) error {
	switch {
	case b.None():
		return c.send(func(b []byte) []byte { return append(b, "have none\n"...) })
	case b.All():
		return c.SendHaveAll()
	}
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()

	asRanges, asBits := 0, b.Len()/6
	for r := range b.Ranges() {
		c.scratch = chunk.AppendRange(c.scratch[:0], r)
		if asRanges += len(c.scratch) + 1; asRanges > asBits {
			return c.sendBits(b.Words())
		}
	}
	c.out = append(c.out, "have"...)
	start := len(c.out)
	for r := range b.Ranges() {
		if err := c.appendRange("have", &start, r); err != nil {
			return err
		}
	}
	c.out = append(c.out, '\n')
	return c.room()
}

// bitsWords is how many words of a bitfield go on a bits line.
const bitsWords = 760

func (c *Conn) sendBits(words []uint64) error {
	for first := 0; first < len(words); first += bitsWords {
		c.scratch = c.scratch[:0]
		for _, w := range words[first:min(first+bitsWords, len(words))] {
			c.scratch = binary.LittleEndian.AppendUint64(c.scratch, w)
		}
		p, skip := c.scratch, 0
		for len(p) > 0 && p[len(p)-1] == 0 {
			p = p[:len(p)-1]
		}
		for len(p) > 0 && p[0] == 0 {
			p, skip = p[1:], skip+1
		}
		if len(p) == 0 {
			continue
		}
		l := line{verb: verbBits, num: int64(first)*64 + int64(skip)*8, bits: p}
		c.out = l.append(c.out)
		if err := c.room(); err != nil {
			return err
		}
	}
	return nil
}

// SendHave tells that we have got these chunks. As with the other lists, an
// empty one sends nothing, and one that is not ascending becomes several lines.
func (c *Conn) SendHave(rs []chunk.Range) error { return c.sendRanges("have", rs) }

// SendWant asks for chunks. They are answered in this order.
func (c *Conn) SendWant(rs []chunk.Range) error { return c.sendRanges("want", rs) }

// SendCancel takes back a want. What is on its way already comes nevertheless.
func (c *Conn) SendCancel(rs []chunk.Range) error { return c.sendRanges("cancel", rs) }

// SendGone tells that we do not have these chunks any more, or will not send them.
func (c *Conn) SendGone(rs []chunk.Range) error { return c.sendRanges("gone", rs) }

func (c *Conn) sendRanges(verb string, rs []chunk.Range) error {
	if len(rs) == 0 {
		return nil
	}
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()
	c.out = append(c.out, verb...)
	start := len(c.out)
	last := 0
	for i := 0; i < len(rs); {
		r := rs[i]
		for i++; i < len(rs) && rs[i].First == r.First+r.N; i++ { // touching ranges are one
			r.N += rs[i].N
		}
		if r.First < 0 || r.N <= 0 || r.First+r.N > chunk.MaxNum {
			panic(fmt.Sprintf("peer: internal error: %s %v", verb, r))
		}
		if r.First < last { // a line ascends
			if err := c.newLine(verb, &start); err != nil {
				return err
			}
		}
		if err := c.appendRange(verb, &start, r); err != nil {
			return err
		}
		last = r.First + r.N
	}
	c.out = append(c.out, '\n')
	return c.room()
}

// appendRange appends r to the line that began at *start with verb, or to a
// second one if the first is full.
func (c *Conn) appendRange(verb string, start *int, r chunk.Range) error {
	const longest = len(" 1048575-1048575\n")
	if len(c.out)-*start+len(verb)+longest > maxListLine {
		if err := c.newLine(verb, start); err != nil {
			return err
		}
	}
	c.out = chunk.AppendRange(append(c.out, ' '), r)
	return nil
}

// newLine ends the line and begins another with verb.
func (c *Conn) newLine(verb string, start *int) error {
	c.out = append(c.out, '\n')
	if err := c.room(); err != nil {
		return err
	}
	c.out = append(c.out, verb...)
	*start = len(c.out)
	return nil
}

// SendWantManifest asks for the manifest.
func (c *Conn) SendWantManifest() error {
	return c.send(func(b []byte) []byte { return append(b, "want manifest\n"...) })
}

// SendManifest tells the size of the manifest that follows in data lines.
func (c *Conn) SendManifest(size int64) error {
	if size < 1 || size > MaxManifestSize {
		panic(fmt.Sprintf("peer: internal error: manifest of %d bytes", size))
	}
	return c.send(func(b []byte) []byte {
		return append(appendNum(append(b, "manifest"...), size), '\n')
	})
}

// SendData sends bytes of chunk i, or of the manifest if i is -1, from off on:
// at least one, at most MaxSegment. p is not used after the call.
func (c *Conn) SendData(i, off int, p []byte) error {
	if len(p) == 0 || len(p) > MaxSegment {
		panic(fmt.Sprintf("peer: internal error: segment of %d bytes", len(p)))
	}
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()
	// The line ends a TLS record, so that the reader finds it alone and reads
	// what follows to where it belongs.
	c.out = append(c.out, "data"...)
	c.out = append(appendData(c.out, int64(i), int64(off), int64(len(p))), '\n')
	if err := c.push(); err != nil {
		return err
	}
	if _, err := c.tc.Write(p); err != nil {
		return c.fail(err)
	}
	c.lastOut.Store(c.now())
	c.sent.Add(int64(len(p)))
	return nil
}

// SendPeers tells addresses of other peers of the share, as hints. Those that
// are not "IP:port" in canonical form, or that nobody can dial, are left out.
func (c *Conn) SendPeers(addrs []string) error {
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()
	n := 0
	for _, a := range addrs {
		if !validAddr(a) {
			continue
		}
		if n%maxAddrs == 0 {
			if n > 0 {
				c.out = append(c.out, '\n')
				if err := c.room(); err != nil {
					return err
				}
			}
			c.out = append(c.out, "peer"...)
		}
		c.out = append(append(c.out, ' '), a...)
		n++
	}
	if n == 0 {
		return nil
	}
	c.out = append(c.out, '\n')
	return c.room()
}

// SendListen tells the port on which we take connections.
func (c *Conn) SendListen(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("peer: port %d", port)
	}
	return c.send(func(b []byte) []byte { return append(appendNum(append(b, "listen"...), int64(port)), '\n') })
}

// Flush sends what the Send methods have gathered.
func (c *Conn) Flush() error {
	if err := c.acquire(); err != nil {
		return err
	}
	defer c.release()
	return c.flush()
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
		limit = min(limit, byeLimit+2*c.RTT())
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
