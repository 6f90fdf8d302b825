package transfer

import "time"

// Who is served when many ask: with sixty chunks on their way at once over one
// line each of them takes sixty times as long, and nobody can pass one on until
// then. So only some peers are served at a time, chunk by chunk in turn: as many
// as get turnRate each, and more if they are slow themselves. Who only takes,
// and second connections, come after everybody else.
const (
	minTurns = 4
	turnRate = 512 << 10
	slowTurn = turnRate / 4

	// takerSize is what a peer may take before it should have given something.
	takerSize = 4 << 20
)

// maxTurns returns how many may be served at once. Called with mu held.
func (sw *swarm) maxTurns() int { return max(minTurns, int(sw.sent.rate/turnRate)) }

// numTurns returns how many are. Those that take little of the line do not count.
// Called with mu held.
func (sw *swarm) numTurns(now time.Time) int {
	n := 0
	for _, s := range sw.sessions {
		if s.turn && (s.out.rate > slowTurn || now.Sub(s.turnAt) < time.Second) {
			n++
		}
	}
	return n
}

// takeTurn reports whether s may send a chunk now; if not, grant calls it later.
// Called with the swarm's mu held.
func (s *session) takeTurn(now time.Time) bool {
	if s.turn {
		return true
	}
	if s.waits.IsZero() {
		s.waits = now
	}
	s.sw.grant(now)
	return s.turn
}

// endTurn lets another peer have the turn of s. Called with the swarm's mu held.
func (s *session) endTurn(now time.Time) {
	s.waits = time.Time{}
	if s.turn {
		s.turn = false
		s.sw.grant(now)
	}
}

// grant gives turns that are free to those who have waited longest. Called with
// mu held.
func (sw *swarm) grant(now time.Time) {
	for free := sw.maxTurns() - sw.numTurns(now); free > 0; free-- {
		var next *session
		last := false
		for k, s := range sw.sessions {
			if s.turn || s.waits.IsZero() {
				continue
			}
			humble := s.takesOnly() || sw.isSecond(k)
			if next == nil || last && !humble || last == humble && s.waits.Before(next.waits) {
				next, last = s, humble
			}
		}
		if next == nil {
			return
		}
		next.turn, next.turnAt, next.outAt, next.waits = true, now, now, time.Time{}
		next.poke()
	}
}

// takesOnly reports whether the peer of s has taken from us and given nothing. A
// seed wants nothing from anybody, so to it they are all the same.
func (s *session) takesOnly() bool {
	f := s.sw.get
	return f != nil && !f.sealed && !s.seed && s.stats.Sent > takerSize && s.stats.Received == 0
}

// isSecond reports whether session k is not the first with its peer.
func (sw *swarm) isSecond(k int) bool {
	for _, o := range sw.sessions[:k] {
		if o.stats == sw.sessions[k].stats {
			return true
		}
	}
	return false
}
