//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// limitLine is the rate of all lines in a test of limits, in bytes/s.
const limitLine = 20 << 20

// A limitSide is a node of a test of limits, whose line is much faster than any limit.
type limitSide struct {
	node *memNode
	sw   *swarm
}

// limited runs seeds and leeches of a share of zeros for as long as f takes, in
// a time that is not real. All seeds share the limits up, all leeches down.
func limited(t *testing.T, seeds, leeches int, up, down *Limits, f func(s, l []limitSide)) {
	t.Helper()
	m := zeroShare(t, 256<<20)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sim := &simulation{net: newMemNet(), m: m}
		var s, l []limitSide
		for range seeds {
			sim.serve(ctx, limitLine)
			sim.seed.sw.limits = up
			s = append(s, limitSide{sim.seed.node, sim.seed.sw})
		}
		for range leeches {
			d := sim.leechFrom(ctx, s, down)
			l = append(l, d)
		}
		f(s, l)
		cancel()
		for _, x := range s {
			x.sw.closeAll()
			x.node.calls.Wait()
		}
		sim.wg.Wait()
	})
}

// leechFrom starts a leech that dials all seeds and accepts nobody.
func (s *simulation) leechFrom(ctx context.Context, seeds []limitSide, down *Limits) limitSide {
	node := s.node(limitLine, limitLine, 5*time.Millisecond)
	sw := newSwarm(s.m.Root(), node, 0, func(Event) {})
	sw.limits = down
	f := &fetch{failed: func(err error) { panic(err) }, complete: func() { panic("the share is too small for this test") }}
	d := &dialler{sw: sw}
	s.wg.Go(func() { sw.watch(ctx) })
	sw.fetchInto(s.m, zeros{}, nil, chunk.NewBitfield(s.m.NumChunks()), f)
	s.wg.Go(sw.work)
	for _, o := range seeds {
		d.add(ctx, o.node.addr)
	}
	s.wg.Go(func() {
		<-ctx.Done()
		sw.closeAll()
		d.wait()
		sw.drained()
		close(f.results)
	})
	return limitSide{node, sw}
}

// within fails unless what happens is what a limit of rate bytes/s lets pass, give
// or take 5 %. What comes is counted by the segment, and of these 40 are enough.
func within(t *testing.T, what string, count func() int64, rate int64) {
	t.Helper()
	d := max(10*time.Second, time.Duration(40*maxSegment*int64(time.Second)/rate))
	was := count()
	time.Sleep(d)
	got, want := float64(count()-was), float64(rate)*d.Seconds()
	if got < want*0.95 || got > want*1.05 {
		t.Errorf("%s: %.0f bytes in %v, the limit lets pass %.0f (%.1f %%)", what, got, d, want, 100*got/want)
	}
}

func sumSent(ls []limitSide) (n int64) {
	for _, l := range ls {
		n += l.sw.statsNow().Sent
	}
	return n
}

func sumReceived(ls []limitSide) (n int64) {
	for _, l := range ls {
		n += l.sw.statsNow().Received
	}
	return n
}

// A seed with three leeches keeps its limit over all of them together, also
// after it has changed, in both directions, and gives all its line without one.
func TestLimitUp(t *testing.T) {
	for _, rate := range []int64{64 << 10, 2 << 20} {
		up := &Limits{}
		limited(t, 1, 3, up, new(Limits), func(s, l []limitSide) {
			sent := func() int64 { return sumSent(s) }
			up.Set(rate, 0)
			within(t, "from the start", sent, rate)
			up.Set(2*rate, 0)
			within(t, "doubled", sent, 2*rate)
			up.Set(rate/2, 0)
			within(t, "down to a quarter", sent, rate/2)
			up.Set(0, 0)
			was := sent()
			time.Sleep(2 * time.Second)
			if got := sent() - was; got < limitLine {
				t.Errorf("without a limit: %d bytes in 2 s over a line of 20 MiB/s", got)
			}
		})
	}
}

// Who lets little pass waits for nobody: the bytes are there.
func TestLimitIsNoWait(t *testing.T) {
	down := &Limits{}
	limited(t, 1, 1, new(Limits), down, func(_, l []limitSide) {
		down.Set(0, 16<<10)
		time.Sleep(10 * time.Second)
		for range 300 {
			time.Sleep(200 * time.Millisecond)
			if _, idle := l[0].sw.progress(time.Time{}, time.Now()); idle > time.Second {
				t.Fatalf("nothing came for %v", idle)
			}
		}
	})
}

// A leech with four seeds keeps its limit over all of them together.
func TestLimitDown(t *testing.T) {
	for _, rate := range []int64{64 << 10, 2 << 20} {
		down := &Limits{}
		limited(t, 4, 1, new(Limits), down, func(s, l []limitSide) {
			got := func() int64 { return sumReceived(l) }
			down.Set(0, rate)
			within(t, "from the start", got, rate)
			down.Set(0, 2*rate)
			within(t, "doubled", got, 2*rate)
			down.Set(0, rate/2)
			within(t, "down to a quarter", got, rate/2)
			down.Set(0, 0)
			was := got()
			time.Sleep(2 * time.Second)
			if n := got() - was; n < limitLine {
				t.Errorf("without a limit: %d bytes in 2 s over a line of 20 MiB/s", n)
			}
		})
	}
}

// Two transfers that were given the same limits keep them together.
func TestLimitShared(t *testing.T) {
	down := &Limits{}
	limited(t, 2, 2, new(Limits), down, func(_, l []limitSide) {
		down.Set(0, 1<<20)
		within(t, "two leeches", func() int64 { return sumReceived(l) }, 1<<20)
	})
}

// A pacer neither saves up without end nor lets a huge piece through for nothing.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		stop := make(chan struct{})
		if err := p.wait(1<<40, stop); err != nil { // no limit
			t.Fatal(err)
		}
		p.set(1) // less than the least
		if got := p.limit(); got != MinLimit {
			t.Errorf("limit %v, want %v", got, MinLimit)
		}
		p.set(1 << 20)
		time.Sleep(time.Hour)
		began := time.Now()
		for range 100 {
			must(t, p.wait(64<<10, stop))
		}
		// 6.25 MiB, less what was saved and the last piece, for which the next would wait.
		if d := time.Since(began); d < 5900*time.Millisecond || d > 6200*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		done := make(chan error)
		time.Sleep(time.Minute)
		must(t, p.wait(100<<20, stop))
		go func() { done <- p.wait(1, stop) }()
		synctest.Wait()
		close(stop)
		if err := <-done; err != errStopping {
			t.Errorf("a wait that was stopped: %v", err)
		}
		if n := p.piece(1 << 30); n != 48<<10 {
			t.Errorf("a piece of %d", n)
		}
	})
}
