package transfer

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
)

// How long to wait before an address is dialled again: it doubles from the
// first to the last, and begins anew after a connection that was of use.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 15 * time.Second
	busyBackoff  = 2 * time.Second // while others are connected
)

// A dialler keeps a connection to each address it was given.
type dialler struct {
	sw *swarm

	mu    sync.Mutex
	addrs []*address
	wg    crew.Crew

	hints    chan string
	numHints int
	turns    map[netip.Addr]time.Time // when a host that we know by hints is dialled, or was last
	aliases  map[string][32]byte      // addresses from hints that lead to a peer to which there is a better way
}

// An address is one place where a peer may be. The dialler's mu guards it.
type address struct {
	addr      string
	err       error // why the last try, or the last connection, ended
	noShare   bool
	connected bool
	dead      bool // never dialled again: ourselves, or banned
	banned    bool
	hint      bool     // a peer told us of it, or it was discovered
	met       bool     // it was connected,
	id        [32]byte // to this peer

	open func(ctx context.Context) (Conn, error) // instead of dialling; nil: dial
}

// knows is called with mu held.
func (d *dialler) knows(addr string) bool {
	return slices.ContainsFunc(d.addrs, func(a *address) bool { return a.addr == addr })
}

// add dials addr until ctx ends; wait waits for that.
func (d *dialler) add(ctx context.Context, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.knows(addr) {
		return
	}
	a := &address{addr: addr}
	d.addrs = append(d.addrs, a)
	d.wg.Go(func() { d.keep(ctx, a) })
}

// addSource opens src until ctx ends, as add dials an address.
func (d *dialler) addSource(ctx context.Context, src Source, m *manifest.Manifest, budget int) {
	a := &address{addr: src.String(), open: func(ctx context.Context) (Conn, error) {
		c, err := openSource(ctx, src, m, budget)
		if err != nil {
			return nil, err // not a nil *sourceConn in a Conn
		}
		return c, nil
	}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.knows(a.addr) {
		return
	}
	d.addrs = append(d.addrs, a)
	d.wg.Go(func() { d.keep(ctx, a) })
}

// addHint dials addr after wait. An address that does not answer is forgotten.
func (d *dialler) addHint(ctx context.Context, addr string, wait time.Duration) {
	a := &address{addr: addr, hint: true}
	d.mu.Lock()
	d.addrs = append(d.addrs, a)
	d.numHints++
	d.mu.Unlock()
	d.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			d.keep(ctx, a)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.numHints--
		d.addrs = slices.DeleteFunc(d.addrs, func(o *address) bool { return o == a && !o.banned })
	})
}

// addLines dials addr once more for each value that comes, for a peer that one
// connection does not use up. Such a connection is not dialled again when it ends.
func (d *dialler) addLines(ctx context.Context, addr string, wanted <-chan struct{}) {
	for range wanted {
		d.wg.Go(func() {
			c, err := d.sw.network.Dial(ctx, addr, d.sw.key)
			if err != nil {
				return // the first connection goes on
			}
			_ = d.sw.join(ctx, c, nil) // how it ends is the first one's business
		})
	}
}

func (d *dialler) wait() { d.wg.Wait() }

