package transfer

import (
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// FuzzHandler: whatever an admitted peer says in whatever order, nothing panics,
// only chunks that were asked for come in, and what it may cost stays bounded. Each
// four bytes are a call: what, and numbers for it.
func FuzzHandler(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 9, 0, 0, 0}, true)                                  // have all, a whole chunk
	f.Add([]byte{1, 0, 3, 0, 9, 1, 0, 0, 9, 2, 0, 0, 4, 0, 1, 0}, true)          // haves, chunks, gone
	f.Add([]byte{0, 0, 0, 0, 4, 0, 2, 0, 9, 1, 0, 0, 10, 5, 9, 0}, true)         // gone of what was asked
	f.Add([]byte{2, 0, 8, 0, 3, 1, 2, 0, 2, 1, 1, 0, 5, 0, 0, 0}, false)         // want, cancel
	f.Add([]byte{6, 1, 0, 0, 8, 255, 255, 0, 7, 9, 0, 0, 1, 250, 250, 0}, false) // what was not asked for
	leechShare, seedShare := zeroShare(f, 8*chunk.MinSize+5), zeroShare(f, 64*chunk.MinSize)
	f.Fuzz(func(t *testing.T, in []byte, fetching bool) {
		w := newStill()
		m := seedShare
		if fetching {
			m = leechShare
			w.fetchInto(m, zeros{}, nil, chunk.NewBitfield(m.NumChunks()), &fetch{complete: func() {}, failed: func(error) {}})
			ended := make(chan struct{})
			go func() { // what arrives is taken off
				defer close(ended)
				for r := range w.get.results {
					w.get.buffers.put(r.buf)
				}
			}()
			defer func() { close(w.get.results); <-ended }()
		} else {
			have := chunk.NewBitfield(m.NumChunks())
			have.Fill()
			w.serve(m, zeros{}, have)
		}
		s := newSession(w.swarm, w.conn(w.net.node(), false))
		if _, _, err := w.enter(s); err != nil {
			t.Fatal(err)
		}
		if err := s.writeHello(); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for ; len(in) >= 4; in = in[4:] {
			a, b := int(in[1]), int(in[2])
			rs := []chunk.Range{{First: a, N: 1 + b}}
			if in[3]&1 != 0 { // as far as a line can go
				rs[0] = chunk.Range{First: chunk.MaxNum - 1 - a, N: 1 + min(a, b)}
			}
			var err error
			switch in[0] % 12 {
			case 0:
				err = s.HaveAll()
			case 1:
				err = s.Have(rs)
			case 2:
				err = s.Want(rs)
			case 3:
				err = s.Cancel(rs)
			case 4:
				err = s.Gone(rs)
			case 5:
				err = s.WantManifest()
			case 6:
				err = s.Manifest(1 + int64(a)<<(b%20))
			case 7:
				err = s.Listening(1 + a<<8 + b)
			case 8: // a segment of anything
				err = segment(t, s, a-1, b<<9, 1+int(in[3])<<10)
			case 9: // a whole chunk, in one segment
				if a < m.NumChunks() {
					err = segment(t, s, a, 0, m.ChunkLen(a))
				}
			case 10:
				err = s.Peers([]string{"198.18.0.9:1"})
			case 11:
				now = now.Add(time.Duration(a) * 100 * time.Millisecond)
				w.locked(func() { s.refill(now); s.show(now); s.measure(now, tick) })
			}
			if s.backlog > maxBacklog+int64(m.MaxChunkLen()) || len(s.serving) > maxServing {
				t.Fatalf("%d bytes in %d ranges wait", s.backlog, len(s.serving))
			}
			if err != nil {
				break // the connection ends here
			}
		}
		if w.get != nil {
			w.locked(func() { s.release(true) })
		}
	})
}

// segment does what a connection does with a data line.
func segment(t *testing.T, s *session, i, off, n int) error {
	buf, err := s.Segment(i, off, n)
	if err != nil {
		return err
	}
	if len(buf) != n {
		t.Fatalf("a buffer of %d bytes for %d", len(buf), n)
	}
	return s.Received(i, off, n)
}
