package transfer

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Peers tell each other where other peers listen, and GetOptions.Discover finds
// more. Such an address is a hint from somebody whom we do not trust: it costs at most one dial a second for
// each host, and it never makes us knock at our own machine or at a link that
// the teller was not on itself.
const (
	maxHints     = 256 // addresses from hints that are remembered at once
	hintBatch    = 16  // addresses that one is told who cannot be let in
	hintInterval = time.Second
	hintTries    = 3 // dials before an address from a hint is forgotten

	// Who has so many peers needs no more of them, and need not be told of more:
	// in a large swarm the rest are as good as those.
	enoughPeers = 32

	// How many addresses one peer is told: it hears of others from those. More
	// would be half of all that is not data in a large swarm.
	enoughTold = 12

	// Of two peers the one that came later is told of the other at once, the other
	// one after this time: if both dialled, one connection would be for nothing.
	hintLater = 2 * time.Second
)

// Listening notes at which port the peer accepts connections, so that others
// can be told.
func (s *session) Listening(port int) error {
	host, _, err := net.SplitHostPort(s.conn.RemoteAddr())
	if err != nil {
		return nil // a carrier without addresses: nothing to tell others
	}
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if s.listens != "" {
		return nil // once is enough: each address is passed on to everybody
	}
	s.listens = net.JoinHostPort(host, strconv.Itoa(port))
	s.listensAt = time.Now()
	s.sw.listeners++
	return nil
}

// Peers takes hints.
func (s *session) Peers(addrs []string) error {
	s.sw.mu.Lock()
	learn := s.sw.learn
	addrs = addrs[:min(len(addrs), enoughPeers-s.numHints)] // nobody alone fills the list
	s.numHints += len(addrs)
	s.sw.mu.Unlock()
	if learn == nil {
		return nil // we only serve: others come to us
	}
	for _, a := range addrs {
		if mayDial(a, s.at) {
			learn(a)
		}
	}
	return nil
}

// addrOf returns the IP address of host:port; it is invalid for a name.
func addrOf(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// mayDial reports whether a hint that came from the address from may be
// followed. Names are not: they would be looked up for a stranger.
func mayDial(hint string, from netip.Addr) bool {
	ap, err := netip.ParseAddrPort(hint)
	if err != nil || ap.Port() == 0 {
		return false
	}
	a := ap.Addr().Unmap()
	switch {
	case a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case a.IsLoopback():
		return from.IsLoopback()
	case a.IsLinkLocalUnicast():
		return from.IsLinkLocalUnicast()
	}
	return true
}

// spread collects for s the addresses of some peers that it was not told yet.
// Called with the swarm's mu held.
func (s *session) spread(now time.Time) []string {
	if s.listeners == s.sw.listeners || len(s.toldPeers) >= enoughTold {
		return nil
	}
	all := true
	var fresh []string
	n := len(s.sw.sessions)
	first := s.sw.rnd.IntN(n) // else everybody is told of the same ones
	for k := range n {
		o := s.sw.sessions[(first+k)%n]
		if o.listens == "" || o.stats == s.stats || s.toldPeers[o.listens] || !mayDial(o.listens, s.at) {
			continue
		}
		if !s.listensAt.After(o.listensAt) && now.Sub(o.listensAt) < hintLater {
			all = false
			continue
		}
		if s.toldPeers == nil {
			s.toldPeers = make(map[string]bool)
		}
		if len(s.toldPeers) >= enoughTold {
			return fresh
		}
		s.toldPeers[o.listens] = true
		fresh = append(fresh, o.listens)
	}
	if all {
		s.listeners = s.sw.listeners
	}
	return fresh
}

// reaches reports whether there is a connection to the peer that listens at addr.
func (sw *swarm) reaches(addr string) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return slices.ContainsFunc(sw.sessions, func(s *session) bool { return s.listens == addr })
}

// isConnected reports whether there is a connection to this peer.
func (sw *swarm) isConnected(id [32]byte) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return slices.ContainsFunc(sw.sessions, func(s *session) bool { return s.conn.ID() == id })
}

func (sw *swarm) numSessions() int {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.sessions)
}

// present returns the IDs of those who are connected.
func (sw *swarm) present() map[[32]byte]bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	ids := make(map[[32]byte]bool, len(sw.sessions))
	for _, s := range sw.sessions {
		ids[s.conn.ID()] = true
	}
	return ids
}

// refer tells a peer that cannot be let in where others are.
func (sw *swarm) refer(c Conn) {
	sw.mu.Lock()
	var addrs []string
	for _, k := range sw.rnd.Perm(len(sw.sessions)) {
		o := sw.sessions[k]
		if o.listens != "" && len(addrs) < hintBatch && mayDial(o.listens, addrOf(c.RemoteAddr())) && !slices.Contains(addrs, o.listens) {
			addrs = append(addrs, o.listens)
		}
	}
	sw.mu.Unlock()
	if len(addrs) == 0 {
		return
	}
	if err := c.SendPeers(addrs); err == nil {
		_ = c.Flush() // it is only a courtesy
	}
}

// follow dials the addresses that come from hints, one host at most once a
// second, until ctx ends.
func (d *dialler) follow(ctx context.Context) {
	d.hints = make(chan string, maxHints)
	d.sw.mu.Lock()
	d.sw.learn = d.learn
	d.sw.mu.Unlock()
	d.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case addr := <-d.hints:
				if d.sw.reaches(addr) || d.sw.numSessions() >= enoughPeers {
					continue
				}
				d.mu.Lock()
				full, known := d.numHints >= maxHints, d.knows(addr)
				id, alias := d.aliases[addr]
				d.mu.Unlock()
				if full || known || alias && d.sw.isConnected(id) {
					continue
				}
				d.addHint(ctx, addr, d.turn(addr, 0))
			}
		}
	})
}

// learn takes a hint. What is more than we follow is dropped.
func (d *dialler) learn(addr string) {
	select {
	case d.hints <- addr:
	default:
	}
}
