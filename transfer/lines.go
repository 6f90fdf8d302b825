package transfer

import "time"

// One TCP connection often cannot fill a long line: a lost packet halves it, its
// window grows slowly, and both are counted in round trips. A peer that is far
// away and delivers well is therefore dialled a few times more.
const (
	maxLines     = 4
	lineRTT      = 8 * time.Millisecond   // from here on a peer is far away
	lineRate     = 8 << 20                // bytes/s: less is not limited by the window
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
	if f := s.sw.get; s.conn.RTT() < lineRTT || f.total-f.done < lineMuch {
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
	if s.more == nil || f == nil || s.inflight == 0 || s.conn.RTT() < lineRTT {
		return
	}
	// With other peers around, those fill our line, and this one has others to serve.
	for s.numMore+1 < maxLines && len(s.sw.sessions)+s.numMore < maxLines+1 &&
		(s.far() || s.flow.rate() > lineRate && f.total-f.done > lineRest && now.Sub(s.lastMore) > lineInterval) {
		s.numMore++
		s.lastMore = now
		s.more <- struct{}{}
	}
}
