package transfer

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// What a picker does for a chunk costs the same whether there are a thousand of
// them or a million, and whether one peer has it or 64 do.
func TestGrowthPicker(t *testing.T) {
	sizes := []int{1_000, 100_000}
	if os.Getenv("SHOAL_SOAK") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, peers := range []int{1, 8, 64} {
		var small float64
		for _, n := range sizes {
			best := 0.0
			for range 3 {
				if ns := picking(t, n, peers); best == 0 || ns < best {
					best = ns
				}
			}
			t.Logf("%7d chunks, %2d peers: %.0f ns for each have and each chunk that is picked", n, peers, best)
			if small == 0 {
				small = best
			}
			// What does not fit into the processor's cache is slower; a step for each
			// chunk, or for each peer, would be some thousand times as slow.
			if best > 20*small+200 {
				t.Errorf("%d chunks, %d peers: %.0f ns, with %d chunks %.0f", n, peers, best, sizes[0], small)
			}
		}
	}
}

// picking plays a whole get of n chunks from peers that have half of them each and
// get the rest meanwhile, and returns what one step took in ns.
func picking(t *testing.T, n, peers int) float64 {
	p := fullPicker(n)
	has := make([]*chunk.Bitfield, peers)
	for k := range has {
		has[k] = chunk.NewBitfield(n)
		for i := k % 2; i < n; i += 2 {
			has[k].Set(i)
		}
	}
	steps, picked := 0, 0
	began := cpuTime(t)
	for k := range has {
		for i := k % 2; i < n; i += 2 {
			p.have(i)
			steps++
		}
	}
	for k := 0; p.len() > 0; k = (k + 1) % peers {
		r := p.pick(has[k], -1, 4)
		picked += r.N
		if r.N == 0 { // it gets the others now
			for i := 1 - k%2; i < n; i += 2 {
				if has[k].Set(i) {
					p.have(i)
					steps++
				}
			}
		}
	}
	if picked != n {
		t.Fatalf("%d of %d chunks were picked", picked, n)
	}
	return float64((cpuTime(t) - began).Nanoseconds()) / float64(steps+picked)
}

// cpuTime is what this process has used of the processor: on a busy machine, the
// time on the wall says nothing.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
