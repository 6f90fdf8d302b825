package store

import (
	"bytes"
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
		name          string
		rs            []rec
		have, flushed []int
		count         int
	}{
		{"nothing", nil, nil, nil, 0},
		{"written", []rec{{'W', 3}, {'W', 1}}, []int{1, 3}, nil, 2},
		{"flushed", []rec{{'W', 3}, {'W', 1}, {'S', 1}, {'W', 2}}, []int{1, 2, 3}, []int{3}, 4},
		{"dropped", []rec{{'W', 3}, {'S', 1}, {'D', 3}}, nil, nil, 3},
		{"dropped before the barrier", []rec{{'W', 3}, {'D', 3}, {'S', 2}}, nil, nil, 3},
		{"tainted", []rec{{'W', 3}, {'S', 1}, {'W', 1}, {'W', 2}, {'T', 0}, {'W', 4}}, []int{3, 4}, []int{3}, 6},
		{"outside", []rec{{'W', 3}, {'W', 8}, {'W', 4}}, []int{3}, nil, 1},
		{"barrier ahead", []rec{{'W', 3}, {'S', 9}}, []int{3}, nil, 1},
		{"unknown kind", []rec{{'W', 3}, {'X', 0}, {'W', 4}}, []int{3}, nil, 1},
	} {
		have, flushed, count := replay(records(&id, c.rs...), &id, 8)
		if !equal(set(have), c.have) || !equal(set(flushed), c.flushed) || count != c.count {
			t.Errorf("%s: have %v, flushed %v, count %d", c.name, set(have), set(flushed), count)
		}
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Any single bit that flips, and any cut, ends the journal there at the latest.
func TestReplayDamaged(t *testing.T) {
	id := [idLen]byte{7}
	p := records(&id, rec{'W', 0}, rec{'W', 1}, rec{'S', 2}, rec{'W', 2}, rec{'D', 1}, rec{'W', 5})
	for bit := range len(p) * 8 {
		q := bytes.Clone(p)
		q[bit/8] ^= 1 << (bit % 8)
		if _, _, count := replay(q, &id, 8); count != bit/8/recordLen {
			t.Fatalf("bit %d flipped: %d records count", bit, count)
		}
	}
	for n := range p {
		if _, _, count := replay(p[:n], &id, 8); count != n/recordLen {
			t.Fatalf("cut at %d: %d records count", n, count)
		}
	}
	other := [idLen]byte{8}
	if _, _, count := replay(p, &other, 8); count != 0 {
		t.Errorf("%d records of another journal count", count)
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
		have, flushed, count := replay(p[headerLen:], &h.id, 16)
		if count*recordLen > len(p)-headerLen || flushed.Count() > have.Count() {
			t.Errorf("%d records, %d of %d flushed", count, flushed.Count(), have.Count())
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
