package manifest

import (
	"encoding/binary"
	"slices"

	"github.com/shoal-p2p/shoal/chunk"
)

// A ChangeKind says how an entry of one manifest differs from another.
type ChangeKind uint8

const (
	Added       ChangeKind = iota // it is new
	Removed                       // it is gone
	Changed                       // its content, its target or its kind is another
	Moved                         // it has another path, and the same content
	MetaChanged                   // only its mode or its time is another
)

var changeKinds = [...]string{"added", "removed", "changed", "moved", "meta"}

func (k ChangeKind) String() string {
	if int(k) < len(changeKinds) {
		return changeKinds[k]
	}
	return "unknown kind"
}

// A Change is one entry that differs.
type Change struct {
	Kind  ChangeKind
	Path  string // in the new manifest; of what was Removed, in the old one
	From  string // of what was Moved: its path in the old manifest
	Entry EntryKinds
	Size  int64 // of a file, in bytes: the new one, or the one that is gone
	Fetch int64 // bytes of a file that lie in chunks that the old manifest does not have
	Sure  bool  // the chunks say so; else it was told by size and time, and for Moved by the name too
}

// EntryKinds are what an entry was and is; they are equal unless its kind changed.
type EntryKinds struct{ Old, New Kind }

// A Comparison is what Compare found.
type Comparison struct {
	Changes   []Change // in the order of paths
	Fetch     int64    // bytes of the distinct chunks that only the new manifest has
	NumChunks int      // and how many they are
}

// Compare returns how two shares differ. What a file holds is known by its chunks.
// Small files share chunks, so one whose neighbours have changed is compared by its
// size and its time; Change.Sure tells the two apart. So is every file if the two
// were cut in different ways.
func Compare(a, b *Manifest) *Comparison {
	c := &comparer{a: a, b: b, had: make(map[chunk.Hash]struct{}, len(a.hashes))}
	for _, h := range a.hashes {
		c.had[h] = struct{}{}
	}
	out := &Comparison{}
	seen := map[chunk.Hash]struct{}{}
	for i, h := range b.hashes {
		if _, known := c.had[h]; known {
			continue
		}
		if _, twice := seen[h]; twice {
			continue
		}
		seen[h] = struct{}{}
		out.NumChunks++
		out.Fetch += int64(b.ChunkLen(i))
	}
	c.merge()
	c.findMoved()
	slices.SortFunc(c.changes, func(x, y Change) int { return ComparePaths(x.Path, y.Path) })
	out.Changes = c.changes
	return out
}

type comparer struct {
	a, b    *Manifest
	had     map[chunk.Hash]struct{}
	changes []Change
	gone    []int // files of a that b does not have at their path
	fresh   []int // and of b
}

// merge goes through both lists at once; they are in the same order.
func (c *comparer) merge() {
	i, j := 0, 0
	for i < len(c.a.entries) || j < len(c.b.entries) {
		order := 0
		switch {
		case i == len(c.a.entries):
			order = 1
		case j == len(c.b.entries):
			order = -1
		default:
			order = ComparePaths(c.a.entries[i].Path, c.b.entries[j].Path)
		}
		switch {
		case order < 0:
			if e := &c.a.entries[i]; e.Kind == File {
				c.gone = append(c.gone, i)
			} else {
				c.add(Change{Kind: Removed, Path: e.Path, Entry: EntryKinds{e.Kind, e.Kind}, Sure: true})
			}
			i++
		case order > 0:
			if e := &c.b.entries[j]; e.Kind == File {
				c.fresh = append(c.fresh, j)
			} else {
				c.add(Change{Kind: Added, Path: e.Path, Entry: EntryKinds{e.Kind, e.Kind}, Sure: true})
			}
			j++
		default:
			c.both(i, j)
			i, j = i+1, j+1
		}
	}
}

func (c *comparer) add(x Change) { c.changes = append(c.changes, x) }

// both compares two entries with the same path.
func (c *comparer) both(i, j int) {
	x, y := &c.a.entries[i], &c.b.entries[j]
	ch := Change{Kind: Changed, Path: y.Path, Entry: EntryKinds{x.Kind, y.Kind}, Size: y.Size, Fetch: c.fetch(j), Sure: true}
	switch {
	case x.Kind != y.Kind, x.Kind == Symlink && x.Target != y.Target, x.Size != y.Size:
		c.add(ch)
		return
	case x.Kind == File:
		same, sure := c.same(i, j)
		if ch.Sure = sure; !same {
			c.add(ch)
			return
		}
	}
	if x.Mode != y.Mode || x.Sec != y.Sec || x.Nsec != y.Nsec {
		ch.Kind = MetaChanged
		c.add(ch)
	}
}

