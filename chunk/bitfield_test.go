package chunk

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The bitfield does what a map of bools does, at lengths around whole words.
func TestBitfieldIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{0, 1, 2, 63, 64, 65, 127, 128, 129, 300}).Draw(t, "len")
		b := NewBitfield(n)
		model := make([]bool, n)
		check := func() {
			count := 0
			for i, want := range model {
				if b.Has(i) != want {
					t.Fatalf("Has(%d) = %v", i, !want)
				}
				if want {
					count++
				}
			}
			if b.Len() != n || b.Count() != count || b.All() != (count == n) || b.None() != (count == 0) {
				t.Fatalf("Len %d Count %d All %v None %v, want %d of %d", b.Len(), b.Count(), b.All(), b.None(), count, n)
			}
			from := rapid.IntRange(0, n+1).Draw(t, "from")
			find := func(v bool) int {
				if from >= n {
					return -1
				}
				if i := slices.Index(model[from:], v); i >= 0 {
					return from + i
				}
				return -1
			}
			if got, want := b.NextSet(from), find(true); got != want {
				t.Fatalf("NextSet(%d) = %d, want %d", from, got, want)
			}
			if got, want := b.NextClear(from), find(false); got != want {
				t.Fatalf("NextClear(%d) = %d, want %d", from, got, want)
			}
			again := NewBitfield(n)
			end := -1
			for r := range b.Ranges() {
				if r.N < 1 || r.First <= end {
					t.Fatalf("range %v behind one that ends at %d", r, end)
				}
				end = r.End()
				again.SetRange(r.First, r.N)
			}
			if !slices.Equal(again.Words(), b.Words()) {
				t.Fatalf("ranges give %x, want %x", again.Words(), b.Words())
			}
			if n%64 != 0 && b.Words()[n/64]>>(n%64) != 0 {
				t.Fatalf("unused bits are set")
			}
		}
		check()
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 4).Draw(t, "op"); {
			case op == 0:
				b.Fill()
				for i := range model {
					model[i] = true
				}
			case op == 1:
				first := rapid.IntRange(0, n).Draw(t, "first")
				num := rapid.IntRange(0, n-first).Draw(t, "num")
				b.SetRange(first, num)
				for i := range num {
					model[first+i] = true
				}
			case n == 0:
			case op == 2:
				c := b.Clone()
				if c.Set(0) {
					c.Clear(0)
				} else {
					c.Clear(0) // must not be seen in b
				}
			default:
				i := rapid.IntRange(0, n-1).Draw(t, "i")
				if op == 3 && b.Set(i) == model[i] || op == 4 && b.Clear(i) != model[i] {
					t.Fatalf("op %d of %d does not say whether it changed", op, i)
				}
				model[i] = op == 3
			}
			check()
		}
	})
}

func TestBitfieldPanics(t *testing.T) {
	b := NewBitfield(10)
	for name, f := range map[string]func(){
		"Has -1":          func() { b.Has(-1) },
		"Has len":         func() { b.Has(10) },
		"Set len":         func() { b.Set(10) },
		"Clear len":       func() { b.Clear(10) },
		"SetRange over":   func() { b.SetRange(5, 6) },
		"SetRange wraps":  func() { b.SetRange(1, int(^uint(0)>>1)) },
		"SetRange -1":     func() { b.SetRange(-1, 1) },
		"SetRange of -1":  func() { b.SetRange(1, -1) },
		"NextSet -1":      func() { b.NextSet(-1) },
		"length negative": func() { NewBitfield(-1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	if b.Count() != 0 {
		t.Error("a refused call changed the set")
	}
}

func TestBitfieldRangesStops(t *testing.T) {
	b := NewBitfield(10)
	b.Set(1)
	b.Set(3)
	n := 0
	for range b.Ranges() {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d ranges, want 1", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		for range b.Ranges() {
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
