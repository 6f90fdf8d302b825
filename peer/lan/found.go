package lan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// How long an address waits before it is told. Who has only just come will call us
// itself, and one of two connections would be for nothing; of a peer with two
// addresses, as it may be if they have the same port, the one that can be passed on
// to others is the better one.
const (
	waitAnnounced = 2 * time.Second
	waitV6        = 300 * time.Millisecond
	waitTwin      = 10 * time.Second
	answerTime    = 3 * time.Second // after a question, what comes may be its answer
)

// A found is the addresses of one family that were heard of.
type found struct {
	at     map[netip.AddrPort]*sighting
	hosts  map[netip.Addr]*caller
	budget *rate.Limiter
	ready  []netip.AddrPort // only used by tell, which keeps its memory
}

// A sighting is an address at which there may be a peer.
type sighting struct {
	heard time.Time // last
	told  time.Time // last; zero: not yet
	due   time.Time // when to tell; zero: nothing to tell
}

// A caller is a host with such addresses.
type caller struct {
	num   int // addresses
	tells int // how often one of them was told
}

func newFound() found {
	return found{
		at: make(map[netip.AddrPort]*sighting), hosts: make(map[netip.Addr]*caller),
		budget: rate.NewLimiter(tellRate, tellBurst),
	}
}

// add returns the sighting of an address, or nil if there is no room for it.
func (f *found) add(addr netip.AddrPort) *sighting {
	c := f.hosts[addr.Addr()]
	switch {
	case len(f.at) >= maxFound, c != nil && c.num >= maxPerHost:
		return nil
	case c == nil:
		c = &caller{}
		f.hosts[addr.Addr()] = c
	}
	c.num++
	s := &sighting{}
	f.at[addr] = s
	return s
}

func (f *found) forget(addr netip.AddrPort) {
	if f.at[addr] == nil {
		return
	}
	delete(f.at, addr)
	c := f.hosts[addr.Addr()]
	if c.num--; c.num == 0 {
		delete(f.hosts, addr.Addr())
	}
}

// tell tells what is due, within the budget: hosts of which least was told first,
// so that nobody keeps others back by naming many ports, or the same over and over.
// It returns when to call it next; zero is never.
func (f *found) tell(now time.Time, tell func(string)) (next time.Time) {
	f.ready = f.ready[:0]
	next = now.Add(time.Hour)
	for addr, s := range f.at { // in random order
		switch {
		case now.Sub(s.heard) > forgetAfter:
			f.forget(addr)
		case s.due.IsZero():
		case s.due.After(now):
			next = earlier(next, s.due)
		default:
			f.ready = append(f.ready, addr)
		}
	}
	if len(f.ready) > 0 && f.budget.TokensAt(now) < 1 {
		return earlier(next, now.Add(time.Second/tellRate))
	}
	slices.SortStableFunc(f.ready, func(a, b netip.AddrPort) int {
		return cmp.Compare(f.hosts[a.Addr()].tells, f.hosts[b.Addr()].tells)
	})
	for _, addr := range f.ready {
		if !f.budget.AllowN(now, 1) {
			return earlier(next, now.Add(time.Second/tellRate))
		}
		s := f.at[addr]
		s.due, s.told = time.Time{}, now
		f.hosts[addr.Addr()].tells++
		tell(addr.String())
	}
	return next
}

// spotted takes an address at which somebody says that there is a peer.
func (n *node) spotted(now time.Time, p *presence, h heard) bool {
	addr := netip.AddrPortFrom(h.from.addr.Addr().Unmap(), uint16(h.port))
	f := &n.found[0]
	if p.v6 {
		f = &n.found[1]
	}
	s := f.at[addr]
	switch {
	case h.leaves:
		f.forget(addr)
		return false
	case s == nil:
		if h.port == n.c.Port && n.ours(addr.Addr()) {
			return false
		}
		if s = f.add(addr); s == nil {
			return false
		}
	}
	s.heard = now
	if !s.due.IsZero() || !s.told.IsZero() && now.Sub(s.told) < tellAgain {
		return false
	}
	s.due = now
	if p.v6 {
		s.due = now.Add(waitV6)
		if n.twin(p, uint16(h.port)) {
			s.due = now.Add(waitTwin)
		}
	}
	if n.c.Port > 0 && now.Sub(p.askedAt) > answerTime {
		s.due = now.Add(waitAnnounced)
	}
	return true
}

// twin reports whether on the same interface there is an IPv4 address with a port.
func (n *node) twin(p *presence, port uint16) bool {
	other := n.nets[key{index: p.index}]
	if other == nil {
		return false
	}
	for a := range n.found[0].at {
		if a.Port() == port && other.near(a.Addr()) {
			return true
		}
	}
	return false
}
