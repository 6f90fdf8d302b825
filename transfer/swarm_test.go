package transfer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A still is a swarm whose sessions nobody runs: a test moves them by hand and
// gives them the time.
type still struct {
	*swarm
	net  *memNet
	node *memNode
}

// zeros is a store and a source of zeros.
type zeros struct{}

func (zeros) ReadAt(int, int, []byte) error { return nil }
func (zeros) Write(int, []byte) error       { return nil }
func (zeros) Drop(int) error                { return nil }
func (zeros) Complete(int) bool             { return true }

// zeroShare returns the manifest of a file of n zero bytes.
func zeroShare(t testing.TB, n int64) *manifest.Manifest {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zeros")
	must(t, os.WriteFile(file, nil, 0o644))
	must(t, os.Truncate(file, n))
	m, _, err := manifest.Build(t.Context(), []string{file}, manifest.BuildOptions{Cutter: "fixed"})
	must(t, err)
	return m
}

// stillSeed returns a swarm that has all of a share of n chunks.
func stillSeed(t testing.TB, n int) *still {
	t.Helper()
	w := newStill()
	m := zeroShare(t, int64(n)*chunk.MinSize)
	if m.NumChunks() != n {
		t.Fatalf("%d chunks, want %d", m.NumChunks(), n)
	}
	have := chunk.NewBitfield(n)
	have.Fill()
	w.serve(m, zeros{}, have)
	return w
}

// stillLeech returns a swarm that has nothing of a share of size bytes.
func stillLeech(t testing.TB, size int64) *still {
	t.Helper()
	w := newStill()
	m := zeroShare(t, size)
	w.fetchInto(m, zeros{}, nil, chunk.NewBitfield(m.NumChunks()), &fetch{complete: func() {}, failed: func(error) {}})
	return w
}

func newStill() *still {
	net := newMemNet()
	w := &still{net: net, node: net.node()}
	w.swarm = newSwarm(chunk.Hash{1}, w.node, 7420, func(Event) {})
	return w
}

func (w *still) conn(to *memNode, dialled bool) *memConn {
	return &memConn{us: w.node, them: to, out: newMemPipe(), in: newMemPipe(), dialled: dialled}
}

// attach lets a connection from a peer in and greets it, as its writer would.
func (w *still) attach(t testing.TB, from *memNode) *session {
	t.Helper()
	s := newSession(w.swarm, w.conn(from, false))
	if _, _, err := w.enter(s); err != nil {
		t.Fatal(err)
	}
	must(t, s.writeHello())
	must(t, s.Have(nil))
	return s
}

// locked calls f with the lock that the methods of a session expect to be held.
func (w *still) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func wants(t testing.TB, s *session, rs ...chunk.Range) {
	t.Helper()
	must(t, s.Want(rs))
}

// A seed shows each of several leeches other chunks, and few.
func TestRevealDifferent(t *testing.T) {
	w := stillSeed(t, 400)
	a, b := w.attach(t, w.net.node()), w.attach(t, w.net.node())
	if a.shown == nil || b.shown == nil || a.shown.None() || b.shown.None() {
		t.Fatal("a seed with two leeches shows them nothing, or all at once")
	}
	if both := common(a.shown, b.shown); both > 0 {
		t.Errorf("%d chunks were shown to both", both)
	}
	if n := b.shown.Count(); n > revealAhead {
		t.Errorf("one of two leeches was shown %d chunks ahead; the limit is %d", n, revealAhead)
	}
	// What one has asked for makes room for more, and never for what the other was shown.
	first := slices.Collect(b.shown.Ranges())
	wants(t, b, first...)
	if b.shown.None() {
		t.Error("a leech that asked for all that it was shown is shown nothing more")
	}
	if both := common(a.shown, b.shown); both > 0 {
		t.Errorf("%d chunks were shown to both", both)
	}
}

func common(a, b *chunk.Bitfield) (n int) {
	for i := range a.Len() {
		if a.Has(i) && b.Has(i) {
			n++
		}
	}
	return n
}

// What was shown to somebody who left is for somebody else.
func TestRevealAfterLeaving(t *testing.T) {
	w := stillSeed(t, 400)
	a := w.attach(t, w.net.node())
	n := a.shown.Count()
	asked := a.shown.NextSet(0)
	wants(t, a, chunk.Range{First: asked, N: 1})
	if w.reveal.shown.Count() < n {
		t.Fatalf("%d are marked as shown, %d were", w.reveal.shown.Count(), n)
	}
	w.leave(a)
	if got := w.reveal.shown.Count(); got != 1 || !w.reveal.shown.Has(asked) {
		t.Errorf("after it left, %d chunks count as shown; only the one that it asked for should", got)
	}
}

