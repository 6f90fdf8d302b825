package chunk

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
)

func TestParseCutter(t *testing.T) {
	for _, test := range []struct {
		in                   string
		size, shortest, most int
		err                  string // "" is success
	}{
		{"fixed 131072", 131072, 131072, 131072, ""},
		{"fixed 16777216", 16777216, 16777216, 16777216, ""},
		{"fastcdc 131072", 131072, 32768, 524288, ""},
		{"fastcdc 4194304", 4194304, 1048576, 16777216, ""},
		{"fastcdc 16777216", 16777216, 4194304, 16777216, ""},
		{"", 0, 0, 0, "no chunk size"},
		{"fixed", 0, 0, 0, "no chunk size"},
		{"fixed ", 0, 0, 0, "not a number"},
		{"fixed 0", 0, 0, 0, "power of two"},
		{"fixed 1", 0, 0, 0, "power of two"},
		{"fixed 3", 0, 0, 0, "power of two"},
		{"fixed -131072", 0, 0, 0, "power of two"},
		{"fixed 65536", 0, 0, 0, "power of two"},
		{"fixed 131073", 0, 0, 0, "power of two"},
		{"fixed 33554432", 0, 0, 0, "power of two"},
		{"fixed 2147483648", 0, 0, 0, "power of two"},
		{"fixed 9223372036854775808", 0, 0, 0, "not a number"},
		{"fixed +131072", 0, 0, 0, "not a number"},
		{"fixed 0131072", 0, 0, 0, "not a number"},
		{"fixed  131072", 0, 0, 0, "not a number"},
		{"fixed 131072 ", 0, 0, 0, "not a number"},
		{"fixed 128K", 0, 0, 0, "not a number"},
		{"Fixed 131072", 0, 0, 0, "unknown cutter"},
		{"jc 131072", 0, 0, 0, "unknown cutter"},
		{"\x1b[2J 131072", 0, 0, 0, `"\x1b[2J"`},
	} {
		c, err := ParseCutter(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, %v, want error %q", test.in, c, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if c.String() != test.in || c.Size() != test.size || c.Min() != test.shortest || c.Max() != test.most {
			t.Errorf("%q: %s size %d min %d max %d", test.in, c, c.Size(), c.Min(), c.Max())
		}
	}
}

func TestNominalSize(t *testing.T) {
	for _, test := range []struct {
		total int64
		want  int
	}{
		{0, 128 << 10},
		{1, 128 << 10},
		{3 << 29, 128 << 10},
		{3<<29 + 1, 256 << 10},
		{6 << 30, 256 << 10},
		{6<<30 + 1, 512 << 10},
		{24 << 30, 512 << 10},
		{24<<30 + 1, 1 << 20},
		{64 << 30, 1 << 20},
		{64<<30 + 1, 2 << 20},
		{1 << 40, 16 << 20},
		{1<<40 + 1, 16 << 20},
		{16 << 40, 16 << 20},
	} {
		got := NominalSize(func(size int) int64 { return (test.total + int64(size) - 1) / int64(size) })
		if got != test.want {
			t.Errorf("%d bytes: %d, want %d", test.total, got, test.want)
		}
	}
}

// lengths cuts p whole; lookahead is how much of it Next sees at once.
func lengths(c Cutter, p []byte, lookahead int) (ns []int) {
	for len(p) > 0 {
		n := c.Next(p[:min(len(p), lookahead)])
		ns = append(ns, n)
		p = p[n:]
	}
	return ns
}

// contents are texts of different kinds, long enough for several chunks.
func contents() map[string][]byte {
	text := []byte{}
	for i := 0; len(text) < 3<<20; i++ {
		text = fmt.Appendf(text, "line %d of a text that repeats itself\n", i%1000)
	}
	return map[string][]byte{
		"random": random(5<<20+123, 7),
		"zeros":  make([]byte, 2<<20),
		"text":   text,
		"short":  random(1000, 8),
		"min":    random(MinSize/4, 9),
		"min+1":  random(MinSize/4+1, 10),
		"normal": random(MinSize, 11),
		"empty":  nil,
	}
}

