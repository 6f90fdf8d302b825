package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

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
	if c.failed == nil {
		// Key updates are answered by crypto/tls while it reads. When that fails, it
		// does not say so, and its next read finds the wrong key.
		return c.fail(c.bc.writeError())
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
	now := c.now()
	c.lastOut.Store(now)
	c.lastData.Store(max(now, 1))
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
