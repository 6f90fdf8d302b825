package transfer

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// Peers that ask a seed for all that they can and take nothing keep nobody from
// his share.
func TestW11SlowAskersStarveNobody(t *testing.T) {
	w := stillSeed(t, 400)
	now := time.Now()
	for range revealIdlers {
		s := w.attach(t, w.net.node())
		wants(t, s, chunk.Range{First: 0, N: 380})
		w.locked(func() { s.show(now) })
	}
	a := w.attach(t, w.net.node())
	asked := 0
	for range 10 {
		now = now.Add(tick)
		w.locked(func() {
			for _, s := range w.sessions {
				s.measure(now, tick)
				s.show(now)
			}
		})
		if a.shown == nil {
			return // it was told of everything
		}
		for r := range a.shown.Clone().Ranges() {
			asked += r.N
			must(t, a.Want([]chunk.Range{r}))
			for range r.N { // it takes what it gets
				if a.nextWanted() < 0 {
					t.Fatal("it is not served")
				}
				a.stats.Sent += chunk.MinSize
			}
		}
	}
	if asked < 5*revealSteal {
		t.Errorf("a newcomer beside %d peers that take nothing was shown %d chunks in half a second", revealIdlers, asked)
	}
}

// While the manifest is not known, at most two peers send it at once, and those
// that do not get on make room for others.
func TestW17ManifestFromTwoAtOnce(t *testing.T) {
	w := newStill()
	var all []*session
	for range 6 {
		s := newSession(w.swarm, w.conn(w.net.node(), true))
		_, _, err := w.enter(s)
		must(t, err)
		all = append(all, s)
	}
	now, most := time.Now(), 0
	for range 600 {
		now = now.Add(tick)
		w.locked(func() {
			all[1].manGot++ // a peer that does get on, though slowly
			w.askManifest(now)
			n := 0
			for _, s := range all {
				if s.manAsked {
					n++
				}
			}
			most = max(most, n)
		})
	}
	if most != 2 {
		t.Errorf("%d peers were sending the manifest at once, want 2", most)
	}
	tried := 0
	for k, s := range all {
		if s.manTried {
			tried++
		}
		if (s.quit != nil) != (k == 0 || k == 2) {
			t.Errorf("peer %d: sent away for %v", k, s.quit)
		}
	}
	if tried < 4 || !all[1].manAsked {
		t.Errorf("%d peers were asked in 30 s; the one that gets on is still asked: %v", tried, all[1].manAsked)
	}
}

func TestW12FloodOfWants(t *testing.T) {
	w := stillSeed(t, 400)
	a := w.attach(t, w.net.node())
	for i := range 300 { // neighbours are one range
		wants(t, a, chunk.Range{First: i, N: 1})
	}
	if len(a.serving) != 1 {
		t.Errorf("300 neighbours wait as %d ranges", len(a.serving))
	}
	w = newStill()
	m := zeroShare(t, 1) // one chunk of one byte: all the bytes that may wait allow a hundred million
	have := chunk.NewBitfield(1)
	have.Fill()
	w.serve(m, zeros{}, have)
	a = w.attach(t, w.net.node())
	var err error
	n := 0
	for ; err == nil && n < 1<<20; n++ {
		err = a.Want([]chunk.Range{{First: 0, N: 1}})
	}
	if !errors.Is(err, errTooEager) || n > maxServing+1 {
		t.Errorf("after %d times the same: %v", n, err)
	}
}

