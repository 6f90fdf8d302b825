package reuse

import (
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// Small files share chunks, and a chunk has one hash for all of them. When some of
// them were moved or renamed, they lie one here and one there: what has the right
// size, and best the right name too, is put together and hashed.

type nameKey struct {
	size int64
	name string
}

// A location is a file that may be one of the share's.
type location struct {
	place Place
	name  string
	named bool // it has the right name
}

const (
	maxLikely   = 4       // files that are remembered for one of the share's,
	maxNoted    = 300_000 // and for all of them together
	maxMissing  = 200_000 // small files that are looked for so
	maxAttempts = 16      // at one chunk
)

// prepareTogether notes which small files are looked for.
func (f *finder) prepareTogether() {
	f.likely = map[int32][]location{}
	f.byName, f.bySize = map[nameKey][]int32{}, map[int64][]int32{}
	num := 0
	for e, x := range f.m.Entries() {
		if x.Kind != manifest.File || x.Size == 0 || f.large(x.Size) || num >= maxMissing {
			continue
		}
		if first, end := f.m.Chunks(e); !f.wants(first, end) {
			continue
		}
		num++
		k := nameKey{x.Size, x.Path[strings.LastIndexByte(x.Path, '/')+1:]}
		f.byName[k] = append(f.byName[k], int32(e))
		f.bySize[x.Size] = append(f.bySize[x.Size], int32(e))
	}
}

// noteLikely notes a small file that may be one of those.
func (f *finder) noteLikely(p Place, name string, i store.Info) {
	full := func(ls []location, named bool) bool {
		return len(ls) >= maxLikely && (!named || ls[len(ls)-1].named)
	}
	note := func(e int32, named bool) {
		ls := f.likely[e]
		if full(ls, named) || f.noted >= maxNoted {
			return
		}
		f.noted++
		l := location{p, name, named}
		if named { // before those that only have the size
			k := slices.IndexFunc(ls, func(l location) bool { return !l.named })
			if k < 0 {
				k = len(ls)
			}
			ls = slices.Insert(ls, k, l)
		} else {
			ls = append(ls, l)
		}
		f.likely[e] = ls[:min(len(ls), maxLikely)]
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	for _, e := range f.byName[nameKey{i.Size, base}] {
		note(e, true)
	}
	// Many files may have the same small size. Then it says nothing.
	if es := f.bySize[i.Size]; len(es) <= 2*maxLikely {
		for _, e := range es {
			note(e, false)
		}
	}
}

// together tries to put the missing chunks of small files together.
func (f *finder) together() error {
	buf := make([]byte, f.m.MaxChunkLen())
	for i := f.want.NextSet(0); i >= 0; i = f.want.NextSet(i + 1) {
		if f.ctx.Err() != nil {
			return f.cause()
		}
		if err := f.assemble(i, buf[:f.m.ChunkLen(i)]); err != nil {
			return err
		}
	}
	return nil
}

// assemble looks for chunk i in what may be its files.
func (f *finder) assemble(i int, p []byte) error {
	var (
		extents []manifest.Extent
		choices [][]location
	)
	for x := range f.m.Extents(i) {
		e := &f.m.Entries()[x.Entry]
		if f.large(e.Size) {
			return nil
		}
		ls := f.where(x.Entry)
		if len(ls) == 0 {
			return nil
		}
		extents, choices = append(extents, x), append(choices, ls)
	}
	pick := make([]int, len(extents))
	for try := range maxAttempts {
		if try > 0 && !next(pick, choices) {
			return nil
		}
		if !f.fill(p, extents, choices, pick) {
			continue
		}
		if chunk.Sum(p) == f.m.ChunkHash(i) {
			return f.take(i, p, nil, 0)
		}
	}
	return nil
}

// where returns the files that may be an entry's: first what lies at its place.
func (f *finder) where(entry int) []location {
	e := &f.m.Entries()[entry]
	var out []location
	add := func(l location) {
		for _, o := range out {
			if o.place == l.place && o.name == l.name {
				return
			}
		}
		out = append(out, l)
	}
	for _, b := range f.bases {
		name := b.name(f.m, entry)
		if i, err := b.Disk.Lstat(name); err == nil && i.Mode.IsRegular() && i.Size == e.Size {
			add(location{b.Place, name, true})
		}
	}
	for _, l := range f.likely[int32(entry)] {
		add(l)
	}
	return out
}

// next goes on to the next combination. The files that have most choices vary
// least: of most of them the first is right.
func next(pick []int, choices [][]location) bool {
	for k := range pick {
		if pick[k]++; pick[k] < len(choices[k]) {
			return true
		}
		pick[k] = 0
	}
	return false
}

// fill reads a chunk from the files that were picked.
func (f *finder) fill(p []byte, extents []manifest.Extent, choices [][]location, pick []int) bool {
	for k, x := range extents {
		l := choices[k][pick[k]]
		file, _, err := open(l.place.Disk, l.name)
		if err != nil {
			return false
		}
		err = f.readAt(file, p[:x.Len], x.Off)
		_ = file.Close() // only read from
		if err != nil {
			return false
		}
		p = p[x.Len:]
	}
	return true
}
