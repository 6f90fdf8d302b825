package transfer

import "unsafe"

// buffers hands out buffers for whole chunks, and blocks when its budget is
// used up, so that memory stays bounded whatever the peers send.
type buffers struct {
	size int
	free chan []byte
	more chan struct{} // a token for each buffer that may still be made
}

// What all chunks that are on their way from the network to the disk may take
// together, and how many there must be at least so that a few peers can
// deliver at once.
const (
	buffersBudget = 64 << 20
	minBuffers    = 4
)

func newBuffers(size int) *buffers {
	n := max(minBuffers, min(buffersBudget/max(size, 1), 256))
	b := &buffers{size: size, free: make(chan []byte, n), more: make(chan struct{}, n)}
	for range n {
		b.more <- struct{}{}
	}
	return b
}

// get returns a page-aligned buffer of b.size bytes, or errStopping once stop
// is closed.
func (b *buffers) get(stop <-chan struct{}) ([]byte, error) {
	select {
	case p := <-b.free: // a warm one is better than a new one
		return p, nil
	default:
	}
	select {
	case p := <-b.free:
		return p, nil
	case <-b.more:
		return alignedBuffer(b.size), nil
	case <-stop:
		return nil, errStopping
	}
}

func (b *buffers) put(p []byte) { b.free <- p[:b.size] }

// len returns how many buffers there may be.
func (b *buffers) len() int { return cap(b.free) }

// alignedBuffer returns n bytes that start on a page: the kernel copies into
// odd addresses several times slower on some processors.
func alignedBuffer(n int) []byte {
	const page = 4096
	p := make([]byte, n+page)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (page - 1))
	return p[off : off+n : off+n]
}
