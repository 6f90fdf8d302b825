//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"testing"
	"testing/synctest"
	"time"
)

// between returns what passed in the next d, as the Inspector of sw sees it, and by
// address. All that came and went must be some peer's.
func between(t *testing.T, sw *swarm, d time.Duration) (s Snapshot, by map[string]PeerSince) {
	t.Helper()
	in := &Inspector{}
	in.look(sw)
	before, _ := in.Now()
	time.Sleep(d)
	s, _ = in.Now()
	gave, took := int64(0), int64(0)
	by = map[string]PeerSince{}
	for _, p := range s.Since(before) {
		if _, twice := by[p.Addr]; twice {
			t.Errorf("%s is there twice", p.Addr)
		}
		by[p.Addr] = p
		gave += p.Gave
		took += p.Took
	}
	if gave != s.Received-before.Received || took != s.Sent-before.Sent {
		t.Errorf("peers gave %d and took %d bytes; %d came and %d went", gave, took, s.Received-before.Received, s.Sent-before.Sent)
	}
	return s, by
}

// about fails unless got is what rate bytes/s make of d, give or take a fifth: what
// is counted is segments.
func about(t *testing.T, what string, got int64, rate float64, d time.Duration) {
	t.Helper()
	if want := rate * d.Seconds(); float64(got) < want*0.8 || float64(got) > want*1.2 {
		t.Errorf("%s: %d bytes in %v, want about %.0f", what, got, d, want)
	}
}

// What each peer gives and takes is what passed lately: 0 once it says nothing or has
// gone, and all of it again after that, without what was before.
func TestInspectorSince(t *testing.T) {
	const rate, span = 4 << 20, 3 * time.Second
	down := &Limits{}
	down.Set(0, rate)
	limited(t, 2, 1, new(Limits), down, func(s, l []limitSide) {
		leech, a, b := l[0], s[0], s[1]
		time.Sleep(2 * time.Second)
		_, by := between(t, leech.sw, span)
		pa, pb := by[a.node.addr], by[b.node.addr]
		about(t, "both", pa.Gave+pb.Gave, rate, span)
		if pa.Gave == 0 || pb.Gave == 0 || pa.Took > 0 {
			t.Errorf("one gives nothing, or takes: %+v", by)
		}
		_, by = between(t, a.sw, span)
		if p := by[leech.node.addr]; p.Took == 0 || p.Gave > 0 {
			t.Errorf("to a seed it looks like %+v", p)
		}

		a.node.still.Store(true)
		time.Sleep(time.Second) // for what is on the line
		synctest.Wait()
		_, by = between(t, leech.sw, span)
		if p := by[a.node.addr]; p.Gave != 0 || p.Lines == 0 || p.Received == 0 {
			t.Errorf("one that is silent: %+v", p)
		}
		about(t, "the other", by[b.node.addr].Gave, rate, span)

		b.sw.closeAll()
		time.Sleep(time.Second)
		snap, by := between(t, leech.sw, span)
		if p, listed := by[b.node.addr]; listed {
			t.Errorf("one that has gone: %+v", p)
		}
		if len(snap.Peers) != 2 {
			t.Errorf("%d peers are known", len(snap.Peers))
		}
	})
}

// A peer with several connections, as one that is far away has, is there once.
func TestInspectorCountsPeers(t *testing.T) {
	const rate, span = 4 << 20, 3 * time.Second
	down := &Limits{}
	down.Set(0, rate)
	limited(t, 1, 1, new(Limits), down, func(s, l []limitSide) {
		time.Sleep(5 * time.Second)
		_, by := between(t, l[0].sw, span)
		p := by[s[0].node.addr]
		if p.Lines < 2 {
			t.Fatalf("it has %d connections", p.Lines)
		}
		about(t, "over all connections", p.Gave, rate, span)
	})
}