// Chunks that were sent to somebody and that nobody has after a while are shown
// again: the one who got them left, or never passes anything on.
func TestRevealLostAgain(t *testing.T) {
	w := stillSeed(t, 400)
	a, b := w.attach(t, w.net.node()), w.attach(t, w.net.node())
	kept, lost := a.shown.NextSet(0), b.shown.NextSet(0)
	wants(t, a, chunk.Range{First: kept, N: 1})
	wants(t, b, chunk.Range{First: lost, N: 1})
	for _, s := range []*session{a, b} {
		if s.nextWanted() < 0 {
			t.Fatal("it does not send what was asked for")
		}
	}
	must(t, a.Have([]chunk.Range{{First: kept, N: 1}}))
	now := time.Now()
	for range 2 { // the first look makes them doubtful
		now = now.Add(revealCheck)
		w.locked(func() { w.again(now) })
	}
	if w.reveal.shown.Has(lost) {
		t.Error("a chunk that nobody has is not shown again")
	}
	if !w.reveal.shown.Has(kept) {
		t.Error("a chunk that a leech has is shown again")
	}
}

// Nobody is kept from chunks for long: neither a lone leech, nor one that wants
// none of those that it was shown, nor anybody if there are few.
func TestRevealAll(t *testing.T) {
	told := func(s *session) bool { return s.shown == nil && s.hello }
	w := stillSeed(t, 400)
	a := w.attach(t, w.net.node())
	wants(t, a, chunk.Range{First: a.shown.NextSet(0), N: 1}) // so that it is not idle
	w.locked(func() { a.show(a.metAt.Add(revealAloneTime)) })
	if told(a) {
		t.Error("a lone leech is told of all before others can have come")
	}
	w.locked(func() { a.show(a.metAt.Add(revealAloneTime + 1)) })
	if !told(a) {
		t.Error("a lone leech is not told of all")
	}

	w = stillSeed(t, 400)
	a = w.attach(t, w.net.node())
	w.attach(t, w.net.node())
	later := a.metAt.Add(revealIdle + 2*a.conn.RTT())
	w.locked(func() { a.show(later) })
	if told(a) {
		t.Error("a leech of two is told of all too soon")
	}
	w.locked(func() { a.show(later.Add(time.Second)) })
	if !told(a) {
		t.Error("a leech that wants nothing of what it is shown is not told of the rest")
	}

	w = stillSeed(t, revealMin)
	if a = w.attach(t, w.net.node()); a.shown != nil {
		t.Errorf("a share of %d chunks is not shown whole", revealMin)
	}
}

// Turns go to so many at once, in the order in which they wait; second
// connections come after everybody else.
func TestTurns(t *testing.T) {
	w := stillSeed(t, 400)
	var all []*session
	for range minTurns + 2 {
		all = append(all, w.attach(t, w.net.node()))
	}
	second := w.attach(t, all[0].conn.(*memConn).them)
	now := time.Now()
	served := func() (n int) {
		for _, s := range w.sessions {
			if s.turn {
				n++
			}
		}
		return n
	}
	w.locked(func() {
		for k, s := range append([]*session{second}, all...) {
			s.takeTurn(now.Add(time.Duration(k)))
		}
	})
	// Second came first, when there was room for all.
	if n := served(); n != minTurns || !second.turn {
		t.Fatalf("%d have a turn, want %d", n, minTurns)
	}
	w.locked(func() {
		second.endTurn(now)
		second.takeTurn(now)
	})
	if served() != minTurns || second.turn {
		t.Error("a second connection has its turn before first ones that wait")
	}
	var order []*session
	for range all {
		for _, s := range all {
			if s.turn {
				order = append(order, s)
				w.locked(func() { s.endTurn(now) })
				break
			}
		}
	}
	if !slices.Equal(order, all) {
		t.Error("not each has had one turn in the order of arrival")
	}
	if !second.turn {
		t.Error("a second connection never has a turn")
	}
}

