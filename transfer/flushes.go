package transfer

import (
	"sync"
	"time"
)

// What may be written and not flushed: so many bytes, or what comes in that time,
// whichever is more. A disk that flushes more slowly than the network brings is
// waited for; else a power cut could cost any amount.
const (
	unflushedBytes = 2 * barrierBytes
	unflushedTime  = 2 * barrierTime
)

// flushes are the barriers of a get, as far as its writers have to wait for them.
// The zero value holds nobody up.
type flushes struct {
	mu    sync.Mutex
	on    bool
	done  int64         // bytes that were there when the last one that ended well began,
	at    time.Time     // and when that was
	ended chan struct{} // closed when the next one has ended
}

// begin notes that all of done bytes, which were there at the time at, are flushed.
func (f *flushes) begin(done int64, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.done, f.at = true, done, at
	f.wake()
}

// end lets everybody go: there are no barriers any more.
func (f *flushes) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
	f.wake()
}

// wake is called with mu held.
func (f *flushes) wake() {
	if f.ended != nil {
		close(f.ended)
	}
	f.ended = make(chan struct{})
}

// wait returns when one more chunk may be written, of which there are done bytes,
// or when stop is closed.
func (f *flushes) wait(done int64, stop <-chan struct{}) {
	for {
		f.mu.Lock()
		late := f.on && done-f.done > unflushedBytes && time.Since(f.at) > unflushedTime
		ended := f.ended
		f.mu.Unlock()
		if !late {
			return
		}
		select {
		case <-ended:
		case <-stop:
			return
		}
	}
}