// Whatever waits and whatever is cancelled: exactly the rest is left, in order.
func TestCancelLeavesTheRest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	w := stillSeed(t, 400)
	a := w.attach(t, w.net.node())
	for range 300 {
		a.serving, a.backlog = nil, 0
		var want []int
		for range rnd.IntN(12) {
			r := chunk.Range{First: rnd.IntN(390), N: 1 + rnd.IntN(9)}
			wants(t, a, r)
			for i := r.First; i < r.End(); i++ {
				want = append(want, i)
			}
		}
		gone := chunk.NewBitfield(400)
		for range rnd.IntN(6) {
			gone.SetRange(rnd.IntN(350), rnd.IntN(50))
		}
		var rs []chunk.Range
		for r := range gone.Ranges() {
			rs = append(rs, r)
		}
		must(t, a.Cancel(rs))
		var left []int
		bytes := int64(0)
		for _, r := range a.serving {
			for i := r.First; i < r.End(); i++ {
				left = append(left, i)
				bytes += int64(w.m.ChunkLen(i))
			}
		}
		k := 0
		for _, i := range want {
			if gone.Has(i) {
				continue
			}
			if k == len(left) || left[k] != i {
				t.Fatalf("asked for %v, cancelled %v: left %v", want, rs, left)
			}
			k++
		}
		if k != len(left) || a.backlog != bytes {
			t.Fatalf("asked for %v, cancelled %v: left %v, backlog %d of %d", want, rs, left, a.backlog, bytes)
		}
	}
}

// Who says the same for ever is sent away; who says each chunk once, or all of
// them a second time, is not.
func TestW09Repeats(t *testing.T) {
	flood := func(say func(a *session, k int) error) (int, error) {
		w := stillLeech(t, 400*chunk.MinSize)
		a := w.attach(t, w.net.node())
		for k := range 100_000 {
			if err := say(a, k); err != nil {
				return k, err
			}
		}
		return 100_000, nil
	}
	all := []chunk.Range{{First: 0, N: 400}}
	for name, say := range map[string]func(a *session, k int) error{
		"have": func(a *session, _ int) error { return a.Have([]chunk.Range{{First: 0, N: 399}}) },
		"all":  func(a *session, _ int) error { return a.HaveAll() },
		"flip": func(a *session, k int) error {
			if k%2 == 0 {
				return a.HaveAll()
			}
			return a.Gone([]chunk.Range{{First: k % 400, N: 1}})
		},
		"back and forth": func(a *session, k int) error {
			if k%2 == 0 {
				return a.Have(all)
			}
			return a.Gone(all)
		},
	} {
		if n, err := flood(say); !errors.Is(err, errRepeats) {
			t.Errorf("%s: %d times, then %v", name, n, err)
		}
	}
	w := stillLeech(t, 400*chunk.MinSize)
	a := w.attach(t, w.net.node())
	for i := range 400 {
		must(t, a.Have([]chunk.Range{{First: i, N: 1}}))
	}
	must(t, a.HaveAll())
	must(t, a.Have(all))
}

// What a peer says that it has before the manifest is known takes little memory
// and is not lost.
func TestW09EarlyHaves(t *testing.T) {
	w := newStill()
	s := newSession(w.swarm, w.conn(w.net.node(), true))
	_, _, err := w.enter(s)
	must(t, err)
	for i := range 200 {
		must(t, s.Have([]chunk.Range{{First: 2 * i, N: 1}}))
	}
	if err := s.Have([]chunk.Range{{First: chunk.MaxNum, N: 1}}); !errors.Is(err, errOutside) {
		t.Errorf("a chunk that no share can have: %v", err)
	}
	m := zeroShare(t, 400*chunk.MinSize)
	w.fetchInto(m, zeros{}, nil, chunk.NewBitfield(400), &fetch{complete: func() {}, failed: func(error) {}})
	if s.has == nil || s.has.Count() != 200 || s.early != nil {
		t.Errorf("it has %v", s.has)
	}
}

