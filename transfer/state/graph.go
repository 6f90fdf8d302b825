package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// bbolt follows page numbers wherever they lead. In a damaged file that can be a
// circle, which ends the process: a stack that overflows cannot be recovered
// from. So the pages are walked here first. Their layout is that of bbolt's
// format, version 2: a header of 16 bytes (id, flags, count, overflow), then
// elements of 16 bytes each.
const (
	pageHeader = 16
	element    = 16

	flagBranch = 1
	flagLeaf   = 2

	leafBucket = 1 // flag of an element: its value is the header of a bucket

	// maxDepth is more than a tree of all pages that a file can have needs.
	maxDepth = 32
)

type graph struct {
	f        *os.File
	pageSize int64
	numPages uint64
	seen     map[uint64]bool
}

// checkGraph returns an error if the pages of the file do not form a tree.
func checkGraph(tx *bbolt.Tx) (err error) {
	f, err := os.Open(tx.DB().Path())
	if err != nil {
		return err
	}
	defer f.Close() // only read
	size := int64(tx.DB().Info().PageSize)
	g := &graph{f: f, pageSize: size, numPages: uint64(tx.Size() / size), seen: map[uint64]bool{}}
	return g.walk(uint64(tx.Cursor().Bucket().Root()), true, 0)
}

var errGraph = errors.New("its pages are no tree")

// walk visits a page and those below it. Only the pages at the top name buckets.
func (g *graph) walk(id uint64, top bool, depth int) error {
	if id < 2 || id >= g.numPages || g.seen[id] || depth > maxDepth {
		return fmt.Errorf("%w: page %d", errGraph, id)
	}
	g.seen[id] = true
	var head [pageHeader]byte
	at := int64(id) * g.pageSize
	if _, err := g.f.ReadAt(head[:], at); err != nil {
		return err
	}
	flags, count, overflow := binary.NativeEndian.Uint16(head[8:]), int64(binary.NativeEndian.Uint16(head[10:])), int64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head[:]) != id || flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("%w: page %d", errGraph, id)
	}
	if flags == flagLeaf && !top {
		return nil
	}
	length := (overflow + 1) * g.pageSize
	if pageHeader+count*element > length || at+length > int64(g.numPages)*g.pageSize {
		return fmt.Errorf("%w: page %d", errGraph, id)
	}
	p := make([]byte, count*element)
	if _, err := g.f.ReadAt(p, at+pageHeader); err != nil {
		return err
	}
	for k := range count {
		e := p[k*element:][:element]
		if flags == flagBranch {
			if err := g.walk(binary.NativeEndian.Uint64(e[8:]), top, depth+1); err != nil {
				return err
			}
			continue
		}
		if binary.NativeEndian.Uint32(e)&leafBucket == 0 {
			continue
		}
		value := pageHeader + k*element + int64(binary.NativeEndian.Uint32(e[4:])) + int64(binary.NativeEndian.Uint32(e[8:]))
		if value+element > length {
			return fmt.Errorf("%w: page %d", errGraph, id)
		}
		var bucket [element]byte
		if _, err := g.f.ReadAt(bucket[:], at+value); err != nil {
			return err
		}
		root := binary.NativeEndian.Uint64(bucket[:])
		if root == 0 {
			continue // it lies in this page
		}
		if err := g.walk(root, false, depth+1); err != nil {
			return err
		}
	}
	return nil
}
