package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// bbolt follows page numbers, offsets and lengths wherever they lead. In a
// damaged file that can be a circle, which ends the process, since a stack that
// overflows cannot be recovered from; or memory that is not the file's, which
// ends it too when the collector meets such a pointer. So all pages are looked at
// here first. Their layout is that of bbolt's format, version 2: a header of 16
// bytes (id, flags, count, overflow), then elements of 16 bytes each, whose
// offsets count from themselves.
const (
	pageHeader   = 16
	bucketHeader = 16 // number of its top page, sequence
	element      = 16

	flagBranch   = 1
	flagLeaf     = 2
	flagFreelist = 16

	leafBucket = 1 // flag of an element: its value is the header of a bucket

	// Where a meta page, 0 or 1, has the number of the page that lists the free
	// ones, and the number of the transaction that wrote it.
	metaFreelist = 48
	metaTx       = 64

	// manyFree stands for a number of free pages that has no room in the header.
	manyFree = 0xffff

	// maxDepth is more than a tree of all pages that a file can have needs.
	maxDepth = 32
)

type graph struct {
	f        *os.File
	pageSize int64
	numPages uint64
	seen     map[uint64]bool
}

// checkGraph returns an error if the pages of the file do not form a tree, if
// something in one of them lies outside of it, or if a page that is in use is
// said to be free.
func checkGraph(tx *bbolt.Tx) (err error) {
	f, err := os.Open(tx.DB().Path())
	if err != nil {
		return err
	}
	defer f.Close() // only read
	size := int64(tx.DB().Info().PageSize)
	g := &graph{f: f, pageSize: size, numPages: uint64(tx.Size() / size), seen: map[uint64]bool{}}
	if err := g.walk(uint64(tx.Cursor().Bucket().Root()), true, 0); err != nil {
		return err
	}
	return g.free(uint64(tx.ID()))
}

var errGraph = errors.New("its pages are no tree")

// A page is one page of the file with those that it flows over into.
type page struct {
	at     int64 // offset in the file
	length int64
	flags  uint16
	count  int64
	items  []byte // the elements
}

// page reads a page that nothing else has led to yet.
func (g *graph) page(id uint64, itemLen int64) (p page, err error) {
	bad := fmt.Errorf("%w: page %d", errGraph, id)
	if id < 2 || id >= g.numPages || g.seen[id] {
		return p, bad
	}
	p.at = int64(id) * g.pageSize
	first := make([]byte, g.pageSize)
	if _, err := g.f.ReadAt(first, p.at); err != nil {
		return p, err
	}
	p.flags, p.count = binary.NativeEndian.Uint16(first[8:]), int64(binary.NativeEndian.Uint16(first[10:]))
	overflow := uint64(binary.NativeEndian.Uint32(first[12:]))
	if binary.NativeEndian.Uint64(first) != id || overflow >= g.numPages-id {
		return p, bad
	}
	for i := id; i <= id+overflow; i++ {
		if g.seen[i] {
			return p, bad
		}
		g.seen[i] = true
	}
	p.length = int64(overflow+1) * g.pageSize
	end := pageHeader + p.count*itemLen
	if end > p.length {
		return p, bad
	}
	if end <= int64(len(first)) {
		p.items = first[pageHeader:end]
		return p, nil
	}
	p.items = make([]byte, p.count*itemLen)
	_, err = g.f.ReadAt(p.items, p.at+pageHeader)
	return p, err
}

// walk visits a page and those below it. What is at the top are buckets, and
// only there.
func (g *graph) walk(id uint64, top bool, depth int) error {
	bad := fmt.Errorf("%w: page %d", errGraph, id)
	p, err := g.page(id, element)
	if err != nil {
		return err
	}
	if depth > maxDepth || p.flags != flagBranch && p.flags != flagLeaf || p.flags == flagBranch && p.count == 0 {
		return bad
	}
	for k := range p.count {
		e := p.items[k*element:][:element]
		if p.flags == flagBranch {
			at, size := int64(binary.NativeEndian.Uint32(e)), int64(binary.NativeEndian.Uint32(e[4:]))
			if pageHeader+k*element+at+size > p.length {
				return bad
			}
			if err := g.walk(binary.NativeEndian.Uint64(e[8:]), top, depth+1); err != nil {
				return err
			}
			continue
		}
		value, size := leafValue(k, e)
		if value+size > p.length || (binary.NativeEndian.Uint32(e)&leafBucket != 0) != top {
			return bad
		}
		if !top {
			continue
		}
		if err := g.bucket(p.at+value, size, depth); err != nil {
			return err
		}
	}
	return nil
}

// leafValue says where element k of a leaf has its value, behind its key, and how
// long that is.
func leafValue(k int64, e []byte) (at, size int64) {
	at = pageHeader + k*element + int64(binary.NativeEndian.Uint32(e[4:])) + int64(binary.NativeEndian.Uint32(e[8:]))
	return at, int64(binary.NativeEndian.Uint32(e[12:]))
}

// bucket visits the pages of a bucket whose header lies at an offset of the file.
// One that is small has its only page behind its header.
func (g *graph) bucket(at, size int64, depth int) error {
	bad := fmt.Errorf("%w: the bucket at %d", errGraph, at)
	var head [bucketHeader + pageHeader]byte
	if size < bucketHeader {
		return bad
	}
	n := min(size, int64(len(head)))
	if _, err := g.f.ReadAt(head[:n], at); err != nil {
		return err
	}
	if root := binary.NativeEndian.Uint64(head[:]); root != 0 {
		return g.walk(root, false, depth+1)
	}
	flags, count := binary.NativeEndian.Uint16(head[bucketHeader+8:]), int64(binary.NativeEndian.Uint16(head[bucketHeader+10:]))
	length := size - bucketHeader // of the page
	if n < int64(len(head)) || flags != flagLeaf || pageHeader+count*element > length {
		return bad
	}
	items := make([]byte, count*element)
	if _, err := g.f.ReadAt(items, at+int64(len(head))); err != nil {
		return err
	}
	for k := range count {
		e := items[k*element:][:element]
		if value, size := leafValue(k, e); value+size > length || binary.NativeEndian.Uint32(e)&leafBucket != 0 {
			return bad
		}
	}
	return nil
}

// free looks at the list of free pages that transaction tx has left.
func (g *graph) free(tx uint64) error {
	meta := make([]byte, metaTx+8)
	for n := range int64(2) {
		if _, err := g.f.ReadAt(meta, n*g.pageSize); err != nil {
			return err
		}
		if binary.NativeEndian.Uint64(meta[metaTx:]) == tx {
			break
		}
	}
	id := binary.NativeEndian.Uint64(meta[metaFreelist:])
	p, err := g.page(id, 0)
	if err != nil {
		return err
	}
	bad := fmt.Errorf("%w: the free pages", errGraph)
	list := make([]byte, p.length-pageHeader)
	if _, err := g.f.ReadAt(list, p.at+pageHeader); err != nil {
		return err
	}
	count := uint64(p.count)
	if count == manyFree { // more than the header can count: the first is their number
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if p.flags != flagFreelist || count > uint64(len(list)/8) {
		return bad
	}
	list = list[:count*8]
	for ; len(list) > 0; list = list[8:] {
		id := binary.NativeEndian.Uint64(list)
		if id < 2 || id >= g.numPages || g.seen[id] {
			return bad
		}
		g.seen[id] = true
	}
	return nil
}
