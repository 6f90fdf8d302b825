package transfer

import (
	"slices"
	"time"
)

// supervise reports progress, says what a get waits for, and ends it when it
// has waited too long.
func (g *getter) supervise() {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	var said []string
	waiting := false
	rate := speedometer{}
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-t.C:
			if g.out.Load().waiting() {
				g.sw.touch(now)
			}
			preparing := g.preparing.Load() // before the look at how long nothing came
			p, idle := g.sw.progress(g.began, now)
			if idle < 0 || preparing || g.reuse.running.Load() { // what is left is up to the disk
				continue
			}
			p.Rate = rate.note(p.Done, now)
			g.emit(p)
			if idle < time.Second {
				waiting = false
				continue
			}
			limit := g.patience(p)
			if err := g.verdict(idle, limit, p); err != nil {
				g.fail(err)
				return
			}
			reasons := append(g.dial.state().reasons, g.sw.reasons()...)
			if !waiting || !slices.Equal(reasons, said) {
				waiting, said = true, reasons
				g.emit(Waiting{Since: now.Add(-idle), GivesUp: now.Add(limit - idle), Reasons: reasons})
			}
		}
	}
}

// How long to hope for other peers when all that are known have refused what
// is still missing.
const refusedPatience = 10 * time.Second

// patience returns for how long nothing may come as things are.
func (g *getter) patience(p Progress) time.Duration {
	if p.Peers == 0 && g.sw.nobodyEver() {
		return g.o.Timeout
	}
	d := g.dial.state()
	nobodyElse := g.onlySources() && g.o.Port == 0 && g.o.Discover == nil
	if d.connected == d.alive && g.sw.refusedByAll(nobodyElse) {
		return min(refusedPatience, g.o.StallTimeout)
	}
	return g.o.StallTimeout
}

// verdict returns the error that ends a get in which nothing has come for a
// while, or nil if it is worth waiting on until limit.
func (g *getter) verdict(idle, limit time.Duration, p Progress) error {
	if g.asking.Load() {
		return nil // the manifest may be in what is being read
	}
	d := g.dial.state()
	if d.alive == 0 && p.Peers == 0 && len(d.banned) > 0 {
		return &IntegrityError{Chunk: g.sw.lastCorrupt(), Peers: d.banned}
	}
	hopeless := g.o.Port == 0 && g.o.Discover == nil || g.onlySources() && idle > sourcePatience
	if d.alive == 0 && p.Peers == 0 && hopeless {
		return &NoPeerError{Timeout: g.o.Timeout, Reasons: d.reasons, Sources: g.onlySources(), NoList: g.sw.manifestNow() == nil && len(g.o.Sources) > 0}
	}
	reasons := append(d.reasons, g.sw.reasons()...)
	switch {
	case idle < limit:
		return nil
	case p.Peers == 0 && g.sw.nobodyEver():
		return &NoPeerError{Timeout: g.o.Timeout, Reasons: reasons, NoShare: d.noShare, NoList: g.sw.manifestNow() == nil && len(g.o.Sources) > 0}
	}
	return &StalledError{Timeout: limit, Done: p.Done, Total: p.Total, Reasons: reasons}
}

// A speedometer gives the rate of the last three seconds.
type speedometer struct {
	done []int64
	at   []time.Time
}

func (s *speedometer) note(done int64, now time.Time) float64 {
	s.done, s.at = append(s.done, done), append(s.at, now)
	for len(s.at) > 2 && now.Sub(s.at[0]) > 3*time.Second {
		s.done, s.at = s.done[1:], s.at[1:]
	}
	d := now.Sub(s.at[0]).Seconds()
	if d == 0 {
		return 0
	}
	return max(0, float64(done-s.done[0])/d)
}
