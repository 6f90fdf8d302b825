package manifest

import (
	"encoding/binary"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// The hash cache. A unit's key is the hash of all that decides its chunks: the
// cutter, and each file with what its stat was. A file that was changed within the
// clock's granularity before it was read could change again without a sign, so a
// unit that has one is not stored.
const (
	racyTime       = 50 * time.Millisecond
	racyTimeCoarse = 2 * time.Second // for files whose time stamps are whole seconds
)

func (h *hashing) keyOf(u *unit) chunk.Hash {
	hasher := chunk.NewHasher()
	defer hasher.Release()
	var num [8 * 6]byte
	add := func(ns ...uint64) {
		for i, n := range ns {
			binary.LittleEndian.PutUint64(num[8*i:], n)
		}
		hasher.Write(num[:8*len(ns)])
	}
	addString := func(s string) {
		add(uint64(len(s)))
		hasher.WriteString(s)
	}
	addString("shoal hash cache 1")
	addString(h.cutter.String())
	k := h.s.fileAt(u.start)
	add(uint64(u.start-h.s.offsets[k]), uint64(u.end-u.start))
	for ; k < len(h.s.offsets)-1 && h.s.offsets[k] < u.end; k++ {
		st, _ := h.s.stat(k)
		addString(h.b.entries[h.entries[k]].Path)
		add(uint64(st.Size), uint64(st.MTime), uint64(st.CTime), st.Dev, st.Ino)
	}
	return hasher.Sum()
}

const cachedChunkLen = 4 + len(chunk.Hash{})

// lookup takes the chunks of u from the cache, if it has them.
func (h *hashing) lookup(u *unit) bool {
	u.key = h.keyOf(u)
	if h.rehash {
		return false
	}
	value, ok := h.cache.Get(u.key)
	if !ok || len(value)%cachedChunkLen != 0 {
		return false
	}
	n := len(value) / cachedChunkLen
	if h.fixed && n != u.n {
		return false
	}
	cuts := make([]cut, n)
	off := u.start
	for i := range cuts {
		v := value[i*cachedChunkLen:]
		c := cut{start: off, len: int(binary.LittleEndian.Uint32(v))}
		copy(c.hash[:], v[4:])
		off += int64(c.len)
		last := i == n-1
		if c.len == 0 || c.len > h.cutter.Max() || !last && c.len < h.cutter.Min() {
			return false
		}
		cuts[i] = c
	}
	if off != u.end {
		return false
	}
	u.cached = true
	if h.fixed {
		for i, c := range cuts {
			h.hashes[u.first+i] = c.hash
		}
	} else {
		u.cuts = cuts
	}
	return true
}

// store puts the units that were hashed into the cache. It runs after all files
// have been found unchanged.
func (h *hashing) store() {
	size := int64(h.cutter.Size())
	for i := range h.units {
		u := &h.units[i]
		if u.cached || h.racy(u) {
			continue
		}
		var value []byte
		if h.fixed {
			value = make([]byte, 0, u.n*cachedChunkLen)
			for k := range u.n {
				length := min(size, u.end-u.start-int64(k)*size)
				value = binary.LittleEndian.AppendUint32(value, uint32(length))
				value = append(value, h.hashes[u.first+k][:]...)
			}
		} else {
			value = make([]byte, 0, len(u.cuts)*cachedChunkLen)
			for _, c := range u.cuts {
				value = binary.LittleEndian.AppendUint32(value, uint32(c.len))
				value = append(value, c.hash[:]...)
			}
		}
		h.cache.Put(u.key, value)
	}
}

// racy reports whether a file of u was changed so shortly before it was read that
// another change would not show in its stat.
func (h *hashing) racy(u *unit) bool {
	for k := h.s.fileAt(u.start); k < len(h.s.offsets)-1 && h.s.offsets[k] < u.end; k++ {
		st, _ := h.s.stat(k)
		limit := racyTime
		if st.MTime%1e9 == 0 && st.CTime%1e9 == 0 {
			limit = racyTimeCoarse
		}
		if newest := max(st.MTime, st.CTime); newest > u.began.Add(-limit).UnixNano() {
			return true
		}
	}
	return false
}
