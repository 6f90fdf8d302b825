package transfer

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A refusal ends a connection for a reason of ours. Its code is one of those of
// the protocol (peer/SPEC.md): the peer is told.
type refusal struct{ code, text string }

func (e *refusal) Error() string { return e.text }

// ProtocolCode returns the code for the error line.
func (e *refusal) ProtocolCode() string { return e.code }

var (
	errTooMany     = &refusal{"busy", "too many peers"}
	errDouble      = &refusal{"busy", "already connected"}
	errBanned      = &refusal{"corrupt", "sent wrong bytes before"}
	errNoData      = &refusal{"timeout", "asked for data, got none"}
	errUnasked     = &refusal{"unwanted", "data that was not asked for"}
	errOutside     = &refusal{"limit", "chunk outside the share"}
	errTooEager    = &refusal{"limit", "too many requests at once"}
	errRepeats     = &refusal{"limit", "says the same over and over"}
	errUnaskedGone = &refusal{"state", "unasked gone"}
)

// errStopping ends a connection since we end: that is no fault of the peer.
var errStopping = errors.New("stopping")

// join runs one connection until it ends and returns why it did. It may be
// called for any number of connections at once. Something is sent to more, if it
// is not nil, when another connection to the same peer would help.
func (sw *swarm) join(ctx context.Context, c Conn, more chan<- struct{}) error {
	s := newSession(sw, c)
	s.more = more
	return sw.hold(ctx, s)
}

// hold is join for a session that was made already.
func (sw *swarm) hold(ctx context.Context, s *session) error {
	c := s.conn
	losers, why, err := sw.enter(s)
	for _, o := range losers {
		_ = o.conn.Close(why) // it is of no more use, however it ends
	}
	if err != nil {
		switch err {
		case errTooMany:
			sw.refer(c)
			_ = c.Close(err) // whoever cannot be let in may as well be gone
		case errStopping:
			_ = c.Close(nil)
		default:
			_ = c.Close(err)
		}
		return err
	}
	sw.emit(PeerUp{Addr: c.RemoteAddr(), ID: c.ID()})
	err = s.run(ctx)
	banned := sw.leave(s)
	sw.running.Done()
	sw.emit(PeerDown{Addr: c.RemoteAddr(), ID: c.ID(), Err: err, Banned: banned})
	return err
}

// enter adds s, or says why not. Those who have to go for it are told why. If both sides have dialled each other, the
// connections of one of them must go, and both sides must choose the same: those
// stay that the peer with the smaller ID has dialled.
func (sw *swarm) enter(s *session) (losers []*session, why, err error) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.closing {
		return nil, nil, errStopping
	}
	id := s.conn.ID()
	st := sw.peers[id]
	if st == nil {
		sw.forgetPeer()
		st = &PeerStats{ID: id}
		sw.peers[id] = st
		sw.order = append(sw.order, st)
	}
	now := time.Now()
	s.since = now
	st.Addr = s.conn.RemoteAddr()
	_, st.Source = s.conn.(*sourceConn)
	s.stats, s.used = st, st.Used
	if st.Banned || !s.conn.Dialled() && sw.badHosts[addrOf(s.conn.RemoteAddr())] >= maxBadOfHost {
		return nil, nil, errBanned
	}
	why = errDouble
	var lines []*session
	for _, o := range sw.sessions {
		switch {
		case o.conn.ID() != id:
		case s.hint && o.conn.Dialled():
			return nil, nil, errDouble // a peer may be found at many addresses
		case o.hint && s.more != nil:
			losers = append(losers, o) // the address that the user gave is the better one
		case o.conn.Dialled() == s.conn.Dialled():
			lines = append(lines, o)
		case s.preferred():
			losers = append(losers, o)
		default:
			return nil, nil, errDouble
		}
	}
	if len(lines) >= maxLines {
		// The oldest may be one that has not noticed its end yet; the new one is
		// alive for certain.
		losers = append(losers, lines[0])
	}
	limit := sw.peerMax
	if len(lines) > 0 {
		limit /= 2 // a second connection must not keep others out
	}
	if len(losers) == 0 && len(sw.sessions) >= limit {
		idle := sw.idlest(now)
		if idle == nil || len(lines) > 0 {
			return nil, nil, errTooMany
		}
		losers, why = append(losers, idle), errTooMany
	}
	sw.sessions = append(sw.sessions, s)
	if st.Lines++; st.Lines == 1 {
		st.since = now
	}
	sw.running.Add(1)
	if sw.m != nil {
		s.begin()
	} else {
		sw.askManifest(now)
	}
	return losers, why, nil
}

// maxBadOfHost is how many peers of one address may have been banned before no more
// that dial us from there are let in: a new identity costs them nothing, and
// us a chunk each. Those that we dial are known by their addresses.
const maxBadOfHost = 3

