package transfer

import (
	"testing"
	"time"
)

const testChunk = 128 << 10

// feed lets a line of rate bytes/s deliver for d.
func feed(f *flow, from time.Time, d time.Duration, rate float64, rtt time.Duration) time.Time {
	const step = 5 * time.Millisecond
	for t := step; t <= d; t += step {
		f.delivered(int(rate*step.Seconds()), rtt, from.Add(t))
	}
	return from.Add(d)
}

func TestWindowFollowsBandwidthTimesDelay(t *testing.T) {
	t0 := time.Unix(0, 0)
	for _, c := range []struct {
		name string
		rate float64
		rtt  time.Duration
		min  int
		max  int
	}{
		{"LAN", 12.5e6, 500 * time.Microsecond, 2 * testChunk, 3 * testChunk},
		{"loopback", 600e6, 100 * time.Microsecond, 4 * testChunk, 8 * testChunk},
		{"50 ms at 1 Gbit/s", 125e6, 50 * time.Millisecond, 12e6, 14e6},
		{"absurd", 10e9, time.Second, maxWindow, maxWindow + 2*testChunk},
	} {
		f := flow{chunkLen: testChunk}
		f.start(t0)
		feed(&f, t0, 3*time.Second, c.rate, c.rtt)
		if w := f.window(c.rtt, 1); w < c.min || w > c.max {
			t.Errorf("%s: window %d, want %d to %d", c.name, w, c.min, c.max)
		}
	}
}

func TestWindowStartsSmall(t *testing.T) {
	f := flow{chunkLen: testChunk}
	if w := f.window(0, 1); w != 2*testChunk {
		t.Errorf("window before the first byte is %d, want two chunks", w)
	}
}

// A peer that falls silent must look slower from moment to moment, so that the
// endgame turns to others.
func TestSilenceRaisesETA(t *testing.T) {
	t0 := time.Unix(0, 0)
	f := flow{chunkLen: testChunk}
	f.start(t0)
	end := feed(&f, t0, time.Second, 10e6, time.Millisecond)
	soon := f.eta(testChunk, time.Millisecond, end)
	if soon > 30*time.Millisecond {
		t.Errorf("eta of one chunk at 10 MB/s is %v", soon)
	}
	if later := f.eta(testChunk, time.Millisecond, end.Add(2*time.Second)); later < 4*time.Second {
		t.Errorf("eta after 2 s of silence is %v", later)
	}
}

func TestPatienceIsThePeersOwn(t *testing.T) {
	t0 := time.Unix(0, 0)
	slow, fast := flow{chunkLen: testChunk}, flow{chunkLen: testChunk}
	feed(&slow, t0, 60*time.Second, 7e3, 200*time.Millisecond)
	feed(&fast, t0, time.Second, 100e6, time.Millisecond)
	if p := slow.patience(testChunk, 200*time.Millisecond); p < 18*time.Second {
		t.Errorf("a 56 kbit/s line gets %v for a chunk that takes 18 s", p)
	}
	if p := fast.patience(testChunk, time.Millisecond); p > 4*time.Second {
		t.Errorf("a fast line gets %v for one chunk", p)
	}
}

// A peer that was never asked has not been silent.
func TestFlowBeforeTheFirstRequest(t *testing.T) {
	f := flow{chunkLen: testChunk}
	if d := f.eta(testChunk, 0, time.Now()); d != time.Second {
		t.Errorf("a first chunk is to take %v", d)
	}
}
