//go:build !race

// As sim_test.go.

package transfer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// twoSources plays a get from two seeds that give as much each, of which one has a
// fault when part of the ideal time has passed. It returns how much longer the get
// took than an ideal one, in which the fault shows at once.
func twoSources(t *testing.T, part float64, fault func(s *simPeer)) (late time.Duration) {
	t.Helper()
	const size, up = 32 << 20, 4e6
	m := zeroShare(t, size)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &simulation{net: newMemNet(), m: m}
		s.serve(ctx, up)
		s.serve(ctx, up)
		done := make(chan struct{})
		s.leech(ctx, up, 10*up, false, func() { close(done) })
		whole := size / (2 * up) * float64(time.Second)
		time.AfterFunc(time.Duration(part*whole), func() { fault(s.seed) })
		<-done
		late = s.leeches[0].done - time.Duration(whole*(part+2*(1-part)))
		cancel()
		s.wg.Wait()
		for _, o := range append(s.others, s.seed) {
			o.node.calls.Wait()
		}
	})
	return late
}

// A source that falls silent costs at most its deadline, and if others have enough
// to do until then, nothing.
func TestSilentSource(t *testing.T) {
	silent := func(s *simPeer) { s.node.still.Store(true) }
	f := &flow{chunkLen: 128 << 10}
	feed(f, time.Now(), 2*time.Second, 4e6, 20*time.Millisecond)
	deadline := f.patience(f.window(20*time.Millisecond, 1), 20*time.Millisecond)
	if late := twoSources(t, 0.2, silent); late > time.Second {
		t.Errorf("a source was silent early on: %v lost", late)
	}
	if late := twoSources(t, 0.95, silent); late > deadline+500*time.Millisecond {
		t.Errorf("a source was silent at the end: %v lost, with a deadline of %v", late, deadline)
	}
}

// A source that dies costs nothing but what was on its way.
func TestDeadSource(t *testing.T) {
	dead := func(s *simPeer) {
		s.node.setDeaf(true)
		s.sw.mu.Lock()
		defer s.sw.mu.Unlock()
		for _, o := range s.sw.sessions {
			_ = o.conn.Close(errors.New("it has died"))
		}
	}
	for _, part := range []float64{0.2, 0.95} {
		if late := twoSources(t, part, dead); late > 700*time.Millisecond {
			t.Errorf("a source died at %.0f %%: %v lost", 100*part, late)
		}
	}
}
