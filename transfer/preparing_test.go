//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// While a get compares what is there already it waits for nobody, however long that
// takes: it does not say so, and does not give up.
func TestPreparingIsNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := 0
		g, err := newGetter(context.Background(), GetOptions{
			Root: chunk.Hash{1}, Network: newMemNet().node(), Port: 7420, Timeout: time.Minute,
			Events: func(e Event) {
				if _, ok := e.(Waiting); ok {
					waits++
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		g.preparing.Store(true)
		g.crew.Go(g.supervise)
		time.Sleep(time.Hour)
		synctest.Wait()
		if g.ctx.Err() != nil || waits > 0 {
			t.Errorf("%v, %d waits", context.Cause(g.ctx), waits)
		}
		g.preparing.Store(false)
		g.crew.Wait()
		var none *NoPeerError
		if !errors.As(context.Cause(g.ctx), &none) {
			t.Errorf("it ended with %v", context.Cause(g.ctx))
		}
	})
}
