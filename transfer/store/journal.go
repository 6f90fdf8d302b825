package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/shoal-p2p/shoal/chunk"
)

// The journal is a header and then records of 32 bytes (SPEC.md). A record
// counts only if its check sum, its place and the journal's id fit; the first
// that does not ends the journal.
const (
	journalMagic = "shoal-journal 1\n"
	headerLen    = 128
	recordLen    = 32
	idLen        = 12
)

// Kinds of records.
const (
	recWritten = 'W' // a chunk was written
	recKept    = 'K' // a chunk was flushed in an earlier boot and not hashed since
	recHashed  = 'H' // such a chunk was hashed, and is right
	recDropped = 'D' // a chunk is taken back
	recBarrier = 'S' // all records before number n are flushed
	recTaint   = 'T' // a flush failed: what was written since the last S is void
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A header says what a journal is about.
type header struct {
	root   chunk.Hash
	boot   [16]byte   // hash of the boot id; zero: unknown
	parts  chunk.Hash // of the identities of the large files
	choice chunk.Hash // of the selection
	id     [idLen]byte
}

func newHeader() header {
	var h header
	_, _ = rand.Read(h.id[:]) // never fails
	return h
}

func bootHash(id string) (b [16]byte) {
	if id != "" {
		h := chunk.Sum([]byte(id))
		copy(b[:], h[:])
	}
	return b
}

func (h *header) encode() []byte {
	p := make([]byte, 0, headerLen)
	p = append(p, journalMagic...)
	p = append(p, h.root[:]...)
	p = append(p, h.boot[:]...)
	p = append(p, h.parts[:24]...)
	p = append(p, h.choice[:24]...)
	p = append(p, h.id[:]...)
	return binary.LittleEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

var errJournal = errors.New("not a journal")

// parseHeader reads what encode wrote. The hashes parts and choice come back cut
// to 24 bytes; compare them with sameHash.
func parseHeader(p []byte) (h header, err error) {
	if len(p) < headerLen || string(p[:len(journalMagic)]) != journalMagic {
		return h, errJournal
	}
	if crc32.Checksum(p[:headerLen-4], castagnoli) != binary.LittleEndian.Uint32(p[headerLen-4:]) {
		return h, errJournal
	}
	q := p[len(journalMagic):]
	q = q[copy(h.root[:], q):]
	q = q[copy(h.boot[:], q):]
	q = q[copy(h.parts[:24], q):]
	q = q[copy(h.choice[:24], q):]
	copy(h.id[:], q)
	return h, nil
}

func sameHash(a, b chunk.Hash) bool { return bytes.Equal(a[:24], b[:24]) }

// putRecord writes record number seq into p, which has recordLen bytes.
func putRecord(p []byte, kind byte, n, seq uint32, id *[idLen]byte) {
	p[0], p[1], p[2], p[3] = kind, 0, 0, 0
	binary.LittleEndian.PutUint32(p[4:], n)
	binary.LittleEndian.PutUint32(p[8:], seq)
	binary.LittleEndian.PutUint32(p[12:], 0)
	copy(p[16:], id[:])
	binary.LittleEndian.PutUint32(p[28:], crc32.Checksum(p[:28], castagnoli))
}

// replayed is what the records of a journal say. Any bytes give an answer.
type replayed struct {
	have    *chunk.Bitfield // written and not taken back
	flushed *chunk.Bitfield // those of have that a barrier covers
	doubt   *chunk.Bitfield // those of have that were kept from an earlier boot and not hashed
	count   int             // records that count
	covered int             // records that the last barrier covers
	tainted bool            // a flush failed
	more    bool            // something stands behind the last record that counts
}

// replay reads the records behind a header.
func replay(p []byte, id *[idLen]byte, num int) replayed {
	r := replayed{have: chunk.NewBitfield(num), flushed: chunk.NewBitfield(num), doubt: chunk.NewBitfield(num)}
	type written struct{ seq, i uint32 }
	var pending []written         // since the last barrier
	latest := make([]uint32, num) // number of the last record that has a chunk written
	var want [recordLen]byte
	for ; len(p) >= recordLen; p = p[recordLen:] {
		kind, n := p[0], binary.LittleEndian.Uint32(p[4:])
		putRecord(want[:], kind, n, uint32(r.count), id)
		i := int(n)
		switch kind {
		case recWritten, recKept, recHashed, recDropped:
			r.more = i >= num
		case recBarrier:
			r.more = i > r.count
		case recTaint:
		default:
			r.more = true
		}
		if r.more || !bytes.Equal(p[:recordLen], want[:]) {
			r.more = len(bytes.TrimLeft(p, "\x00")) > 0
			return r
		}
		switch kind {
		case recWritten, recKept:
			r.have.Set(i)
			r.doubt.Clear(i)
			if kind == recKept {
				r.doubt.Set(i)
			}
			latest[i] = uint32(r.count)
			pending = append(pending, written{uint32(r.count), n})
		case recHashed:
			r.doubt.Clear(i)
		case recDropped:
			r.have.Clear(i)
			r.flushed.Clear(i)
			r.doubt.Clear(i)
		case recBarrier:
			k := 0
			for k < len(pending) && pending[k].seq < n {
				if w := pending[k]; latest[w.i] == w.seq && r.have.Has(int(w.i)) {
					r.flushed.Set(int(w.i))
				}
				k++
			}
			pending = pending[k:]
			r.covered = i
		case recTaint:
			for _, w := range pending {
				r.have.Clear(int(w.i))
				r.flushed.Clear(int(w.i)) // an earlier record of it is older than its bytes
				r.doubt.Clear(int(w.i))
			}
			pending, r.tainted = nil, true
		}
		r.count++
	}
	return r
}
