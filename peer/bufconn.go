package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// bufferSize is the size of each buffer under TLS. crypto/tls reads and
	// writes records of 16 KiB; a system call moves sixteen of them at once.
	bufferSize = 256 << 10

	// minProgress is what a slow peer has to move in one idle time, or it is
	// taken for one that only wants to hold us up (SPEC.md, "Time").
	minProgress = 4 << 10

	// maxHandshakeLen is what a peer may send before the TLS handshake ends.
	maxHandshakeLen = 64 << 10
)

// A bufConn is the net.Conn below TLS. Until grow it passes everything on; then
// it gathers what is read and written in buffers that begin on a page, because
// the kernel copies to and from odd addresses at a quarter of the speed.
//
// It also owns the deadlines. Deadlines set through net.Conn's methods by
// crypto/tls are those of the handshake; Conn uses expect and limit.
type bufConn struct {
	net.Conn
	idle time.Duration // how long a read or a write may take without progress

	in, out atomic.Int64 // bytes read and written
	started atomic.Bool  // a byte has come: see gate
	capped  atomic.Bool  // still in the handshake: at most maxHandshakeLen

	rbuf   []byte // nil before grow, which alone sets it
	rp     []byte // unread part of rbuf
	least  int    // bytes that renew the read deadline when it comes
	ticket int64  // value of in when the deadline was set

	wmu  sync.Mutex // a key update is answered from the reading side
	wbuf []byte
	werr error // first error of a write; sticks

	dmu sync.Mutex
	end time.Time // no deadline is set beyond this, if not zero
}

func newBufConn(nc net.Conn, idle time.Duration) *bufConn {
	b := &bufConn{Conn: nc, idle: idle}
	b.capped.Store(true)
	return b
}

// grow begins to buffer. Nothing may be read or written meanwhile.
func (b *bufConn) grow() {
	// The allocator gives objects of this size whole pages.
	b.rbuf = make([]byte, bufferSize)
	b.wbuf = make([]byte, 0, bufferSize)
}

// expect sets the read deadline: idle from now. When it comes, and at least
// least bytes have come too, it is set again; 0 means never.
// Only the reading goroutine calls it.
func (b *bufConn) expect(least int) {
	b.least = least
	b.ticket = b.in.Load()
	b.setDeadline(b.Conn.SetReadDeadline)
}

func (b *bufConn) setDeadline(set func(time.Time) error) {
	b.dmu.Lock()
	defer b.dmu.Unlock()
	t := time.Now().Add(b.idle)
	if !b.end.IsZero() && b.end.Before(t) {
		t = b.end
	}
	set(t) // an error means that the connection is closed; so will the read say
}

// limit ends all reads and writes at t, those that wait now too.
func (b *bufConn) limit(t time.Time) {
	b.dmu.Lock()
	defer b.dmu.Unlock()
	b.end = t
	b.Conn.SetDeadline(t)
}

func (b *bufConn) limited() bool {
	b.dmu.Lock()
	defer b.dmu.Unlock()
	return !b.end.IsZero()
}

func (b *bufConn) Read(p []byte) (int, error) {
	if b.rbuf == nil {
		n, err := b.read(p)
		if n > 0 {
			b.started.Store(true)
		}
		if b.capped.Load() && b.in.Load() > maxHandshakeLen {
			return 0, fmt.Errorf("%w: handshake of more than %d bytes", ErrNotShoal, maxHandshakeLen)
		}
		return n, err
	}
	if len(b.rp) == 0 {
		n, err := b.read(b.rbuf)
		if n == 0 {
			return 0, err
		}
		b.rp = b.rbuf[:n] // the error, if any, comes again
	}
	n := copy(p, b.rp)
	b.rp = b.rp[n:]
	return n, nil
}

func (b *bufConn) read(p []byte) (int, error) {
	for {
		n, err := b.Conn.Read(p)
		b.in.Add(int64(n))
		if n == 0 && b.least > 0 && errors.Is(err, os.ErrDeadlineExceeded) &&
			b.in.Load()-b.ticket >= int64(b.least) && !b.limited() {
			b.expect(b.least)
			continue
		}
		return n, err
	}
}

func (b *bufConn) Write(p []byte) (int, error) {
	if b.rbuf == nil { // not wbuf, which changes under wmu
		n, err := b.Conn.Write(p)
		b.out.Add(int64(n))
		return n, err
	}
	b.wmu.Lock()
	defer b.wmu.Unlock()
	for q := p; len(q) > 0; {
		if b.werr != nil {
			return 0, b.werr
		}
		n := copy(b.wbuf[len(b.wbuf):cap(b.wbuf)], q)
		b.wbuf = b.wbuf[:len(b.wbuf)+n]
		q = q[n:]
		if len(b.wbuf) == cap(b.wbuf) {
			b.flush()
		}
	}
	return len(p), nil
}

// Flush writes what is buffered.
func (b *bufConn) Flush() error {
	b.wmu.Lock()
	defer b.wmu.Unlock()
	return b.flush()
}

func (b *bufConn) flush() error {
	p := b.wbuf
	b.wbuf = b.wbuf[:0]
	for len(p) > 0 && b.werr == nil {
		b.setDeadline(b.Conn.SetWriteDeadline)
		n, err := b.Conn.Write(p)
		b.out.Add(int64(n))
		p = p[n:]
		if n >= minProgress && errors.Is(err, os.ErrDeadlineExceeded) && !b.limited() {
			continue // slow, but it reads
		}
		b.werr = err
	}
	return b.werr
}

// writeError returns why a write failed, or nil.
func (b *bufConn) writeError() error {
	b.wmu.Lock()
	defer b.wmu.Unlock()
	return b.werr
}

// CloseWrite says that no more will come, where the carrier can say so.
func (b *bufConn) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
