package transfer

import "time"

// One TCP connection often cannot fill a long line: a lost packet halves it, its
// window grows slowly, and both are counted in round trips. A peer that is far
// away and delivers well is therefore dialled a few times more.
//
// A short line is filled by one, until what limits it is the core on which the peer
// reads and encrypts, or that on which we decrypt: then a second one uses another
// core. 2 GiB over loopback take a fifth less time with two, and no less with four.
const (
	maxLines     = 4
	maxNearLines = 2
	lineRTT      = 8 * time.Millisecond   // from here on a peer is far away
	lineRate     = 8 << 20                // bytes/s: less is not limited by the window
	nearLineRate = 200 << 20              // bytes/s: less is not limited by a core
	lineInterval = 150 * time.Millisecond // between two dials
	lineRest     = 8 << 20                // bytes: for less it is not worth it
	lineMuch     = 128 << 20              // bytes: for more, lines are opened at once
)

// farWindow is what a far peer is asked for at first, in bytes: it takes some
// round trips until a rate is known.
const farWindow = 1 << 20

// far reports whether s is the way to the only peer, which is far away, and much
// is to come from it: then there is no time to lose in finding out.
// Called with mu held.
func (s *session) far() bool {
	return s.conn.RTT() >= lineRTT && s.alone()
}

// alone reports whether s is a way to the only peer, and much is to come from it.
// Called with mu held.
func (s *session) alone() bool {
	if f := s.sw.get; f.total-f.done < lineMuch {
		return false
	}
	for _, o := range s.sw.sessions {
		if o.stats != s.stats {
			return false
		}
	}
	return true
}

// addLines asks for another connection to the peer of s if one would help.
// Called with the swarm's mu held.
func (s *session) addLines(now time.Time) {
	f := s.sw.get
	if s.more == nil || f == nil || s.inflight == 0 {
		return
	}
	if s.conn.RTT() < lineRTT {
		if s.numMore+1 < maxNearLines && s.flow.rate() > nearLineRate && s.alone() {
			s.addLine(now)
		}
		return
	}
	// With other peers around, those fill our line, and this one has others to serve.
	for s.numMore+1 < maxLines && len(s.sw.sessions)+s.numMore < maxLines+1 &&
		(s.far() || s.flow.rate() > lineRate && f.total-f.done > lineRest && now.Sub(s.lastMore) > lineInterval) {
		s.addLine(now)
	}
}

// addLine asks for another connection. Called with the swarm's mu held.
func (s *session) addLine(now time.Time) {
	s.numMore++
	s.lastMore = now
	s.more <- struct{}{}
}
