package chunk

import (
	"fmt"
	"iter"
	"math/bits"
)

// A Range is a run of N chunks from First on: [First, First+N).
type Range struct{ First, N int }

// End returns the index behind the last chunk of the range.
func (r Range) End() int { return r.First + r.N }

// A Bitfield is a set of the chunk indexes [0, Len). Its length never changes.
// It is not safe for concurrent use. Methods that take an index panic if it is
// outside of the bitfield: indexes that come from a peer are checked before.
type Bitfield struct {
	words []uint64
	n     int
	count int
}

// NewBitfield returns an empty set of the indexes [0, n).
func NewBitfield(n int) *Bitfield {
	if n < 0 {
		panic(fmt.Sprintf("chunk: internal error: bitfield of %d chunks", n))
	}
	return &Bitfield{words: make([]uint64, (n+63)/64), n: n}
}

// Len returns the number of indexes the bitfield was made for.
func (b *Bitfield) Len() int { return b.n }

// Count returns how many indexes are in the set, in constant time.
func (b *Bitfield) Count() int { return b.count }

// All reports whether every index is in the set. It is true for a length of 0.
func (b *Bitfield) All() bool { return b.count == b.n }

// None reports whether the set is empty. It is true for a length of 0.
func (b *Bitfield) None() bool { return b.count == 0 }

// Has reports whether i is in the set.
func (b *Bitfield) Has(i int) bool {
	b.check(i)
	return b.words[i>>6]&(1<<(i&63)) != 0
}

// Set adds i and reports whether it was missing.
func (b *Bitfield) Set(i int) bool {
	b.check(i)
	w, bit := &b.words[i>>6], uint64(1)<<(i&63)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	b.count++
	return true
}

// Clear removes i and reports whether it was there.
func (b *Bitfield) Clear(i int) bool {
	b.check(i)
	w, bit := &b.words[i>>6], uint64(1)<<(i&63)
	if *w&bit == 0 {
		return false
	}
	*w &^= bit
	b.count--
	return true
}

// SetRange adds the n indexes from first on. n may be 0.
func (b *Bitfield) SetRange(first, n int) {
	if n < 0 || first < 0 || first > b.n-n {
		panic(fmt.Sprintf("chunk: internal error: range of %d from %d in a bitfield of %d", n, first, b.n))
	}
	for end := first + n; first < end; {
		w := first >> 6
		mask := ^uint64(0) << (first & 63)
		next := (w + 1) << 6
		if next > end {
			mask &= ^uint64(0) >> (next - end)
			next = end
		}
		b.count += bits.OnesCount64(mask &^ b.words[w])
		b.words[w] |= mask
		first = next
	}
}

// Fill adds every index.
func (b *Bitfield) Fill() { b.SetRange(0, b.n) }

// Clone returns a copy that shares nothing with b.
func (b *Bitfield) Clone() *Bitfield {
	c := &Bitfield{words: make([]uint64, len(b.words)), n: b.n, count: b.count}
	copy(c.words, b.words)
	return c
}

// NextSet returns the smallest index >= from that is in the set, or -1. from may
// be Len or more.
func (b *Bitfield) NextSet(from int) int {
	return b.next(from, 0)
}

// NextClear returns the smallest index >= from, and below Len, that is not in the
// set, or -1.
func (b *Bitfield) NextClear(from int) int {
	return b.next(from, ^uint64(0))
}

// next finds the first bit from from on that is set in the words xor flip.
func (b *Bitfield) next(from int, flip uint64) int {
	if from < 0 {
		panic(fmt.Sprintf("chunk: internal error: index %d in a bitfield of %d", from, b.n))
	}
	if from >= b.n {
		return -1
	}
	w := from >> 6
	word := (b.words[w] ^ flip) & (^uint64(0) << (from & 63))
	for word == 0 {
		if w++; w == len(b.words) {
			return -1
		}
		word = b.words[w] ^ flip
	}
	if i := w<<6 + bits.TrailingZeros64(word); i < b.n {
		return i
	}
	return -1 // one of the unused bits of the last word, flipped
}

// Ranges yields the maximal runs of indexes in the set, ascending. The bitfield
// must not change meanwhile.
func (b *Bitfield) Ranges() iter.Seq[Range] {
	return func(yield func(Range) bool) { b.ranges(yield) }
}

func (b *Bitfield) ranges(yield func(Range) bool) {
	for first := b.NextSet(0); first >= 0; {
		end := b.NextClear(first)
		if end < 0 {
			end = b.n
		}
		if !yield(Range{first, end - first}) {
			return
		}
		first = b.NextSet(end)
	}
}

// Words returns the set as words: index i is bit i%64 of word i/64. The unused
// bits of the last word are 0. The words alias the bitfield: callers must not
// write to them.
func (b *Bitfield) Words() []uint64 { return b.words }

func (b *Bitfield) check(i int) {
	if uint(i) >= uint(b.n) {
		b.outside(i)
	}
}

//go:noinline
func (b *Bitfield) outside(i int) {
	panic(fmt.Sprintf("chunk: internal error: index %d in a bitfield of %d", i, b.n))
}