// A leech serves one that only takes after those that give.
func TestE11TurnsOfTakers(t *testing.T) {
	w := stillLeech(t, 10*chunk.MinSize)
	now := time.Now()
	var all []*session
	for range minTurns + 2 {
		all = append(all, w.attach(t, w.net.node()))
	}
	taker, giver := all[minTurns], all[minTurns+1]
	taker.stats.Sent = takerSize + 1
	giver.stats.Sent, giver.stats.Received = takerSize+1, 1
	w.locked(func() {
		for k, s := range all {
			s.takeTurn(now.Add(time.Duration(k)))
		}
		all[0].endTurn(now)
	})
	if taker.turn || !giver.turn {
		t.Error("one that only takes was served before one that gives")
	}
	w.locked(func() { all[1].endTurn(now) })
	if !taker.turn {
		t.Error("one that only takes is never served")
	}
}

// To a peer that is far away, alone, and has much to give, all connections are
// opened at once; to one that is near, or one of several, a single one, unless the
// near one is alone and as fast as a core.
func TestLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		rtt    time.Duration
		size   int64
		others int
		rate   float64 // that was measured before
		want   int
	}{
		{"far", 50 * time.Millisecond, lineMuch, 0, 0, maxLines - 1},
		{"near", time.Millisecond, lineMuch, 0, nearLineRate, 0},
		{"little", 50 * time.Millisecond, lineMuch / 2, 0, 0, 0},
		{"several", 50 * time.Millisecond, lineMuch, 1, 0, 0},
		{"near and fast", time.Millisecond, lineMuch, 0, nearLineRate + 1, maxNearLines - 1},
		{"near and fast, little", time.Millisecond, lineMuch / 2, 0, nearLineRate + 1, 0},
		{"near and fast, several", time.Millisecond, lineMuch, 1, nearLineRate + 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := stillLeech(t, c.size)
			for range c.others {
				w.attach(t, w.net.node())
			}
			far := w.net.node()
			far.delay = c.rtt / 2
			more := make(chan struct{}, maxLines)
			s := newSession(w.swarm, w.conn(far, true))
			s.more = more
			s.flow.samples[0] = c.rate
			_, _, err := w.enter(s)
			must(t, err)
			must(t, s.HaveAll())
			if s.inflight == 0 {
				t.Fatal("it was asked for nothing")
			}
			if len(more) != c.want {
				t.Errorf("%d more connections, want %d", len(more), c.want)
			}
		})
	}
}

// A chunk that was cancelled while it is on its way ends where it is, if another
// follows; and whoever cancelled it takes that one.
func TestCancelledChunkBreaksOff(t *testing.T) {
	w := stillSeed(t, 400)
	a := w.attach(t, w.net.node())
	wants(t, a, chunk.Range{First: 3, N: 1}, chunk.Range{First: 9, N: 1})
	o := outgoing{i: -1, size: chunk.MinSize / 4}
	segment := func() {
		t.Helper()
		if more, err := a.writeSegment(&o); err != nil || !more {
			t.Fatalf("more to send: %v, %v", more, err)
		}
	}
	segment()
	if o.i != 3 || o.off == 0 {
		t.Fatalf("it sends chunk %d at %d", o.i, o.off)
	}
	part := int64(o.off)
	must(t, a.Cancel([]chunk.Range{{First: 3, N: 1}}))
	segment()
	if o.i != -1 || a.stats.Sent != part {
		t.Errorf("after the cancel it sends chunk %d at %d", o.i, o.off)
	}
	o.size = chunk.MinSize / 4
	segment()
	if o.i != 9 || o.off == 0 {
		t.Fatalf("then it sends chunk %d at %d", o.i, o.off)
	}
	must(t, a.Cancel([]chunk.Range{{First: 9, N: 1}})) // nothing follows, so it goes to its end
	for o.i == 9 {
		segment()
	}
	if a.stats.Sent != part+chunk.MinSize {
		t.Errorf("%d bytes were sent of the last chunk, and the other side would wait for the rest", a.stats.Sent-part)
	}

	l := stillLeech(t, 400*chunk.MinSize)
	s := l.attach(t, l.net.node())
	must(t, s.HaveAll())
	first, second := s.queue[0].i, s.queue[1].i
	_, err := s.Segment(first, 0, 100)
	must(t, err)
	must(t, s.Received(first, 0, 100))
	if _, err := s.Segment(second, 0, 100); !errors.Is(err, errUnasked) {
		t.Errorf("a chunk that was not cancelled broke off: %v", err)
	}
	l.locked(func() { s.drop(&s.queue[0]) })
	_, err = s.Segment(second, 0, 100)
	must(t, err)
	must(t, s.Received(second, 0, 100))
	if s.head() != second || s.filled != 100 || l.wasted != 100 {
		t.Errorf("it waits for chunk %d, of which %d bytes came; %d came in vain", s.head(), s.filled, l.wasted)
	}
}

