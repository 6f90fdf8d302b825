//go:build !race

// Not under the race detector, as sim_test.go.

package transfer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A sleeper is a peer that says that it has all, answers the first few wants, and
// then nothing any more.
type sleeper struct {
	Handler
	c    Conn
	m    interface{ ChunkLen(int) int }
	left int
}

func (h *sleeper) Want(rs []chunk.Range) error {
	for _, r := range rs {
		for i := r.First; i < r.End(); i++ {
			if h.left--; h.left < 0 {
				return nil
			}
			for off := 0; off < h.m.ChunkLen(i); off += maxSegment {
				if err := h.c.SendData(i, off, make([]byte, min(maxSegment, h.m.ChunkLen(i)-off))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *sleeper) WantManifest() error        { return nil }
func (h *sleeper) HaveAll() error             { return nil }
func (h *sleeper) Have([]chunk.Range) error   { return nil }
func (h *sleeper) Cancel([]chunk.Range) error { return nil }
func (h *sleeper) Gone([]chunk.Range) error   { return nil }
func (h *sleeper) Listening(int) error        { return nil }
func (h *sleeper) Peers([]string) error       { return nil }

// getBeside returns how long a share takes from one seed beside sleepers, of which
// each answers so many wants, and what came in vain. change is called when the
// get has run for a second.
func getBeside(t *testing.T, answers []int, change func(seed *memNode)) (took time.Duration, wasted int64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &simulation{net: newMemNet(), m: zeroShare(t, 32<<20)}
		s.serve(ctx, 12.5e6)
		node := s.node(12.5e6, 12.5e6, 5*time.Millisecond)
		sw := newSwarm(s.m.Root(), node, 7420, func(Event) {})
		d := &dialler{sw: sw}
		for _, n := range answers {
			p := s.node(12.5e6, 12.5e6, 5*time.Millisecond)
			stop := p.Accept(s.m.Root(), func(c Conn) {
				if c.SendHaveAll() == nil {
					_ = c.Run(ctx, &sleeper{c: c, m: s.m, left: n})
				}
			})
			s.wg.Go(func() { <-ctx.Done(); stop() })
			d.add(ctx, p.addr)
		}
		done := make(chan struct{})
		f := &fetch{failed: func(err error) { t.Error(err) }, complete: func() { close(done) }}
		began := time.Now()
		s.wg.Go(func() { sw.watch(ctx) })
		d.add(ctx, s.seed.node.addr)
		sw.fetchInto(s.m, zeros{}, nil, chunk.NewBitfield(s.m.NumChunks()), f)
		s.wg.Go(sw.work)
		if change != nil {
			time.Sleep(time.Second)
			change(s.seed.node)
		}
		select {
		case <-done:
		case <-time.After(time.Hour):
			t.Error("not done in an hour")
		}
		took = time.Since(began)
		wasted = sw.statsNow().Wasted
		cancel()
		sw.closeAll()
		s.seed.sw.closeAll()
		d.wait()
		sw.drained()
		close(f.results)
		s.seed.node.calls.Wait()
		s.wg.Wait()
	})
	return took, wasted
}

// Peers that fall silent with chunks that they were asked for, the last ones
// too, do not hold the transfer up: neither one, nor so many that all that may be
// asked for at once is with them.
func TestE05StallsWithTheLastChunk(t *testing.T) {
	calm, _ := getBeside(t, nil, nil)
	for _, tt := range []struct {
		name    string
		answers []int
		most    time.Duration
	}{
		{"one from the start", []int{0}, calm + calm/4},
		{"one after some chunks", []int{20}, calm + calm/4},
		{"twelve from the start", make([]int, 12), calm + 4*time.Second},
		{"twelve after some chunks", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, calm + 4*time.Second},
		{"forty from the start", make([]int, 40), calm + 20*time.Second},
	} {
		took, wasted := getBeside(t, tt.answers, nil)
		t.Logf("%s: %v instead of %v, %d bytes in vain", tt.name, took, calm, wasted)
		if took > tt.most {
			t.Errorf("%s: %v instead of %v", tt.name, took, calm)
		}
	}
}

// The line of the only seed passes nothing for 90 s: the get goes on when it does
// again, and fetches little twice.
func TestN04LineStalls(t *testing.T) {
	calm, _ := getBeside(t, nil, nil)
	took, wasted := getBeside(t, nil, func(seed *memNode) {
		seed.up.mu.Lock()
		seed.up.free = seed.up.free.Add(90 * time.Second)
		seed.up.mu.Unlock()
	})
	t.Logf("%v instead of %v, %d bytes in vain", took, calm, wasted)
	if took > calm+100*time.Second || wasted > 32<<20/20 {
		t.Errorf("%v instead of %v, and %d bytes in vain", took, calm, wasted)
	}
}
