package chunk

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// random returns n bytes that are the same each time.
func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for k := range 8 {
			p[i+k] = byte(v >> (8 * k))
		}
	}
	return p
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []int{4 << 10, 16 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dK", size>>10), func(b *testing.B) {
			p := random(size, 1)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				Sum(p)
			}
		})
	}
}

func BenchmarkCutter(b *testing.B) {
	p := random(32<<20, 2)
	for _, kind := range []string{Fixed, FastCDC} {
		b.Run(kind, func(b *testing.B) {
			c, err := NewCutter(kind, MinSize)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				for q := p; len(q) > 0; {
					q = q[c.Next(q):]
				}
			}
		})
	}
}

func BenchmarkBitfield(b *testing.B) {
	const n = MaxNum
	half := NewBitfield(n)
	for i := 0; i < n; i += 2 {
		half.Set(i)
	}
	b.Run("SetClear", func(b *testing.B) {
		f := NewBitfield(n)
		b.SetBytes(1) // the one in which the bit is
		b.ReportAllocs()
		for b.Loop() {
			f.Set(n / 3)
			f.Clear(n / 3)
		}
	})
	b.Run("NextSet", func(b *testing.B) {
		f := NewBitfield(n)
		f.Set(n - 1)
		b.SetBytes(n / 8)
		b.ReportAllocs()
		for b.Loop() {
			f.NextSet(0)
		}
	})
	b.Run("Ranges", func(b *testing.B) {
		b.SetBytes(n / 8)
		b.ReportAllocs()
		for b.Loop() {
			for range half.Ranges() {
			}
		}
	})
	b.Run("Clone", func(b *testing.B) {
		b.SetBytes(n / 8)
		b.ReportAllocs()
		for b.Loop() {
			half.Clone()
		}
	})
}

func BenchmarkParseRanges(b *testing.B) {
	f := NewBitfield(4096)
	for i := 0; i < 4096; i += 3 {
		f.Set(i)
	}
	var rs []Range
	for r := range f.Ranges() {
		rs = append(rs, r)
	}
	s := string(AppendRanges(nil, rs))
	b.SetBytes(int64(len(s)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendParsedRanges(rs[:0], s, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
