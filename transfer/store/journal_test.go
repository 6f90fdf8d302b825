package store

import (
	"bytes"
	"slices"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
)

type rec struct {
	kind byte
	n    uint32
}

func records(id *[idLen]byte, rs ...rec) []byte {
	p := make([]byte, recordLen*len(rs))
	for k, r := range rs {
		putRecord(p[k*recordLen:], r.kind, r.n, uint32(k), id)
	}
	return p
}

func set(b *chunk.Bitfield) (s []int) {
	for i := b.NextSet(0); i >= 0; i = b.NextSet(i + 1) {
		if s = append(s, i); i+1 == b.Len() {
			break
		}
	}
	return s
}

func TestReplay(t *testing.T) {
	id := [idLen]byte{1, 2, 3}
	for _, c := range []struct {
		name                 string
		rs                   []rec
		have, flushed, doubt []int
		count, covered       int
	}{
		{"nothing", nil, nil, nil, nil, 0, 0},
		{"written", []rec{{'W', 3}, {'W', 1}}, []int{1, 3}, nil, nil, 2, 0},
		{"flushed", []rec{{'W', 3}, {'W', 1}, {'S', 1}, {'W', 2}}, []int{1, 2, 3}, []int{3}, nil, 4, 1},
		{"dropped", []rec{{'W', 3}, {'S', 1}, {'D', 3}}, nil, nil, nil, 3, 1},
		{"dropped before the barrier", []rec{{'W', 3}, {'D', 3}, {'S', 2}}, nil, nil, nil, 3, 2},
		{"dropped, and written again", []rec{{'W', 3}, {'D', 3}, {'W', 3}, {'S', 2}}, []int{3}, nil, nil, 4, 2},
		{"tainted", []rec{{'W', 3}, {'S', 1}, {'W', 1}, {'W', 2}, {'T', 0}, {'W', 4}}, []int{3, 4}, []int{3}, nil, 6, 1},
		{"kept", []rec{{'K', 3}, {'K', 4}, {'S', 2}}, []int{3, 4}, []int{3, 4}, []int{3, 4}, 3, 2},
		{"kept and hashed", []rec{{'K', 3}, {'K', 4}, {'S', 2}, {'H', 3}}, []int{3, 4}, []int{3, 4}, []int{4}, 4, 2},
		{"kept and dropped", []rec{{'K', 3}, {'K', 4}, {'S', 2}, {'D', 3}}, []int{4}, []int{4}, []int{4}, 4, 2},
		{"outside", []rec{{'W', 3}, {'W', 8}, {'W', 4}}, []int{3}, nil, nil, 1, 0},
		{"barrier ahead", []rec{{'W', 3}, {'S', 9}}, []int{3}, nil, nil, 1, 0},
		{"unknown kind", []rec{{'W', 3}, {'X', 0}, {'W', 4}}, []int{3}, nil, nil, 1, 0},
	} {
		r := replay(records(&id, c.rs...), &id, 8)
		if !slices.Equal(set(r.have), c.have) || !slices.Equal(set(r.flushed), c.flushed) || !slices.Equal(set(r.doubt), c.doubt) || r.count != c.count || r.covered != c.covered {
			t.Errorf("%s: have %v, flushed %v, doubt %v, count %d, covered %d", c.name, set(r.have), set(r.flushed), set(r.doubt), r.count, r.covered)
		}
	}
}

// Any single bit that flips, and any cut, ends the journal there at the latest.
func TestReplayDamaged(t *testing.T) {
	id := [idLen]byte{7}
	p := records(&id, rec{'W', 0}, rec{'W', 1}, rec{'S', 2}, rec{'W', 2}, rec{'D', 1}, rec{'W', 5})
	for bit := range len(p) * 8 {
		q := bytes.Clone(p)
		q[bit/8] ^= 1 << (bit % 8)
		if r := replay(q, &id, 8); r.count != bit/8/recordLen {
			t.Fatalf("bit %d flipped: %d records count", bit, r.count)
		}
	}
	for n := range p {
		if r := replay(p[:n], &id, 8); r.count != n/recordLen {
			t.Fatalf("cut at %d: %d records count", n, r.count)
		}
	}
	other := [idLen]byte{8}
	if r := replay(p, &other, 8); r.count != 0 {
		t.Errorf("%d records of another journal count", r.count)
	}
}

func FuzzJournal(f *testing.F) {
	h := newHeader()
	h.root = chunk.Sum([]byte("root"))
	f.Add(append(h.encode(), records(&h.id, rec{'W', 1}, rec{'S', 1}, rec{'T', 0})...))
	f.Add(h.encode())
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := parseHeader(p)
		if err != nil {
			return
		}
		if !bytes.Equal(h.encode(), p[:headerLen]) {
			t.Errorf("header %x encodes as %x", p[:headerLen], h.encode())
		}
		r := replay(p[headerLen:], &h.id, 16)
		if r.count*recordLen > len(p)-headerLen || r.covered > r.count {
			t.Errorf("%d records in %d bytes, %d covered", r.count, len(p), r.covered)
		}
		for i := range 16 {
			if (r.flushed.Has(i) || r.doubt.Has(i)) && !r.have.Has(i) {
				t.Errorf("chunk %d is not there, but flushed %v, in doubt %v", i, r.flushed.Has(i), r.doubt.Has(i))
			}
		}
	})
}

func BenchmarkReplay(b *testing.B) {
	id := [idLen]byte{1}
	rs := make([]rec, 1_000_000)
	for i := range rs {
		rs[i] = rec{'W', uint32(i)}
	}
	p := records(&id, rs...)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		replay(p, &id, len(rs))
	}
}
