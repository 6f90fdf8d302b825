// Package pack writes chunks of a share into files that say by themselves what
// they hold, so that sticks can carry a share in any number of pieces, and reads
// them again. SPEC.md defines the file.
package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// Suffix is what the name of a pack ends in.
const Suffix = ".shoalpack"

const (
	align     = 512 // each record begins at a multiple of it
	headerLen = 128 // bytes of a record before its content
	magic     = "shoal-pack 1 "
)

// The kinds of a record.
const (
	kindManifest = "manifest"
	kindChunk    = "chunk"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// A header is what a record says of itself.
type header struct {
	kind string
	i    int // of the chunk; 0 for a manifest
	n    int // bytes of the content
	root chunk.Hash
}

// append adds the header's 128 bytes to b.
func (h *header) append(b []byte) []byte {
	start := len(b)
	b = fmt.Appendf(b, "%s%s %d %d %s", magic, h.kind, h.i, h.n, h.root)
	b = fmt.Appendf(b, " %08x\n", crc32.Checksum(b[start:], crcTable))
	return append(b, make([]byte, headerLen-(len(b)-start))...)
}

// parseHeader reads what append writes, and nothing else.
func parseHeader(p []byte) (h header, ok bool) {
	line, rest, ok := bytes.Cut(p, []byte{'\n'})
	if !ok || len(p) != headerLen || len(bytes.Trim(rest, "\x00")) > 0 {
		return h, false
	}
	fields := bytes.Split(line, []byte{' '})
	if len(fields) != 7 {
		return h, false
	}
	h.kind = string(fields[2])
	var err1, err2, err3 error
	h.i, err1 = strconv.Atoi(string(fields[3]))
	h.n, err2 = strconv.Atoi(string(fields[4]))
	h.root, err3 = chunk.ParseHash(string(fields[5]))
	if err1 != nil || err2 != nil || err3 != nil {
		return h, false
	}
	var limit int
	switch h.kind {
	case kindManifest:
		limit = manifest.MaxText
		ok = h.i == 0
	case kindChunk:
		limit = chunk.MaxSize
		ok = h.i >= 0 && h.i < chunk.MaxNum
	default:
		return h, false
	}
	// One form only: whatever parses is written again the same, its checksum too.
	return h, ok && h.n > 0 && h.n <= limit && bytes.Equal(h.append(nil), p)
}

// RecordLen returns the bytes that a record with n bytes of content takes.
func RecordLen(n int) int64 { return (headerLen + int64(n) + align - 1) / align * align }

// An Item is where one chunk lies in a pack.
type Item struct {
	Off int64 // of its content, in bytes
	Len int
}

// An Index lists what a pack has of one share.
type Index struct {
	Chunks   map[int]Item
	Manifest Item  // Len is 0 if it is not there
	Others   int   // records of other shares
	Damaged  int64 // bytes that are no part of a record
	End      int64 // behind the last record that is whole
}

// maxDamage is how many bytes without a record are passed over in one pack.
const maxDamage = 1 << 30

// Read lists the records of a pack of size bytes whose share has the root, as far
// as fits says that the share has a chunk i of n bytes; nil lists none. A chunk is
// listed where it is said to be; whoever takes it has to hash it. What is damaged
// is passed over: the next record is found by its header. Behind maxDamage bytes
// of that nothing is looked for.
func Read(ctx context.Context, f io.ReaderAt, size int64, root chunk.Hash, fits func(i, n int) bool) (*Index, error) {
	x := &Index{Chunks: make(map[int]Item)}
	var p [headerLen]byte
	for off := int64(0); off+headerLen <= size && x.Damaged <= maxDamage; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, err := f.ReadAt(p[:], off); err != nil {
			return nil, err
		}
		h, ok := parseHeader(p[:])
		if !ok || off+headerLen+int64(h.n) > size {
			next, err := nextHeader(ctx, f, off+align, min(size, off+align+maxDamage))
			if err != nil {
				return nil, err
			}
			x.Damaged += min(next, size) - off
			off = next
			continue
		}
		item := Item{off + headerLen, h.n}
		off += RecordLen(h.n)
		switch {
		case h.root != root:
			x.Others++
			continue
		case h.kind == kindManifest:
			x.Manifest = item
		case fits != nil && fits(h.i, h.n):
			if _, twice := x.Chunks[h.i]; !twice {
				x.Chunks[h.i] = item
			}
		}
		x.End = off
	}
	return x, nil
}

// nextHeader returns the first place from off to end where a header may begin, or
// the first behind end.
func nextHeader(ctx context.Context, f io.ReaderAt, off, end int64) (int64, error) {
	buf := make([]byte, 1<<20)
	for off < end {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := f.ReadAt(p, off); err != nil {
			return 0, err
		}
		for k := 0; k < len(p); k += align {
			if bytes.HasPrefix(p[k:], []byte(magic)) {
				return off + int64(k), nil
			}
		}
		off += (int64(len(p)) + align - 1) / align * align
	}
	return off, nil
}

// IsPack reports whether a file begins like a pack.
func IsPack(f io.ReaderAt) bool {
	p := make([]byte, len(magic))
	_, err := f.ReadAt(p, 0)
	return err == nil && string(p) == magic
}

// ErrTooSmall is the cause of an error of Plan: not even one chunk has room.
var ErrTooSmall = errors.New("too small for a single chunk of this share")

// Plan returns the first chunks of want that fit into a pack of at most size
// bytes with the manifest, and how long it becomes. size 0 is without limit.
func Plan(m *manifest.Manifest, want *chunk.Bitfield, size int64) (take *chunk.Bitfield, length int64, err error) {
	take = chunk.NewBitfield(m.NumChunks())
	length = RecordLen(len(m.Text()))
	for r := range want.Ranges() {
		for i := r.First; i < r.End(); i++ {
			n := RecordLen(m.ChunkLen(i))
			if size > 0 && length+n > size {
				if take.None() {
					return nil, length + n, ErrTooSmall
				}
				return take, length, nil
			}
			take.Set(i)
			length += n
		}
	}
	return take, length, nil
}