// If two peers dial each other, both keep the same one of the two connections,
// whichever each of them sees first.
func TestDoubleConnection(t *testing.T) {
	for _, order := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		a, b := newStill(), newStill()
		b.node = a.net.node() // the same network
		b.network = b.node
		// The connection that a has dialled stays at a if it is dialled, at b if it is not.
		stays := func(w *still, to *memNode, dialledFirst bool) (dialled bool) {
			for _, d := range []bool{dialledFirst, !dialledFirst} {
				s := newSession(w.swarm, w.conn(to, d))
				losers, _, err := w.enter(s)
				if err != nil && !errors.Is(err, errDouble) {
					t.Fatal(err)
				}
				for _, o := range losers {
					w.leave(o)
				}
			}
			if len(w.sessions) != 1 {
				t.Fatalf("%d connections are left", len(w.sessions))
			}
			return w.sessions[0].conn.Dialled()
		}
		if stays(a, b.node, order[0]) == stays(b, a.node, order[1]) {
			t.Errorf("order %v: each keeps another connection", order)
		}
	}
}

// A peer has at most so many connections; a new one takes the oldest's place.
func TestMaxLines(t *testing.T) {
	w := stillSeed(t, 400)
	from := w.net.node()
	first := w.attach(t, from)
	for range maxLines - 1 {
		w.attach(t, from)
	}
	losers, _, err := w.enter(newSession(w.swarm, w.conn(from, false)))
	if err != nil || len(losers) != 1 || losers[0] != first {
		t.Errorf("the connection after the last: %v, %d have to go", err, len(losers))
	}
}

// A peer for which there is no room is told where others are, and why it must go.
func TestReferral(t *testing.T) {
	w := stillSeed(t, 400)
	for k := range maxPeers {
		s := w.attach(t, w.net.node())
		if k%2 == 0 {
			must(t, s.Listening(7000+k))
		}
	}
	c := w.conn(w.net.node(), false)
	if err := w.join(t.Context(), c, nil); !errors.Is(err, errTooMany) {
		t.Fatalf("peer %d: %v", maxPeers+1, err)
	}
	if !errors.Is(c.out.err, errTooMany) {
		t.Errorf("the connection was closed for %v", c.out.err)
	}
	var got told
	for len(c.out.msgs) > 0 {
		must(t, (<-c.out.msgs).do(&got))
	}
	if len(got.addrs) != hintBatch {
		t.Fatalf("told of %d others, want %d", len(got.addrs), hintBatch)
	}
	for k, a := range got.addrs {
		if slices.Contains(got.addrs[:k], a) || !w.reaches(a) {
			t.Errorf("%s is no peer, or came twice", a)
		}
	}
}

// The peer is told why a connection ends, with a code that the protocol has.
func TestReasonsHaveCodes(t *testing.T) {
	spec, err := os.ReadFile("../peer/SPEC.md")
	must(t, err)
	_, codes, _ := strings.Cut(string(spec), "\nCodes: ")
	codes, _, _ = strings.Cut(codes, "\n\n")
	for _, err := range []error{
		errTooMany, errDouble, errBanned, errNoData, fmt.Errorf("%w: chunk 7", errUnasked), errOutside, errTooEager, errUnaskedGone, errRepeats,
		&CorruptError{Index: 3},
	} {
		var coded interface{ ProtocolCode() string }
		if !errors.As(err, &coded) || !strings.Contains(codes, "`"+coded.ProtocolCode()+"` (") && !strings.Contains(codes, "`"+coded.ProtocolCode()+"`,") {
			t.Errorf("%v: no code of the protocol", err)
		}
	}
}

// told is a peer that is only told of others.
type told struct {
	Handler
	addrs []string
}

func (h *told) Peers(addrs []string) error {
	h.addrs = append(h.addrs, addrs...)
	return nil
}

func TestNumText(t *testing.T) {
	if a, b := numText(1), numText(34); a != "1 chunk" || b != "34 chunks" {
		t.Errorf("%q, %q", a, b)
	}
}
