package transfer

import (
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A seed that many leeches ask at once would, if it said at once that it has
// all, send many chunks twice: each leech chooses at random and cannot know what
// the others are waiting for. So it shows each leech other chunks, a few more
// than that leech has asked for, and everyone gets the rest from each other
// (BEP 16, super-seeding). A leech that is alone is shown as much as it takes.
const (
	revealMin    = 8  // shares with at most so many chunks are shown whole
	revealAhead  = 8  // chunks that a leech is shown beyond what it asks for
	revealAlone  = 32 // the same for a lone leech, at first
	revealSteal  = 4  // chunks of others that an idle leech is shown at once,
	revealIdlers = 4  // if fewer leeches than this are being served
)

// revealAloneTime is how long a leech must be alone to be told of everything:
// those that are started together do not arrive together.
const revealAloneTime = 300 * time.Millisecond

// revealTime is how far ahead a lone leech is shown chunks, at the rate at which
// it takes them.
const revealTime = 200 * time.Millisecond

// A leech that was shown chunks and asks for none of them may want a part of the
// share only, and is shown all: soon if it never asked for anything, later if it
// did, since its lines may be waiting behind the data that it sends to others.
const (
	revealIdle     = 100 * time.Millisecond
	revealIdleLate = 2 * time.Second
)

// A reveal is what a seed has shown. The swarm's mu guards it.
type reveal struct {
	shown *chunk.Bitfield // to anybody
	sent  *chunk.Bitfield // to anybody, or on its way

	// To find what was sent to somebody who left, or who gives nothing.
	avail   []uint16        // how many of the leeches have said that they have a chunk
	doubt   *chunk.Bitfield // sent, and had by nobody when it was last looked at
	lost    []int32
	checked time.Time
}

// revealCheck is how often a seed looks for chunks that were lost, and how long a
// leech may take to say that it got one.
const revealCheck = 2 * time.Second

// again lets chunks be shown once more that were sent and that nobody has. Called
// with mu held.
func (sw *swarm) again(now time.Time) {
	v := &sw.reveal
	if v.shown == nil || now.Sub(v.checked) < revealCheck {
		return
	}
	v.checked = now
	for _, s := range sw.sessions {
		if s.seed {
			return // nothing is lost
		}
	}
	for r := range v.sent.Ranges() {
		for i := r.First; i < r.First+r.N; i++ {
			switch {
			case v.avail[i] > 0:
				v.doubt.Clear(i)
			case v.doubt.Set(i): // it may still be on its way
			default:
				v.doubt.Clear(i)
				v.lost = append(v.lost, int32(i))
			}
		}
	}
	for _, i := range v.lost {
		v.sent.Clear(int(i))
		v.shown.Clear(int(i))
	}
	v.lost = v.lost[:0]
}

// count notes that n more leeches have chunk i, or fewer.
func (v *reveal) count(i, n int) {
	if v.avail != nil {
		v.avail[i] += uint16(n)
	}
}

// withholds reports whether new peers are told only of some chunks. Called with
// mu held.
func (sw *swarm) withholds() bool {
	if sw.have == nil || !sw.have.All() || sw.have.Len() <= revealMin {
		return false
	}
	if sw.reveal.shown == nil {
		sw.reveal.shown = chunk.NewBitfield(sw.have.Len())
		sw.reveal.sent = chunk.NewBitfield(sw.have.Len())
		sw.reveal.doubt = chunk.NewBitfield(sw.have.Len())
		sw.reveal.avail = make([]uint16, sw.have.Len())
		for _, s := range sw.sessions {
			if s.has == nil {
				continue
			}
			for r := range s.has.Ranges() {
				for i := r.First; i < r.First+r.N; i++ {
					sw.reveal.avail[i]++
				}
			}
		}
	}
	return true
}

// numLeeches returns how many peers miss something. Called with mu held.
func (sw *swarm) numLeeches() int {
	n := 0
	for k, s := range sw.sessions {
		if s.seed {
			continue
		}
		n++
		for _, o := range sw.sessions[:k] {
			if !o.seed && o.stats == s.stats { // another line to the same
				n--
				break
			}
		}
	}
	return n
}

// show tells s of more chunks if it is time to. Called with the swarm's mu held.
func (s *session) show(now time.Time) {
	if s.shown == nil || s.seed {
		return
	}
	s.wmu.Lock()
	queued := 0
	for _, r := range s.serving {
		queued += r.N
	}
	busy := queued > 0 || s.sending
	s.wmu.Unlock()
	ahead := s.shown.Count()
	alone := s.sw.numLeeches() == 1
	if alone && s.met && now.Sub(s.metAt) > revealAloneTime {
		s.showAll()
		return
	}
	idle := revealIdle + 2*s.conn.RTT()
	if s.stats.Sent > 0 {
		idle = revealIdleLate
	}
	if busy {
		s.busyAt = now
	}
	if ahead > 0 && s.met && now.Sub(s.metAt) > idle && now.Sub(s.shownAt) > idle && now.Sub(s.busyAt) > idle {
		s.showAll()
		return
	}
	want := max(s.sw.revealEach(), min(2*queued, max(revealAlone, 2*s.pace))) // to ask for much is not to take it
	if alone {
		want = max(want, revealAlone, s.pace)
	}
	if ahead > want/2 {
		return
	}
	var rs []chunk.Range
	n := ahead
	for n < want {
		r := s.nextShown(want - n)
		if r.N == 0 {
			break
		}
		rs = append(rs, r)
		n += r.N
	}
	starved := !busy && now.Sub(s.busyAt) > revealIdleLate && now.Sub(s.shownAt) > revealIdleLate
	if n == 0 && queued <= 1 && (starved || s.sw.numServed(now) < revealIdlers) {
		if rs = s.steal(); rs == nil && !busy {
			s.showAll()
			return
		}
	}
	if rs == nil {
		return
	}
	s.shownAt = now
	s.wmu.Lock()
	s.shows = append(s.shows, rs...)
	s.wmu.Unlock()
	s.poke()
}

// revealEach returns how many chunks each of several leeches is shown ahead: not so
// many that the last of them are shown none. Called with mu held.
func (sw *swarm) revealEach() int {
	return min(max(sw.have.Len()/(4*max(1, len(sw.sessions))), 1), revealAhead)
}

// numServed returns how many peers wait for something, and take it when it comes.
// Called with mu held.
func (sw *swarm) numServed(now time.Time) int {
	n := 0
	for _, s := range sw.sessions {
		s.wmu.Lock()
		if (s.sending || len(s.serving) > 0) && now.Sub(s.tookAt) < time.Second {
			n++
		}
		s.wmu.Unlock()
	}
	return n
}

// nextShown marks the rest of a random stroke that nobody was shown, or a part of
// it that s lacks, as shown to s, and returns it: at most so many chunks. Random
// even for a lone leech, which may have other seeds that show theirs.
func (s *session) nextShown(most int) chunk.Range {
	v := &s.sw.reveal
	for !v.shown.All() {
		first := v.shown.NextClear(s.sw.rnd.IntN(v.shown.Len()))
		if first < 0 {
			first = v.shown.NextClear(0)
		}
		// Back to where this stroke's hidden part begins.
		for first%strokeLen != 0 && !v.shown.Has(first-1) {
			first--
		}
		r := chunk.Range{First: first}
		for i := first; r.N < most && i < v.shown.Len() && (i == first || i%strokeLen != 0) && !v.shown.Has(i); i++ {
			if s.has != nil && s.has.Has(i) {
				if r.N > 0 {
					break
				}
				v.shown.Set(i) // it is out already
				r.First = i + 1
				continue
			}
			v.shown.Set(i)
			s.shown.Set(i)
			r.N++
		}
		if r.N > 0 {
			return r
		}
	}
	return chunk.Range{}
}

// steal returns chunks that were shown to others, who did not get them yet, from
// a random place on.
func (s *session) steal() []chunk.Range {
	var rs []chunk.Range
	sent := s.sw.reveal.sent
	n := sent.Len()
	from := s.sw.rnd.IntN(n)
	for _, part := range [][2]int{{from, n}, {0, from}} {
		for i := sent.NextClear(part[0]); i >= 0 && i < part[1] && len(rs) < max(revealSteal, s.pace/2); i = sent.NextClear(i + 1) {
			if !s.shown.Has(i) && (s.has == nil || !s.has.Has(i)) {
				s.shown.Set(i)
				rs = append(rs, chunk.Range{First: i, N: 1})
			}
		}
	}
	return rs
}

// measure notes how many chunks the peer took in the time since it was last
// called, d. Called with the swarm's mu held.
func (s *session) measure(now time.Time, d time.Duration) {
	n := s.stats.Sent - s.measured
	s.measured = s.stats.Sent
	if n > 0 {
		s.tookAt = now
	}
	if s.shown == nil || d <= 0 {
		return
	}
	pace := float64(n) / float64(max(1, s.sw.m.MaxChunkLen())) * float64(revealTime+4*s.conn.RTT()) / float64(d)
	s.pace = max(int(pace), s.pace/2)
}

// hide takes back what s was shown and did not ask for: it has left.
func (s *session) hide() {
	if s.shown == nil {
		return
	}
	for r := range s.shown.Ranges() {
		for i := r.First; i < r.First+r.N; i++ {
			s.sw.reveal.shown.Clear(i)
		}
	}
}

// showAll tells s of everything.
func (s *session) showAll() {
	s.shown = nil
	s.wmu.Lock()
	s.shows, s.hello = nil, true
	s.wmu.Unlock()
	s.poke()
}
