//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// An asker is a peer that asks for chunk 0 again and again and takes what comes.
type asker struct {
	sleeper
	buf   []byte
	again func() error // when a chunk has come; nil: nothing
}

func (h *asker) Want([]chunk.Range) error            { return nil }
func (h *asker) Segment(_, _, n int) ([]byte, error) { return h.buf[:n], nil }

func (h *asker) Received(_, off, n int) error {
	if h.again == nil || off+n < h.m.ChunkLen(0) {
		return nil
	}
	return h.again()
}

// askForEver asks for chunk 0 until ctx ends, and returns how often: as fast as
// its line allows, and anew whenever it is sent away for it; or, if it is
// cautious, so that as much waits as just may.
func askForEver(ctx context.Context, from, to *memNode, root chunk.Hash, m interface{ ChunkLen(int) int }, cautious bool) (asked int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	want := []chunk.Range{{First: 0, N: 1}}
	for ctx.Err() == nil {
		c, err := from.Dial(ctx, to.addr, root)
		if err == nil {
			h := &asker{sleeper: sleeper{m: m}, buf: make([]byte, maxSegment)}
			wait := make(chan struct{}, 1)
			if cautious {
				h.again = func() error {
					select {
					case wait <- struct{}{}:
					default:
					}
					return nil
				}
			}
			ended := make(chan struct{})
			wg.Go(func() { _ = c.Run(ctx, h); close(ended) })
			most := min(maxServing, maxBacklog/m.ChunkLen(0)) - 1
			for k := 0; ctx.Err() == nil && c.SendWant(want) == nil; k++ {
				asked++
				if cautious && k >= most {
					select {
					case <-wait:
					case <-ended:
					}
				}
			}
			_ = c.Close(nil)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return asked
}

// Asking for the same chunk as often as one can gets nobody more of a seed than a
// peer has that asks for what it needs: four others keep four fifths of their rate,
// and what they have beside such a fifth.
func TestW12GreedyAsker(t *testing.T) {
	const others, span = 4, 10 * time.Second
	rate := func(leeches int, asks func(ctx context.Context, seed limitSide) int) (rate float64, asked int) {
		limited(t, 1, leeches, new(Limits), new(Limits), func(s, l []limitSide) {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			if asks != nil {
				wg.Go(func() { asked = asks(ctx, s[0]) })
			}
			time.Sleep(time.Second)
			was := sumReceived(l[:others])
			time.Sleep(span)
			rate = float64(sumReceived(l[:others])-was) / span.Seconds() / others
			cancel()
			wg.Wait()
		})
		return rate, asked
	}
	alone, _ := rate(others, nil)
	fair, _ := rate(others+1, nil)
	for _, cautious := range []bool{false, true} {
		got, asked := rate(others, func(ctx context.Context, seed limitSide) int {
			from := seed.node.net.node()
			from.blank, from.up.rate, from.down.rate, from.delay = true, limitLine, limitLine, 5*time.Millisecond
			return askForEver(ctx, from, seed.node, seed.sw.manifestNow().Root(), seed.sw.manifestNow(), cautious)
		})
		t.Logf("cautious %v: asked %d times; each of the others has %.0f bytes/s, alone %.0f, beside a fifth leech %.0f", cautious, asked, got, alone, fair)
		if got < 0.95*fair || got < 0.8*alone {
			t.Errorf("cautious %v: the others have %.0f %% of their rate, and %.0f %% of what a fifth leech leaves them", cautious, 100*got/alone, 100*got/fair)
		}
	}
}