// Our loop must cut as the library's does.
func TestFastCDCIsTheLibrarys(t *testing.T) {
	for name, p := range contents() {
		for _, size := range []int{MinSize, 4 * MinSize} {
			c, err := NewCutter(FastCDC, size)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := chunkers.NewChunker("fastcdc-v1.0.0", bytes.NewReader(p), &chunkers.ChunkerOpts{
				MinSize: c.Min(), NormalSize: c.Size(), MaxSize: c.Max(),
			})
			if err != nil {
				t.Fatal(err)
			}
			var want []int
			for {
				b, err := theirs.Next()
				if len(b) > 0 {
					want = append(want, len(b))
				}
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := lengths(c, p, c.Max()); !slices.Equal(got, want) {
				t.Errorf("%s by %s: %v, the library cuts %v", name, c, got, want)
			}
		}
	}
}

// Lengths that every version must give: a manifest's cuts are a format.
func TestFastCDCGolden(t *testing.T) {
	c, _ := NewCutter(FastCDC, MinSize)
	got := fmt.Sprint(lengths(c, random(2<<20, 7), c.Max()))
	if want := "[107220 193287 143816 136077 143129 178152 132611 129368 174972 146799 133435 92391 169887 184892 31116]"; got != want {
		t.Errorf("cuts are %s, want %s", got, want)
	}
}

func TestCutterBounds(t *testing.T) {
	for name, p := range contents() {
		for _, kind := range []string{Fixed, FastCDC} {
			c, _ := NewCutter(kind, MinSize)
			ns := lengths(c, p, c.Max())
			sum := 0
			for i, n := range ns {
				sum += n
				if n < 1 || n > c.Max() || n < c.Min() && i < len(ns)-1 {
					t.Errorf("%s by %s: chunk %d of %d has %d bytes", name, c, i, len(ns), n)
				}
			}
			if sum != len(p) {
				t.Errorf("%s by %s: chunks hold %d of %d bytes", name, c, sum, len(p))
			}
		}
	}
}

// What Next finds before the end of a short p does not depend on what follows.
func TestNextOfLess(t *testing.T) {
	c, _ := NewCutter(FastCDC, MinSize)
	p := random(c.Max(), 12)
	want := c.Next(p)
	for n := 0; n <= len(p); n += 4099 {
		got := c.Next(p[:n])
		if got < n && got != want {
			t.Errorf("Next of %d bytes = %d, want %d", n, got, want)
		}
		if n > want && got != want {
			t.Errorf("Next of %d bytes = %d, want %d", n, got, want)
		}
	}
}

// After an insertion the chunks are soon the old ones again.
func TestFastCDCFindsItsWayBack(t *testing.T) {
	c, _ := NewCutter(FastCDC, MinSize)
	p := random(8<<20, 13)
	hashes := func(p []byte) map[Hash]bool {
		set := make(map[Hash]bool)
		for _, n := range lengths(c, p, c.Max()) {
			set[Sum(p[:n])] = true
			p = p[n:]
		}
		return set
	}
	before := hashes(p)
	after := hashes(append([]byte("inserted"), p...))
	lost := 0
	for h := range before {
		if !after[h] {
			lost++
		}
	}
	if lost > 6 {
		t.Errorf("%d of %d chunks are lost after an insertion at the front", lost, len(before))
	}
}

func FuzzCutter(f *testing.F) {
	f.Add([]byte("abc"), 1000, false)
	f.Add([]byte{0}, 300_000, true)
	f.Add([]byte("0123456789"), 600_000, true)
	f.Fuzz(func(t *testing.T, seed []byte, n int, cdc bool) {
		if len(seed) == 0 || n < 0 || n > 1<<20 {
			return
		}
		kind := Fixed
		if cdc {
			kind = FastCDC
		}
		c, _ := NewCutter(kind, MinSize)
		p := bytes.Repeat(seed, n/len(seed)+1)[:n]
		ns := lengths(c, p, c.Max())
		sum := 0
		for i, k := range ns {
			sum += k
			if k < 1 || k > c.Max() || k < c.Min() && i < len(ns)-1 {
				t.Fatalf("chunk %d of %d has %d bytes", i, len(ns), k)
			}
		}
		if sum != n {
			t.Fatalf("chunks hold %d of %d bytes", sum, n)
		}
	})
}