// same reports whether two files of one size have the same content, and whether
// that is sure.
func (c *comparer) same(i, j int) (same, sure bool) {
	if c.key(c.a, i) == c.key(c.b, j) {
		return true, true
	}
	x, y := &c.a.entries[i], &c.b.entries[j]
	if c.a.cutter.String() == c.b.cutter.String() && c.alone(c.b, y) {
		return false, true
	}
	return x.Sec == y.Sec && x.Nsec == y.Nsec, false
}

// alone reports whether a file has its chunks for itself.
func (c *comparer) alone(m *Manifest, e *Entry) bool { return e.Size >= int64(m.cutter.Size()) }

// key returns a hash that two files only share if their content is the same.
func (c *comparer) key(m *Manifest, entry int) chunk.Hash {
	e := &m.entries[entry]
	h := chunk.NewHasher()
	defer h.Release()
	first, end := m.Chunks(entry)
	var num [16]byte
	binary.LittleEndian.PutUint64(num[:], uint64(e.Size))
	if first < end {
		binary.LittleEndian.PutUint64(num[8:], uint64(e.Offset-m.offsets[first]))
	}
	_, _ = h.Write(num[:]) // a hash takes everything
	for i := first; i < end; i++ {
		_, _ = h.Write(m.hashes[i][:])
	}
	return h.Sum()
}

// fetch returns how many bytes of an entry of b lie in chunks that a does not have.
func (c *comparer) fetch(entry int) (n int64) {
	e := &c.b.entries[entry]
	if e.Kind != File {
		return 0
	}
	first, end := c.b.Chunks(entry)
	for i := first; i < end; i++ {
		if _, known := c.had[c.b.hashes[i]]; !known {
			n += min(c.b.offsets[i+1], e.Offset+e.Size) - max(c.b.offsets[i], e.Offset)
		}
	}
	return n
}

// A likeness is what a small file that was moved has kept.
type likeness struct {
	size, sec int64
	nsec      uint32
	name      string
}

func likenessOf(e *Entry) likeness { return likeness{e.Size, e.Sec, e.Nsec, base(e.Path)} }

// findMoved matches the files that are gone with those that are new.
func (c *comparer) findMoved() {
	byKey, byLikeness := map[chunk.Hash][]int{}, map[likeness][]int{}
	for _, i := range c.gone {
		if e := &c.a.entries[i]; e.Size > 0 {
			k := c.key(c.a, i)
			byKey[k] = append(byKey[k], i)
			byLikeness[likenessOf(e)] = append(byLikeness[likenessOf(e)], i)
		}
	}
	used := map[int]bool{}
	take := func(is []int) (int, bool) {
		for _, i := range is {
			if !used[i] {
				used[i] = true
				return i, true
			}
		}
		return 0, false
	}
	var rest []int
	for _, j := range c.fresh {
		if i, ok := take(byKey[c.key(c.b, j)]); ok {
			c.moved(i, j, true)
		} else {
			rest = append(rest, j)
		}
	}
	comparable := c.a.cutter.String() == c.b.cutter.String()
	for _, j := range rest {
		e := &c.b.entries[j]
		if !comparable || !c.alone(c.b, e) { // else the chunks would have told
			if i, ok := take(byLikeness[likenessOf(e)]); ok {
				c.moved(i, j, false)
				continue
			}
		}
		c.add(Change{Kind: Added, Path: e.Path, Size: e.Size, Fetch: c.fetch(j), Sure: true})
	}
	for _, i := range c.gone {
		if e := &c.a.entries[i]; !used[i] {
			c.add(Change{Kind: Removed, Path: e.Path, Size: e.Size, Sure: true})
		}
	}
}

func (c *comparer) moved(i, j int, sure bool) {
	e := &c.b.entries[j]
	c.add(Change{Kind: Moved, Path: e.Path, From: c.a.entries[i].Path, Size: e.Size, Fetch: c.fetch(j), Sure: sure})
}
