package transfer

import (
	"sync"
	"time"
)

// MinLimit is the smallest rate that Limits can be set to, in bytes/s. At less
// than this a connection with several peers would look dead to each of them.
const MinLimit = 16 << 10

// Limits bound the rates of everything that they are given to, over all peers
// together. What counts is the bytes of chunks and manifests; the protocol's own
// are less than a percent. The zero Limits set no bounds. Set may be called at
// any time.
type Limits struct{ up, down pacer }

// Set changes the limits, in bytes/s; 0 is none, and others are at least
// MinLimit. It also holds for what is on its way.
func (l *Limits) Set(up, down int64) {
	l.up.set(up)
	l.down.set(down)
}

// noLimits is what those get who want none.
var noLimits Limits

func (l *Limits) orNone() *Limits {
	if l == nil {
		return &noLimits
	}
	return l
}

// What a pacer may save up while nothing passes, and what passes at once at
// most: a tenth of either is how exact it is over two seconds.
const (
	pacerSaves = 200 * time.Millisecond
	pacerPiece = 50 * time.Millisecond
)

// A pacer lets bytes pass at a rate. What passes may lead to a debt, for which the
// next one waits, so that pieces of any size may pass.
type pacer struct {
	mu      sync.Mutex
	rate    float64 // bytes/s; 0: no limit
	credit  float64 // bytes that may pass; negative: a debt
	at      time.Time
	changed chan struct{} // closed when the rate changes; nil: nobody waits
}

func (p *pacer) set(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate == int64(p.rate) {
		return
	}
	if rate > 0 {
		rate = max(rate, MinLimit)
	}
	p.rate, p.credit, p.at = float64(rate), 0, time.Now()
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// take lets n bytes pass and returns 0; or it returns how long to wait before
// asking again, and what is closed if that has become wrong.
func (p *pacer) take(n int, now time.Time) (wait time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return 0, nil
	}
	p.credit = min(p.credit+p.rate*max(0, now.Sub(p.at).Seconds()), p.rate*pacerSaves.Seconds())
	p.at = now
	if p.credit >= 0 {
		p.credit -= float64(n)
		return 0, nil
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return time.Duration(-p.credit/p.rate*float64(time.Second)) + time.Microsecond, p.changed
}

// wait returns when n bytes may pass, or errStopping once stop is closed.
func (p *pacer) wait(n int, stop <-chan struct{}) error {
	for {
		d, changed := p.take(n, time.Now())
		if d == 0 {
			return nil
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-changed:
		case <-stop:
			t.Stop()
			return errStopping
		}
		t.Stop()
	}
}

// limit returns the rate in bytes/s, 0 for none.
func (p *pacer) limit() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// piece returns how much of n bytes to send at once.
func (p *pacer) piece(n int) int {
	rate := p.limit()
	if rate == 0 {
		return n
	}
	return min(n, max(4096, int(rate*pacerPiece.Seconds())&^4095))
}
