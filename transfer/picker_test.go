package transfer

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-p2p/shoal/chunk"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func fullPicker(n int) *picker {
	p := newPicker(n, seeded())
	for i := range n {
		p.add(i)
	}
	return p
}

// checkPicker compares the incremental order with what it stands for.
func checkPicker(t rapidOrTest, p *picker) {
	t.Helper()
	if int(p.start[len(p.start)-1]) != len(p.order) || p.start[0] != 0 {
		t.Fatalf("borders %v for %d chunks", p.start, len(p.order))
	}
	for b := 0; b < len(p.start)-1; b++ {
		for k := p.start[b]; k < p.start[b+1]; k++ {
			i := p.order[k]
			if int(p.avail[i]) != b || p.pos[i] != k || !p.free.Has(int(i)) {
				t.Fatalf("chunk %d stands at %d in bucket %d: avail %d, pos %d, free %v", i, k, b, p.avail[i], p.pos[i], p.free.Has(int(i)))
			}
		}
	}
	if p.free.Count() != len(p.order) {
		t.Fatalf("%d free, %d in order", p.free.Count(), len(p.order))
	}
}

type rapidOrTest interface {
	Helper()
	Fatalf(string, ...any)
}

func TestPickerOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		p := newPicker(n, seeded())
		avail := make([]int, n)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "i")
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				p.add(i)
			case 1:
				p.remove(i)
			case 2:
				avail[i]++
				p.have(i)
			case 3:
				if avail[i] > 0 {
					avail[i]--
					p.lost(i)
				}
			}
			checkPicker(t, p)
		}
	})
}

func TestPickRarestFirst(t *testing.T) {
	p := fullPicker(100)
	for i := range 100 {
		if i != 42 && i != 77 {
			p.have(i)
		}
	}
	got := map[int]bool{p.pick(nil, -1, 1).First: true, p.pick(nil, -1, 1).First: true}
	if !got[42] || !got[77] {
		t.Errorf("picked %v before the two rarest, 42 and 77", got)
	}
	checkPicker(t, p)
}

// A leech that has one common chunk of many must still be asked for it.
func TestPickFromPartialPeer(t *testing.T) {
	const n = 10_000
	p := fullPicker(n)
	has := chunk.NewBitfield(n)
	has.Set(9_999)
	for range 30 {
		p.have(9_999)
	}
	if r := p.pick(has, -1, 5); r != (chunk.Range{First: 9_999, N: 1}) {
		t.Errorf("picked %v, want 9999", r)
	}
	if r := p.pick(has, -1, 5); r.N != 0 {
		t.Errorf("picked %v from a peer that has nothing more", r)
	}
}

// Chunks are asked for in strokes: within one, the next chunk is the one behind.
func TestPickRunsStayTogether(t *testing.T) {
	p := fullPicker(64)
	for p.free.Count() > 0 {
		r := p.pick(nil, -1, 3)
		for !p.free.None() {
			end := r.First + r.N
			next := p.pick(nil, end-1, 3)
			if end%strokeLen != 0 && p.free.Has(end) {
				t.Fatalf("after %v came %v, not the chunk behind it", r, next)
			}
			if next.N > 3 || next.First/strokeLen != (next.First+next.N-1)/strokeLen {
				t.Fatalf("the run %v is longer than asked, or than a stroke", next)
			}
			r = next
		}
	}
}

// A run must not drag in chunks that are more common than its first one.
func TestPickRunEndsAtCommonChunk(t *testing.T) {
	p := fullPicker(4)
	p.have(2)
	p.have(3)
	for range 2 {
		if r := p.pick(nil, -1, 4); r.First+r.N > 2 {
			t.Errorf("run %v reaches into chunks that others have", r)
			return
		}
		if p.free.Count() == 2 {
			break
		}
	}
}

func TestPickTakesEachOnce(t *testing.T) {
	p := fullPicker(1000)
	seen := chunk.NewBitfield(1000)
	last := -1
	for {
		r := p.pick(nil, last, 7)
		if r.N == 0 {
			break
		}
		for i := r.First; i < r.First+r.N; i++ {
			if !seen.Set(i) {
				t.Fatalf("chunk %d was picked twice", i)
			}
		}
		last = r.First + r.N - 1
	}
	if !seen.All() {
		t.Errorf("%d of 1000 chunks were picked", seen.Count())
	}
}

// New leeches of a lone seed must not all begin at the same place.
func TestPickStartsAtRandom(t *testing.T) {
	first := map[int]bool{}
	for s := range uint64(20) {
		p := newPicker(1000, rand.New(rand.NewPCG(s, s)))
		for i := range 1000 {
			p.add(i)
		}
		first[p.pick(nil, -1, 1).First] = true
	}
	if len(first) < 15 {
		t.Errorf("20 leeches begin at only %d places", len(first))
	}
}

func BenchmarkPicker(b *testing.B) {
	for _, n := range []int{1_000, 65_536, 1_000_000} {
		b.Run(sizeName(n), func(b *testing.B) {
			b.SetBytes(chunk.MinSize) // of the share, for each chunk that is picked
			b.ReportAllocs()
			p := fullPicker(n)
			has := chunk.NewBitfield(n)
			for i := 0; i < n; i += 2 {
				has.Set(i)
			}
			last := -1
			for b.Loop() {
				r := p.pick(has, last, 4)
				if r.N == 0 {
					for r := range has.Ranges() {
						p.add(r.First)
					}
					continue
				}
				last = r.First + r.N - 1
				p.have(r.First)
				p.lost(r.First)
			}
		})
	}
}

func sizeName(n int) string {
	switch {
	case n >= 1_000_000:
		return "1M"
	case n >= 10_000:
		return "64k"
	}
	return "1k"
}