// The beginning of a chunk is a sign of life, but not for ever.
func TestE07BrokenOffChunks(t *testing.T) {
	w := stillLeech(t, 400*chunk.MinSize)
	begin := time.Now()
	try := func() {
		s := newSession(w.swarm, w.conn(w.net.node(), true))
		_, _, err := w.enter(s)
		must(t, err)
		must(t, s.HaveAll())
		i := s.queue[0].i
		_, err = s.Segment(i, 0, 10)
		must(t, err)
		w.get.lastByte = begin
		must(t, s.Received(i, 0, 10))
		w.locked(func() { s.discard(); w.get.brokenOff++ })
		w.leave(s)
	}
	try()
	if w.get.lastByte.Equal(begin) {
		t.Error("the first bytes of a chunk do not count")
	}
	for range maxBrokenOff {
		try()
	}
	if !w.get.lastByte.Equal(begin) {
		t.Errorf("after %d chunks that broke off, the beginning of one still counts", maxBrokenOff)
	}
}

// When all places are taken, somebody who does nothing goes for somebody new.
func TestE06IdlePeersMakeRoom(t *testing.T) {
	w := stillSeed(t, 400)
	var all []*session
	for range maxPeers {
		all = append(all, w.attach(t, w.net.node()))
	}
	now := time.Now()
	for _, s := range all {
		s.since = now.Add(-2 * idleEnough)
		s.tookAt = now
	}
	enter := func() ([]*session, error, error) { return w.enter(newSession(w.swarm, w.conn(w.net.node(), false))) }
	if _, _, err := enter(); !errors.Is(err, errTooMany) {
		t.Errorf("with everybody at work: %v", err)
	}
	all[7].tookAt = now.Add(-idleEnough - time.Second)
	all[9].tookAt = now.Add(-idleEnough - 2*time.Second)
	losers, why, err := enter()
	if err != nil || len(losers) != 1 || losers[0] != all[9] || !errors.Is(why, errTooMany) {
		t.Errorf("with two idle ones: %v; %d have to go for %v", err, len(losers), why)
	}
}

// A peer may come with a new identity each time; the sums stay right.
func TestE08KnownPeersAreBounded(t *testing.T) {
	w := stillSeed(t, 400)
	old := w.attach(t, w.net.node())
	for k := range 3 * maxKnown {
		s := newSession(w.swarm, w.conn(w.net.node(), false))
		_, _, err := w.enter(s)
		must(t, err)
		if k%2 == 0 {
			s.stats.Sent += 10
		}
		w.leave(s)
	}
	if len(w.order) > maxKnown || len(w.peers) != len(w.order) {
		t.Errorf("%d peers are remembered; the limit is %d", len(w.order), maxKnown)
	}
	if st := w.statsNow(); st.Sent != 3*maxKnown/2*10 {
		t.Errorf("%d bytes were sent, want %d", st.Sent, 3*maxKnown/2*10)
	}
	if w.peers[old.conn.ID()] != old.stats {
		t.Error("one that is connected was forgotten")
	}
}

// Somebody who comes with a new identity for each lie is kept out by his address;
// others, and those that we dial, are not.
func TestE08BannedAddress(t *testing.T) {
	w := stillLeech(t, 400*chunk.MinSize)
	bad := w.net.node()
	come := func(from *memNode, dialled bool) (*session, error) {
		s := newSession(w.swarm, w.conn(from, dialled))
		_, _, err := w.enter(s)
		return s, err
	}
	for k := range maxBadOfHost {
		bad.id[0] = byte(k)
		s, err := come(bad, false)
		must(t, err)
		w.ban(s, 0, 0)
		w.leave(s)
	}
	bad.id[0] = 200
	if _, err := come(bad, false); !errors.Is(err, errBanned) {
		t.Errorf("a new identity: %v", err)
	}
	if s, err := come(bad, true); err != nil {
		t.Errorf("dialled: %v", err)
	} else {
		w.leave(s)
	}
	if _, err := come(w.net.node(), false); err != nil {
		t.Errorf("another address: %v", err)
	}
	for range 3 * maxKnown {
		w.locked(func() { w.noteBad(addrOf(w.net.node().addr)) })
	}
	if n := len(w.badHosts); n > maxKnown {
		t.Errorf("%d addresses are remembered", n)
	}
}
