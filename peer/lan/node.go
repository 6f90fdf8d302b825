package lan

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of what others can make us remember, say and do.
const (
	maxFound    = 1024             // addresses of one family that are remembered
	maxPerHost  = 4                // of them, of one host
	tellRate    = 8                // that are told a second, after
	tellBurst   = 32               // so many at once
	forgetAfter = time.Minute      // without being heard of
	tellAgain   = 10 * time.Second // when an address is heard of again
	aloneRate   = 10               // answers a second to one asker alone
)

// A key names one network: an interface, with one of the two families.
type key struct {
	index int
	v6    bool
}

// A network is a link that packets can be sent on, and the addresses there.
type network struct {
	key
	name     string
	own      []netip.Addr
	prefixes []netip.Prefix
}

// An origin is where a message came from.
type origin struct {
	net  key
	addr netip.AddrPort // with a zone if it is local to the link
}

// A node is our side of the conversation, without sockets and clocks. Its methods
// are called one at a time.
type node struct {
	c    Config
	talk *talk
	send func(k key, to netip.AddrPort, b []byte) // to the group, if to is zero
	id   uint16                                   // of our questions

	nets  map[key]*presence
	found [2]found // IPv4, IPv6: whoever makes up one kind does not hide the other
	alone *rate.Limiter
}

// A presence is what we did on one network.
type presence struct {
	network
	announces int       // announcements that are still to come, with growing distance,
	announce  time.Time // the next of them then
	asks      int
	askedAt   time.Time // the last of them
	ask       time.Time // when to ask next; zero: never
	answered  time.Time // when our records were last sent
	answer    time.Time // when somebody is to be answered; zero: nobody waits
}

func newNode(c Config, send func(key, netip.AddrPort, []byte)) *node {
	return &node{
		c: c, talk: newTalk(Name(c.Key)), send: send, id: uint16(1 + rand.N(65535)),
		nets: make(map[key]*presence), found: [2]found{newFound(), newFound()},
		alone: rate.NewLimiter(aloneRate, aloneRate),
	}
}

// announcements is how often a new peer says on a network that it is there: once
// more after a second, then after two and four.
const announcements = 4

// mostRest is the longest time between two questions, which begins with a second
// and doubles.
const mostRest = 30 * time.Second

// see takes the networks that there are now. On those that are new, or have got
// another address, everything begins anew.
func (n *node) see(now time.Time, nets []network) {
	there := make(map[key]bool, len(nets))
	for _, w := range nets {
		there[w.key] = true
		p := n.nets[w.key]
		if p != nil && equal(p.own, w.own) {
			continue
		}
		n.c.Debugf("LAN: on %s with %v", w.name, w.own)
		p = &presence{network: w}
		if n.announcedOn(w) {
			p.announces, p.announce = announcements, now
		}
		if n.c.Found != nil {
			p.ask = now
		}
		n.nets[w.key] = p
	}
	for k, p := range n.nets {
		if !there[k] {
			n.c.Debugf("LAN: no longer on %s", p.name)
			delete(n.nets, k)
		}
	}
}

func equal(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// announcedOn reports whether who is on w can reach us: we may listen at one
// address only. What is sent to an IPv6 group has the link-local address in it.
func (n *node) announcedOn(w network) bool {
	a := n.c.Addr.Unmap()
	switch {
	case n.c.Port == 0:
		return false
	case !a.IsValid(), a == netip.IPv6Unspecified():
		return true
	case a == netip.IPv4Unspecified():
		return !w.v6
	case w.v6 && !a.IsLinkLocalUnicast():
		return false
	}
	for _, own := range w.own {
		if own.WithZone("") == a.WithZone("") {
			return true
		}
	}
	return false
}

// tick does what is due and returns when it is to be called next, at the latest.
func (n *node) tick(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	for k, p := range n.nets {
		switch {
		case p.announces > 0 && !p.announce.After(now):
			p.announce = now.Add(time.Second << (announcements - p.announces))
			p.announces--
			n.answer(k, p, now)
		case !p.answer.IsZero() && !p.answer.After(now):
			n.answer(k, p, now)
		}
		if !p.ask.IsZero() && !p.ask.After(now) {
			n.send(k, netip.AddrPort{}, n.talk.question(n.id))
			p.ask, p.askedAt = now.Add(min(time.Second<<p.asks, mostRest)), now
			p.asks = min(p.asks+1, 10)
		}
		if p.announces > 0 {
			next = earlier(next, p.announce)
		}
		next = earlier(earlier(next, p.answer), p.ask)
	}
	for i := range n.found {
		next = earlier(next, n.found[i].tell(now, n.c.Found))
	}
	return next
}

// earlier returns the earlier of two times, of which b may be zero.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// answer sends our records to all on a network.
func (n *node) answer(k key, p *presence, now time.Time) {
	p.answer, p.answered = time.Time{}, now
	n.send(k, netip.AddrPort{}, pack(n.talk.answer(n.c.Port, ttl)))
}

// leave tells everybody that we go.
func (n *node) leave() {
	for k, p := range n.nets {
		if n.announcedOn(p.network) {
			n.send(k, netip.AddrPort{}, pack(n.talk.answer(n.c.Port, 0)))
		}
	}
}

// hear takes a message that is about the share. It reports whether there is
// something to do for tick now, or earlier than there was.
func (n *node) hear(now time.Time, h heard) bool {
	p := n.nets[h.from.net]
	if h.from.net.index == 0 {
		for k, o := range n.nets {
			if k.v6 == h.from.net.v6 && o.near(h.from.addr.Addr()) {
				p = o
			}
		}
	}
	switch {
	case p == nil, !p.near(h.from.addr.Addr()):
		return false // nobody who is elsewhere can speak to the group, unless it is forged
	case h.asks:
		return n.asked(now, p, h)
	}
	return n.c.Found != nil && n.spotted(now, p, h)
}

// near reports whether an address is one of the network's.
func (w *network) near(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range w.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (n *node) asked(now time.Time, p *presence, h heard) bool {
	switch legacy := h.from.addr.Port() != group4.Port(); {
	case !n.announcedOn(p.network), h.id == n.id && n.ours(h.from.addr.Addr()):
	case !legacy && !h.alone:
		if !p.answer.IsZero() {
			break
		}
		// Not all at once, and not more than once a second, however many ask.
		p.answer = now.Add(20*time.Millisecond + rand.N(100*time.Millisecond))
		if at := p.answered.Add(time.Second); at.After(p.answer) {
			p.answer = at
		}
		return true
	case !n.alone.AllowN(now, 1):
	case legacy:
		n.send(p.key, h.from.addr, n.talk.reply(n.c.Port, &h))
	default:
		n.send(p.key, h.from.addr, pack(n.talk.answer(n.c.Port, ttl)))
	}
	return false
}

// ours reports whether an address is one of this machine's.
func (n *node) ours(a netip.Addr) bool {
	for _, p := range n.nets {
		for _, own := range p.own {
			if own.WithZone("") == a.Unmap().WithZone("") {
				return true
			}
		}
	}
	return false
}
