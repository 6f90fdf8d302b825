package transfer

import "time"

// What a peer may have in flight to us, in bytes, whatever its line gives.
const maxWindow = 32 << 20

// A peer within nearRTT is in the same building; one that gives nearRate, in
// bytes/s, is asked for one chunk after the other if there are others.
const (
	nearRTT  = 2 * time.Millisecond
	nearRate = 32 << 20
)

// A meter measures a rate.
type meter struct {
	time  time.Duration // that was measured since the last result
	bytes int64         // in it
	rate  float64       // bytes/s; rises at once and falls slowly
}

// add notes that n bytes took d.
func (m *meter) add(n int, d time.Duration) {
	m.bytes += int64(n)
	if m.time += d; m.time >= 200*time.Millisecond {
		m.rate = max(float64(m.bytes)/m.time.Seconds(), m.rate*3/4)
		m.time, m.bytes = 0, 0
	}
}

// A flow measures what one connection delivers and says how much to ask for.
// It is arithmetic on the times it is given; its caller holds the lock.
type flow struct {
	chunkLen int // bytes of the largest chunk

	began   time.Time // start of the interval that is being measured
	bytes   int64     // delivered in it
	samples [8]float64
	next    int
	last    time.Time // when the last byte came, or the first request went out after a pause
}

// The shortest interval over which a rate is measured: shorter ones show the
// scheduler's steps, not the line.
const minInterval = 20 * time.Millisecond

// start notes that the first request after a pause goes out, so that the pause
// does not count as slowness.
func (f *flow) start(now time.Time) {
	f.began, f.bytes, f.last = now, 0, now
}

// delivered notes that n bytes came.
func (f *flow) delivered(n int, rtt time.Duration, now time.Time) {
	f.bytes += int64(n)
	f.last = now
	if d := now.Sub(f.began); d >= max(minInterval, rtt) {
		f.samples[f.next] = float64(f.bytes) / d.Seconds()
		f.next = (f.next + 1) % len(f.samples)
		f.began, f.bytes = now, 0
	}
}

// rate returns the best of the last intervals in bytes/s, 0 before the first
// has ended. The best, since a slow one may only mean that we asked for little.
func (f *flow) rate() float64 {
	best := 0.0
	for _, s := range f.samples {
		best = max(best, s)
	}
	return best
}

// usual returns the mean of the last intervals in bytes/s, 0 before the first has
// ended: what to count on.
func (f *flow) usual() float64 {
	sum, n := 0.0, 0
	for _, s := range f.samples {
		if s > 0 {
			sum += s
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// window returns how many bytes to have asked for: what the line holds in two
// round trips, so that a rate that the window itself limits can double, and two
// chunks, so that one is on its way while the next is being asked for.
//
// Near peers answer within microseconds; what counts there is how long we take to
// look after each of several active ones. More than that would only be lost with
// us when we are killed.
func (f *flow) window(rtt time.Duration, active int) int {
	if rtt == 0 {
		rtt = 50 * time.Millisecond
	}
	rate := f.rate()
	if rtt < nearRTT && active > 1 {
		if rate = f.usual(); active > 2 && rate > nearRate {
			return f.chunkLen
		}
	}
	line := rate * (2*rtt + 500*time.Microsecond/time.Duration(max(active, 1))).Seconds()
	return int(min(line, maxWindow)) + 2*f.chunkLen
}

// eta returns how long n bytes that were just asked for, or that are still
// outstanding, should take, judged by the rate so far and, if nothing comes, by
// the silence.
func (f *flow) eta(n int, rtt time.Duration, now time.Time) time.Duration {
	silence := time.Duration(0)
	if !f.last.IsZero() { // it was asked before
		silence = now.Sub(f.last)
	}
	r := f.usual()
	if r == 0 {
		return time.Second + rtt + silence
	}
	d := rtt + time.Duration(float64(n)/r*float64(time.Second))
	if silence > 200*time.Millisecond+2*rtt {
		d += 2 * silence
	}
	return d
}

// patience returns how long to wait for n bytes before others are asked: some
// multiples of what this peer has needed until now.
func (f *flow) patience(n int, rtt time.Duration) time.Duration {
	r := f.usual()
	if r == 0 {
		return 5*time.Second + 4*rtt
	}
	return 3*time.Second + 4*rtt + 4*time.Duration(float64(n)/r*float64(time.Second))
}
