package chunk

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
)

// Kinds of cutters, as NewCutter takes them.
const (
	Fixed   = "fixed"   // chunks of one size; the last of a segment may be shorter
	FastCDC = "fastcdc" // chunks that end where the content says
)

// A Cutter finds where chunks end. Cutters hold no state of a stream: they are
// values that can be compared, and any number of goroutines may use one.
type Cutter interface {
	// String returns the manifest's form: the kind and the nominal size, as in
	// "fixed 131072". ParseCutter reads it.
	String() string
	// Size returns the nominal chunk size in bytes, a power of two. Files of at
	// least this size are cut on their own.
	Size() int
	// Min and Max bound the length of a chunk in bytes; only the last chunk of a
	// segment may be shorter than Min.
	Min() int
	Max() int
	// Next returns the length of the first chunk of p, which holds Max bytes of the
	// segment, or all that is left of it. It is 0 only for an empty p. A result
	// below len(p) is right even if p holds less than that.
	Next(p []byte) int
}

// NewCutter returns the cutter of a kind and a nominal size: a power of two from
// MinSize to MaxSize.
func NewCutter(kind string, size int) (Cutter, error) {
	if size < MinSize || size > MaxSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("chunk: chunk size %d is not a power of two from %d to %d", size, MinSize, MaxSize)
	}
	switch kind {
	case Fixed:
		return fixed(size), nil
	case FastCDC:
		return newFastCDC(size), nil
	}
	return nil, fmt.Errorf("chunk: unknown cutter %.40q, want %s or %s", kind, Fixed, FastCDC)
}

// ParseCutter parses what a cutter's String returns.
func ParseCutter(s string) (Cutter, error) {
	kind, size, ok := strings.Cut(s, " ")
	if !ok {
		return nil, fmt.Errorf("chunk: cutter %.40q has no chunk size", s)
	}
	n, err := strconv.Atoi(size)
	if err != nil || strconv.Itoa(n) != size {
		return nil, fmt.Errorf("chunk: chunk size %.40q is not a number", size)
	}
	return NewCutter(kind, n)
}

// A nominal size is chosen for at most MinNominalNum chunks of MinSize, twice as
// many of twice the size, and so on, up to MaxNominalNum. A chunk takes both ends
// as long as some tens of KiB do, so large shares are cut into larger ones before
// their manifest asks for it; small ones are not, since an update fetches whole ones.
const (
	MinNominalNum = 12288
	MaxNominalNum = 65536
)

// NominalSize returns the chunk size for a share whose number of chunks at a size
// is num(size): the smallest power of two from MinSize on of which there are not
// too many, or MaxSize if there are of each.
func NominalSize(num func(size int) int64) int {
	size := MinSize
	for size < MaxSize && num(size) > min(MinNominalNum*int64(size/MinSize), MaxNominalNum) {
		size *= 2
	}
	return size
}

type fixed int

func (c fixed) String() string { return Fixed + " " + strconv.Itoa(int(c)) }
func (c fixed) Size() int      { return int(c) }
func (c fixed) Min() int       { return int(c) }
func (c fixed) Max() int       { return int(c) }

func (c fixed) Next(p []byte) int { return min(len(p), int(c)) }

// fastCDC cuts as the FastCDC of go-cdc-chunkers ("fastcdc-v1.0.0") with a
// minimum of a quarter of the nominal size and a maximum of four times it, but
// never more than MaxSize. The loop is our own, and faster; the table is theirs,
// and a test holds the two together.
type fastCDC struct {
	size, min, max int
	hard, easy     uint64 // masks before and after the nominal size
}

func newFastCDC(size int) fastCDC {
	n := bits.Len(uint(size)) - 1
	return fastCDC{
		size: size,
		min:  size / 4,
		max:  min(4*size, MaxSize),
		// Normalised chunking of level 2: four times less likely to end before the
		// nominal size, four times likelier after it.
		hard: spacedMask(n + 2),
		easy: spacedMask(n - 2),
	}
}

// spacedMask returns a mask of n bits, spread from the top of the word downward:
// the top bits depend on the last 64 bytes, the low ones on few.
func spacedMask(n int) uint64 {
	var mask uint64
	for i := range n {
		mask |= 1 << (63 - i*(64/n))
	}
	return mask
}

func (c fastCDC) String() string { return FastCDC + " " + strconv.Itoa(c.size) }
func (c fastCDC) Size() int      { return c.size }
func (c fastCDC) Min() int       { return c.min }
func (c fastCDC) Max() int       { return c.max }

func (c fastCDC) Next(p []byte) int {
	if len(p) <= c.min {
		return len(p)
	}
	p = p[:min(len(p), c.max)]
	normal := min(len(p), c.size)
	i, fp, ok := scan(p[:normal], c.min, 0, c.hard)
	if !ok {
		i, _, _ = scan(p, normal, fp, c.easy)
	}
	return i
}

// scan rolls the fingerprint fp over p from index i on, and returns the index of
// the first byte after which no bit of mask is set, or len(p) and false.
//
// Rolling over one byte waits for the byte before it. So the loop takes four bytes
// at once: only the last of the four sums is needed for the next four, and the
// others are made beside it.
func scan(p []byte, i int, fp, mask uint64) (int, uint64, bool) {
	for ; len(p)-i >= 4; i += 4 {
		q := p[i : i+4 : i+4]
		g0, g1, g2, g3 := fastcdc.G[q[0]], fastcdc.G[q[1]], fastcdc.G[q[2]], fastcdc.G[q[3]]
		h1 := g0<<1 + g1
		h3 := h1<<2 + (g2<<1 + g3)
		fp0, fp1 := fp<<1+g0, fp<<2+h1
		fp2 := fp1<<1 + g2
		fp = fp<<4 + h3
		if fp0&mask == 0 {
			return i, fp0, true
		}
		if fp1&mask == 0 {
			return i + 1, fp1, true
		}
		if fp2&mask == 0 {
			return i + 2, fp2, true
		}
		if fp&mask == 0 {
			return i + 3, fp, true
		}
	}
	for ; i < len(p); i++ {
		if fp = fp<<1 + fastcdc.G[p[i]]; fp&mask == 0 {
			return i, fp, true
		}
	}
	return len(p), fp, false
}
