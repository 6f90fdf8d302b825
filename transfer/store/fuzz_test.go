package store

import (
	"encoding/binary"
	"testing"
)

// FuzzRecords: whatever records a journal has, all of them whole, what it says hangs
// together.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{'W', 0, 0, 'W', 0, 1, 'S', 0, 2, 'D', 0, 1})
	f.Add([]byte{'K', 0, 0, 'S', 0, 1, 'H', 0, 0, 'T', 0, 0, 'W', 0, 5})
	f.Add([]byte{'S', 0, 9})
	f.Add([]byte{'W', 255, 255})
	id := [idLen]byte{1, 2, 3}
	const num = 16
	f.Fuzz(func(t *testing.T, p []byte) {
		var rs []rec
		for ; len(p) >= 3; p = p[3:] {
			rs = append(rs, rec{p[0], uint32(binary.BigEndian.Uint16(p[1:]))})
		}
		r := replay(records(&id, rs...), &id, num)
		if r.count > len(rs) || r.covered > r.count {
			t.Fatalf("%d of %d records count, %d are covered", r.count, len(rs), r.covered)
		}
		written := map[uint32]bool{}
		for _, x := range rs[:r.count] {
			switch x.kind {
			case recWritten, recKept:
				written[x.n] = true
			case 'D':
				delete(written, x.n)
			}
		}
		for i := range num {
			if r.have.Has(i) && !written[uint32(i)] {
				t.Errorf("chunk %d is there, and no record says so", i)
			}
			if (r.flushed.Has(i) || r.doubt.Has(i)) && !r.have.Has(i) {
				t.Errorf("chunk %d is not there, but flushed %v, in doubt %v", i, r.flushed.Has(i), r.doubt.Has(i))
			}
		}
		// Of a journal that is cut, only the last record can be missed.
		whole := records(&id, rs...)
		if cut := replay(whole[:max(0, len(whole)-1)], &id, num); cut.count < min(r.count, len(rs)-1) {
			t.Errorf("one byte less: %d records instead of %d", cut.count, r.count)
		}
	})
}
