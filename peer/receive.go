package peer

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

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
