package transfer

import (
	"testing"
	"testing/synctest"
	"time"
)

// Writers wait for a disk that flushes slowly only when both bounds of what a
// power cut may cost are passed, and go on when it has flushed, or the get ends.
func TestWritersWaitForTheFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flushes
		stop := make(chan struct{})
		waits := func(done int64) bool {
			returned := make(chan struct{})
			go func() { f.wait(done, stop); close(returned) }()
			synctest.Wait()
			select {
			case <-returned:
				return false
			default:
				return true
			}
		}
		if waits(1 << 40) {
			t.Error("without barriers")
		}
		f.begin(0, time.Now())
		if waits(1 << 40) {
			t.Error("much in a short time, as from a fast network")
		}
		time.Sleep(unflushedTime + time.Second)
		if waits(unflushedBytes) {
			t.Error("little in a long time")
		}
		if !waits(unflushedBytes + 1) {
			t.Error("does not wait for a disk that does not flush")
		}
		f.begin(unflushedBytes, time.Now())
		synctest.Wait()
		if waits(unflushedBytes + 1) {
			t.Error("waits after the flush")
		}
		time.Sleep(unflushedTime + time.Second)
		if !waits(3 * unflushedBytes) {
			t.Error("does not wait again")
		}
		f.end()
		if waits(3 * unflushedBytes) {
			t.Error("waits when there are no barriers any more")
		}
		f.begin(0, time.Now().Add(-time.Minute))
		if !waits(3 * unflushedBytes) {
			t.Error("does not wait a third time")
		}
		close(stop)
		synctest.Wait()
	})
}

// What the end has to flush is little if one more barrier comes just before it, on
// a line that takes a while for what is left, but not on one that needs it anyway.
func TestNearlyDone(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		n    int64
		d    time.Duration
		rest int64
		want bool
	}{
		{25 * mib, time.Second, 6 * mib, true},
		{25 * mib, time.Second, 7 * mib, false},
		{3 * mib, time.Second, 0, false},
		{60 * mib, 100 * time.Millisecond, 151 * mib, false},
	} {
		if got := nearlyDone(c.n, c.d, c.rest); got != c.want {
			t.Errorf("%d bytes in %v, %d to come: %v", c.n, c.d, c.rest, got)
		}
	}
}