// noteBad notes that a peer at a was banned. Called with mu held.
func (sw *swarm) noteBad(a netip.Addr) {
	if sw.badHosts == nil || len(sw.badHosts) >= maxKnown {
		sw.badHosts = make(map[netip.Addr]int)
	}
	if a.IsValid() {
		sw.badHosts[a]++
	}
}

// idleEnough is how long a peer must have neither given nor taken anything to be
// sent away when there is no room for another.
const idleEnough = 20 * time.Second

// idlest returns the session on which nothing has come or gone for longest, if
// that is long enough, or nil. Called with mu held.
func (sw *swarm) idlest(now time.Time) *session {
	var idlest *session
	at := now.Add(-idleEnough)
	for _, s := range sw.sessions {
		last := s.since
		for _, t := range []time.Time{s.tookAt, s.flow.last} {
			if t.After(last) {
				last = t
			}
		}
		if last.Before(at) {
			idlest, at = s, last
		}
	}
	return idlest
}

// maxKnown bounds the peers that are remembered: a new identity costs nothing.
const maxKnown = 1024

// forgetPeer makes room for one more peer. What is forgotten still counts in the
// sums. Called with mu held.
func (sw *swarm) forgetPeer() {
	if len(sw.order) < maxKnown {
		return
	}
	connected := make(map[*PeerStats]bool, len(sw.sessions))
	for _, s := range sw.sessions {
		connected[s.stats] = true
	}
	for _, idle := range []bool{true, false} { // first those that never did anything
		for k, p := range sw.order {
			if connected[p] || idle && (p.Received > 0 || p.Sent > 0 || p.Banned) {
				continue
			}
			sw.past.Received += p.Received
			sw.past.Sent += p.Sent
			delete(sw.peers, p.ID)
			sw.order = slices.Delete(sw.order, k, k+1)
			return
		}
	}
}

// whenLonely returns what is closed when somebody who gave leaves and nobody else
// gives: all addresses are worth another try.
func (sw *swarm) whenLonely() <-chan struct{} {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.lonely
}

// leave takes s out and gives back what it was asked for.
func (sw *swarm) leave(s *session) (banned bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.sessions = slices.DeleteFunc(sw.sessions, func(o *session) bool { return o == s })
	if s.stats.Lines--; s.stats.Lines == 0 {
		s.stats.Time += time.Since(s.stats.since)
	}
	s.hide()
	s.forgetHas()
	s.endTurn(time.Now())
	if sw.m == nil {
		if s.manAsked {
			sw.manAsked = time.Time{}
		}
		sw.askManifest(time.Now())
	} else if f := sw.get; f != nil {
		s.release(true)
		sw.refillAll()
		if f.inflight == 0 && s.stats.Used > s.used {
			close(sw.lonely)
			sw.lonely = make(chan struct{})
		}
	}
	return s.stats.Banned
}

// How long one peer may take to send the manifest before another is asked too,
// and how long two may before the slower one has to go for a third: a manifest
// may be large, and those that send half of it must not fill the memory.
const (
	manifestPatience = 2 * time.Second
	manifestTurn     = 10 * time.Second
)

// askManifest asks the next peer for the manifest, if it is time to. Called
// with mu held.
func (sw *swarm) askManifest(now time.Time) {
	if sw.m != nil || sw.known {
		return
	}
	var asked []*session
	var next *session
	for _, s := range sw.sessions {
		switch {
		case s.manAsked:
			asked = append(asked, s)
		case !s.manTried && next == nil:
			next = s
		}
	}
	waited := now.Sub(sw.manAsked)
	switch {
	case next == nil, len(asked) == 1 && waited < manifestPatience, len(asked) > 1 && waited < manifestTurn:
		return
	case len(asked) > 1:
		slow := slices.MinFunc(asked, func(a, b *session) int {
			return cmp.Compare(float64(a.manGot)/now.Sub(a.manAt).Seconds(), float64(b.manGot)/now.Sub(b.manAt).Seconds())
		})
		slow.manAsked = false
		slow.wmu.Lock()
		slow.quit = errNoData
		slow.wmu.Unlock()
		slow.poke()
	}
	next.manTried, next.manAsked, next.manAt = true, true, now
	sw.manAsked = now
	next.wmu.Lock()
	next.askMan = true
	next.wmu.Unlock()
	next.poke()
}

// arrived takes a manifest from s. One that is wrong bans its sender.
func (sw *swarm) arrived(s *session, text []byte) error {
	if chunk.Sum(text) != sw.key {
		sw.ban(s, -1, len(text))
		sw.mu.Lock()
		sw.manAsked, sw.known = time.Time{}, false
		sw.askManifest(time.Now())
		sw.mu.Unlock()
		return &CorruptError{Index: -1}
	}
	select {
	case sw.manifests <- arrival{text, s.conn.RemoteAddr()}:
	default: // another peer was faster
	}
	return nil
}
