package transfer

import (
	"math/bits"
	"math/rand/v2"

	"github.com/shoal-p2p/shoal/chunk"
)

// A picker chooses which chunk to ask for next: the rarest first, at random
// among equals. It is arithmetic only: it neither sends nor reads, and its
// caller holds the lock.
//
// free holds the chunks that are wanted and asked from nobody. They also stand
// in order, grouped by avail, the number of leeches that have them (seeds have
// all and so change no order): bucket a is order[start[a]:start[a+1]]. To move
// a chunk to the next bucket is one swap and one step of a border, so a have
// costs O(1), and taking a chunk out O(number of buckets), which is at most the
// number of peers.
type picker struct {
	free  *chunk.Bitfield
	avail []uint16
	order []int32
	pos   []int32 // chunk -> its index in order; -1: not free
	start []int32 // len: number of buckets + 1; the last is len(order)
	rnd   *rand.Rand

	inOrder bool // the earliest first, for a stream
	low     int  // no chunk before this one is free then
}

// newPicker returns a picker for n chunks, none of them free.
func newPicker(n int, rnd *rand.Rand) *picker {
	p := &picker{
		free:  chunk.NewBitfield(n),
		avail: make([]uint16, n),
		order: make([]int32, 0, n),
		pos:   make([]int32, n),
		start: []int32{0, 0},
		rnd:   rnd,
	}
	for i := range p.pos {
		p.pos[i] = -1
	}
	return p
}

// grow makes sure that bucket a exists.
func (p *picker) grow(a int) {
	for len(p.start) < a+2 {
		p.start = append(p.start, int32(len(p.order)))
	}
}

func (p *picker) swap(i, j int32) {
	ci, cj := p.order[i], p.order[j]
	p.order[i], p.order[j] = cj, ci
	p.pos[ci], p.pos[cj] = j, i
}

// len returns how many chunks are free.
func (p *picker) len() int { return len(p.order) }

// add makes chunk i free: it is wanted, and nobody is asked for it.
func (p *picker) add(i int) {
	if !p.free.Set(i) {
		return
	}
	a := int(p.avail[i])
	p.grow(a)
	p.order = append(p.order, int32(i))
	p.pos[i] = int32(len(p.order) - 1)
	// Each bucket behind a gives its first place to the one before it.
	for b := len(p.start) - 2; b > a; b-- {
		p.swap(p.pos[i], p.start[b])
		p.start[b]++
	}
	p.start[len(p.start)-1] = int32(len(p.order))
}

// remove takes chunk i out of the free ones.
func (p *picker) remove(i int) {
	if !p.free.Clear(i) {
		return
	}
	for b := int(p.avail[i]); b < len(p.start)-1; b++ {
		last := p.start[b+1] - 1
		p.swap(p.pos[i], last)
		p.start[b+1] = last
	}
	p.order = p.order[:len(p.order)-1]
	p.pos[i] = -1
}

// have notes that one more leech has chunk i, lost that one has it no more.
func (p *picker) have(i int) {
	a := int(p.avail[i])
	p.avail[i]++
	if p.pos[i] < 0 {
		return
	}
	p.grow(a + 1)
	p.swap(p.pos[i], p.start[a+1]-1)
	p.start[a+1]--
}

func (p *picker) lost(i int) {
	a := int(p.avail[i])
	p.avail[i]--
	if p.pos[i] < 0 {
		return
	}
	p.swap(p.pos[i], p.start[a])
	p.start[a]++
}

// How many places of the rarity order are tried for a peer that has only some
// chunks before the bitfields are compared word by word.
const (
	probes    = 64
	perBucket = 16
)

// lowest returns the smallest number of leeches that have a free chunk.
func (p *picker) lowest() int {
	for b := 0; b < len(p.start)-1; b++ {
		if p.start[b] < p.start[b+1] {
			return b
		}
	}
	return 0
}

// rarest returns a free chunk that the peer has, of the rarest that a few
// probes find, or -1. A nil has stands for a seed, which has all.
func (p *picker) rarest(has *chunk.Bitfield) int {
	tried := 0
	for b := 0; b < len(p.start)-1 && tried < probes; b++ {
		lo, n := p.start[b], p.start[b+1]-p.start[b]
		for t := int32(0); t < min(n, perBucket) && tried < probes; t++ {
			i := int(p.order[lo+p.rnd.Int32N(n)])
			if has == nil || has.Has(i) {
				return i
			}
			tried++
		}
	}
	if has == nil {
		return -1
	}
	return p.common(has)
}

// earliest returns the first chunk that is free and that has has, or -1.
func (p *picker) earliest(has *chunk.Bitfield) int {
	f := p.free.Words()
	for w := p.low / 64; w < len(f); w++ {
		both := f[w]
		if has != nil {
			both &= has.Words()[w]
		}
		if both != 0 {
			return w*64 + bits.TrailingZeros64(both)
		}
	}
	return -1
}

// common returns a chunk that is free and that has has, from a random place
// on, or -1.
func (p *picker) common(has *chunk.Bitfield) int {
	f, h := p.free.Words(), has.Words()
	if len(f) == 0 {
		return -1
	}
	at := p.rnd.IntN(len(f))
	for k := range f {
		w := at + k
		if w >= len(f) {
			w -= len(f)
		}
		if both := f[w] & h[w]; both != 0 {
			return w*64 + bits.TrailingZeros64(both)
		}
	}
	return -1
}

// strokeLen is how many chunks at most are asked for in the order of the
// stream. Long strokes are good for disks, but two leeches that go the same way
// side by side have nothing to give each other until both turn off.
const strokeLen = 8

// pick takes a run of at most n chunks, one after the other in the stream and
// none more common than the first, out of the free ones. It first goes on
// behind after, the last chunk that this peer was asked for (-1: none), so that
// both disks read and write in strokes; then it begins at a rarest chunk.
// It returns a Range with N == 0 if the peer has nothing that is free.
func (p *picker) pick(has *chunk.Bitfield, after, n int) chunk.Range {
	first := -1
	if p.inOrder {
		if first = p.earliest(has); first < 0 {
			return chunk.Range{}
		}
	} else if next := after + 1; after >= 0 && next%strokeLen != 0 && next < len(p.avail) && p.wanted(has, next) && int(p.avail[next]) <= p.lowest() {
		first = next
	} else if first = p.rarest(has); first < 0 {
		return chunk.Range{}
	}
	r := chunk.Range{First: first, N: 1}
	for r.N < n {
		next := first + r.N
		if next%strokeLen == 0 || next >= len(p.avail) || !p.wanted(has, next) || !p.inOrder && p.avail[next] > p.avail[first] {
			break
		}
		r.N++
	}
	for i := first; i < first+r.N; i++ {
		p.remove(i)
	}
	return r
}

func (p *picker) wanted(has *chunk.Bitfield, i int) bool {
	return p.free.Has(i) && (has == nil || has.Has(i))
}
