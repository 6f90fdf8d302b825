package peer

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// A gate bounds the connections that others make to us. All are counted for
// their address, and those not yet admitted also against a bound for all.
//
// A flood must not keep others out, so a full gate makes room rather than
// refuse: the one to go is a connection that has not sent a byte (an honest
// dialler sends its hello with the first round trip), else one of the address
// that holds the most, and of these the oldest.
type gate struct {
	maxPending, maxPerAddr int

	mu      sync.Mutex
	pending map[*visit]struct{} // len <= maxPending
	perAddr map[netip.Addr]int  // pending and admitted
	waiting map[netip.Addr]int  // pending
}

// A visit is one connection at the gate.
type visit struct {
	addr  netip.Addr // invalid if the carrier has none: not counted per address
	since time.Time
	bc    *bufConn
	in    bool // admitted
	gone  bool
}

func newGate(maxPending, maxPerAddr int) *gate {
	return &gate{
		maxPending: maxPending, maxPerAddr: maxPerAddr,
		pending: make(map[*visit]struct{}),
		perAddr: make(map[netip.Addr]int),
		waiting: make(map[netip.Addr]int),
	}
}

// hostOf returns what counts as one address: an IPv4 address, or an IPv6 /64,
// as a host can have a whole one.
func hostOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		p, _ := ip.WithZone("").Prefix(64)
		return p.Addr()
	}
	return ip
}

// enter lets bc in as pending, or returns nil. It may throw out another.
func (g *gate) enter(bc *bufConn) *visit {
	v := &visit{addr: hostOf(bc.RemoteAddr()), since: time.Now(), bc: bc}
	g.mu.Lock()
	var out *visit
	if v.addr.IsValid() && g.perAddr[v.addr] >= g.maxPerAddr {
		if out = g.victim(v.addr, true); out == nil {
			g.mu.Unlock()
			return nil
		}
	} else if len(g.pending) >= g.maxPending {
		out = g.victim(v.addr, false)
		if out == nil {
			g.mu.Unlock()
			return nil
		}
	}
	if out != nil {
		g.forget(out)
	}
	g.pending[v] = struct{}{}
	g.perAddr[v.addr]++
	g.waiting[v.addr]++
	g.mu.Unlock()
	if out != nil {
		out.bc.Conn.Close()
	}
	return v
}

// victim picks who has to go for a newcomer from addr; only one of the same
// address if own. An address is never robbed for one that would hold more.
func (g *gate) victim(addr netip.Addr, own bool) (best *visit) {
	for v := range g.pending {
		if own && v.addr != addr {
			continue
		}
		if best == nil || g.worse(v, best) {
			best = v
		}
	}
	if best != nil && best.bc.started.Load() && best.addr != addr && g.waiting[addr] >= g.waiting[best.addr] {
		return g.victim(addr, true)
	}
	return best
}

// worse reports whether a has to go before b.
func (g *gate) worse(a, b *visit) bool {
	if as, bs := a.bc.started.Load(), b.bc.started.Load(); as != bs {
		return bs
	}
	if an, bn := g.waiting[a.addr], g.waiting[b.addr]; an != bn {
		return an > bn
	}
	return a.since.Before(b.since)
}

// admit takes v out of the pending ones. It reports false if v was thrown out.
func (g *gate) admit(v *visit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.gone {
		return false
	}
	v.in = true
	delete(g.pending, v)
	less(g.waiting, v.addr)
	return true
}

// leave forgets v, in whatever state it is.
func (g *gate) leave(v *visit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(v)
}

func (g *gate) forget(v *visit) {
	if v.gone {
		return
	}
	v.gone = true
	if !v.in {
		delete(g.pending, v)
		less(g.waiting, v.addr)
	}
	less(g.perAddr, v.addr)
}

func less(m map[netip.Addr]int, a netip.Addr) {
	if m[a]--; m[a] <= 0 {
		delete(m, a)
	}
}
