package transfer

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
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
	wg    sync.WaitGroup

	hints    chan string
	numHints int
}

// An address is one place where a peer may be. The dialler's mu guards it.
type address struct {
	addr      string
	err       error // why the last try, or the last connection, ended
	noShare   bool
	connected bool
	dead      bool // never dialled again: ourselves, or banned
	banned    bool
	hint      bool // a peer told us of it
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
		began := time.Now()
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
		if a.hint {
			backoff = max(backoff, hintInterval)
		}
		// Jitter keeps many leeches from coming back in step.
		wait := backoff/2 + rand.N(backoff)
		backoff = min(2*backoff, lastBackoff)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// once dials a and stays until the connection ends. It reports whether data
// came, and whether to dial again.
func (d *dialler) once(ctx context.Context, a *address) (useful, again bool) {
	c, err := d.sw.network.Dial(ctx, a.addr, d.sw.key)
	if err != nil {
		d.mu.Lock()
		a.err = err
		a.noShare = d.sw.network.IsNoShare(err)
		a.dead = d.sw.network.IsSelf(err)
		d.mu.Unlock()
		return false, !a.dead
	}
	d.mu.Lock()
	a.connected, a.noShare = true, false
	d.mu.Unlock()
	id := c.ID()
	before := d.sw.usedFrom(id)
	more := make(chan struct{}, maxLines)
	d.wg.Go(func() { d.addLines(ctx, a.addr, more) })
	err = d.sw.join(ctx, c, more)
	close(more) // the session has left the swarm
	d.mu.Lock()
	defer d.mu.Unlock()
	a.connected = false
	if a.err = err; err == nil {
		a.err = errors.New("has said good-bye")
	}
	var bad *CorruptError
	if errors.As(err, &bad) || errors.Is(err, errBanned) {
		a.dead, a.banned = true, true
	}
	return d.sw.usedFrom(id) > before, !a.dead
}

// dialled is what the dialler knows of its addresses at one moment.
type dialled struct {
	reasons   []string // for each that is not connected: why
	connected int
	alive     int // still dialled, or connected
	banned    []string
	noShare   bool // everyone who answered does not have the share
}

func (d *dialler) state() dialled {
	d.mu.Lock()
	defer d.mu.Unlock()
	var t dialled
	no := 0
	for _, a := range d.addrs {
		switch {
		case a.connected:
			t.connected++
			t.alive++
			continue
		case a.banned:
			t.banned = append(t.banned, a.addr)
		case !a.dead:
			t.alive++
		}
		if a.noShare {
			no++
		}
		if a.err != nil {
			t.reasons = append(t.reasons, a.addr+": "+a.err.Error())
		} else {
			t.reasons = append(t.reasons, a.addr+": no answer yet")
		}
	}
	t.noShare = no > 0 && no == len(t.reasons)
	return t
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