func (d *dialler) keep(ctx context.Context, a *address) {
	backoff, tries := firstBackoff, 0
	for ctx.Err() == nil {
		began, lonely := time.Now(), d.sw.whenLonely()
		useful, again := d.once(ctx, a)
		if tries++; useful || time.Since(began) > time.Minute {
			backoff, tries = firstBackoff, 0
		}
		if !again || a.hint && (tries >= hintTries || d.sw.numSessions() >= enoughPeers) {
			return
		}
		if d.sw.numSessions() > 0 {
			backoff = max(backoff, busyBackoff) // there is enough to do
		}
		// Jitter keeps many leeches from coming back in step.
		wait := backoff/2 + rand.N(backoff)
		backoff = min(2*backoff, lastBackoff)
		if a.hint {
			wait += d.turn(a.addr, wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-lonely: // also if that was while it was dialled
			backoff, tries = firstBackoff, 0
			select { // not all at once
			case <-ctx.Done():
			case <-time.After(rand.N(firstBackoff)):
			}
		}
	}
}

// once dials a and stays until the connection ends. It reports whether data
// came, and whether to dial again.
func (d *dialler) once(ctx context.Context, a *address) (useful, again bool) {
	var c Conn
	var err error
	if a.open != nil {
		c, err = a.open(ctx)
	} else {
		c, err = d.sw.network.Dial(ctx, a.addr, d.sw.key)
	}
	if err != nil {
		d.mu.Lock()
		a.err = err
		a.noShare = a.open == nil && d.sw.network.IsNoShare(err)
		a.dead = a.open == nil && d.sw.network.IsSelf(err) || isDead(err)
		d.mu.Unlock()
		return false, !a.dead
	}
	d.mu.Lock()
	id := c.ID()
	a.connected, a.met, a.id, a.noShare = true, true, id, false
	d.mu.Unlock()
	before := d.sw.usedFrom(id)
	if a.open != nil { // a source does several things at once by itself
		err = d.sw.join(ctx, c, nil)
	} else {
		more := make(chan struct{}, maxLines)
		d.wg.Go(func() { d.addLines(ctx, a.addr, more) })
		s := newSession(d.sw, c)
		s.more, s.hint = more, a.hint
		err = d.sw.hold(ctx, s)
		close(more) // the session has left the swarm
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.connected = false
	if a.hint && err == errDouble {
		d.alias(a.addr, id)
		return false, false
	}
	if a.err = err; err == nil {
		a.err = errors.New("has said good-bye")
	}
	var bad *CorruptError
	if errors.As(err, &bad) || errors.Is(err, errBanned) {
		a.dead, a.banned = true, true
	}
	a.dead = a.dead || isDead(err)
	return d.sw.usedFrom(id) > before, !a.dead
}

func isDead(err error) bool {
	var dead *DeadSourceError
	return errors.As(err, &dead)
}

// dialled is what the dialler knows of its addresses at one moment.
type dialled struct {
	reasons   []string // for each that is not connected: why
	connected int      // or another address of the same peer is
	alive     int      // still dialled, or connected
	banned    []string
	noShare   bool // everyone who answered does not have the share
}

// unmetReason says why there is no connection to addr, and names addr once.
func unmetReason(addr string, err error) string {
	text := err.Error()
	for _, said := range []string{"dial tcp " + addr + ": ", "join at " + addr + ": ", "connect: "} {
		text = strings.TrimPrefix(text, said)
	}
	return addr + ": " + text
}

func (d *dialler) state() dialled {
	here := d.sw.present()
	d.mu.Lock()
	defer d.mu.Unlock()
	var t dialled
	no, given := 0, 0
	unmet := false
	for _, a := range d.addrs {
		switch {
		case a.connected, a.met && here[a.id]: // maybe by another of its addresses
			t.connected++
			t.alive++
			continue
		case a.banned:
			t.banned = append(t.banned, a.addr)
		case !a.dead:
			t.alive++
		}
		if a.hint && !a.met {
			unmet = unmet || a.err != nil // anybody can make up such addresses, and as many as they like
			continue
		}
		given++
		if a.noShare {
			no++
		}
		if a.err != nil {
			t.reasons = append(t.reasons, unmetReason(a.addr, a.err))
		} else {
			t.reasons = append(t.reasons, a.addr+": no answer yet")
		}
	}
	t.noShare = no > 0 && no == given
	if unmet {
		t.reasons = append(t.reasons, "addresses that were found, or heard of from others: no answer")
	}
	return t
}

// turn returns how much later than in wait an address from a hint may be dialled
// so that its host is dialled once in hintInterval, and reserves that moment.
func (d *dialler) turn(addr string, wait time.Duration) time.Duration {
	host, now := addrOf(addr), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns == nil {
		d.turns = make(map[netip.Addr]time.Time)
	}
	if len(d.turns) > maxHints {
		maps.DeleteFunc(d.turns, func(_ netip.Addr, at time.Time) bool { return now.Sub(at) > hintInterval })
	}
	at := now.Add(wait)
	if next := d.turns[host].Add(hintInterval); next.After(at) {
		at = next
	}
	d.turns[host] = at
	return at.Sub(now) - wait
}

// alias notes that an address leads to a peer to which there is a connection by
// another way. Called with mu held.
func (d *dialler) alias(addr string, id [32]byte) {
	if d.aliases == nil || len(d.aliases) >= maxHints {
		d.aliases = make(map[string][32]byte)
	}
	d.aliases[addr] = id
}

// usedFrom returns how many bytes of chunks that were right came from a peer.
func (sw *swarm) usedFrom(id [32]byte) int64 {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if p := sw.peers[id]; p != nil {
		return p.Used
	}
	return 0
}
