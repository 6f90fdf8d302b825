// Package reuse finds chunks of a share in files that lie on disk already: an
// older version, a half download of another tool, files under other names. What
// it finds it has read and hashed; nothing else about a file is believed.
//
// It looks where each chunk would lie, then in files that have the size of one
// that is missing, and then in everything else, cut as the share was cut, so that
// content is also found where it has shifted.
package reuse

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A Sink takes what is found, from several goroutines at once. *store.Store is one.
type Sink interface {
	// Write takes chunk i, whose bytes are p.
	Write(i int, p []byte) error
	// WriteFrom is Write for bytes that were read at off from src, so that the
	// two may share their space on disk. src may have changed since.
	WriteFrom(i int, p []byte, src store.File, off int64) error
}

// A Place is a file or a folder that is searched.
type Place struct {
	Disk store.Disk
	Name string // in the disk; "." is all of it
}

// Options say what Find looks for, and where. All but Cache, Avoid and Report are
// required.
type Options struct {
	Manifest *manifest.Manifest
	Want     *chunk.Bitfield // what is looked for; Find clears what it finds
	Places   []Place         // in order of preference
	Sink     Sink
	Cache    manifest.Cache                         // of what files hashed to, so that those without a hit are not read again
	Avoid    func(name string, i store.Info) bool   // whether to stay out of a file or folder; name is its last component
	Report   func(read, found int64)                // told a few times a second, from one goroutine at a time
	Warn     func(place, name string, reason error) // told of what cannot be read
}

// A finder is one Find while it runs.
type finder struct {
	o     Options
	m     *manifest.Manifest
	ctx   context.Context // ends with the first error; held for the run only
	fail  context.CancelCauseFunc
	bases []base

	mu     sync.Mutex
	index  []int32 // chunks that were wanted at first, by hash
	want   *chunk.Bitfield
	done   map[fileID]struct{}  // files that have nothing more to give
	likely map[int32][]location // small files of the share, and files that may be the same
	noted  int                  // locations in likely
	byName map[nameKey][]int32  // small files of the share that are not where they should be
	bySize map[int64][]int32    // the same
	warned map[string]struct{}  // names of what could not be read
	sizes  map[int64]struct{}   // of the large files of the share that miss something
	read   atomic.Int64         // bytes
	found  atomic.Int64         // bytes
	said   time.Time            // when Report was last called
	bufs   sync.Pool            // of []byte, each with room for what is being cut
}

type fileID struct{ dev, ino uint64 }

// errNothingLeft ends a search that has found everything.
var errNothingLeft = errors.New("everything is found")

// Find searches the places, and gives each wanted chunk that it finds to the sink,
// once. Its error is that of the sink or of ctx: what cannot be read is not found,
// that is all.
func Find(ctx context.Context, o Options) error {
	if o.Want.None() {
		return nil
	}
	f := &finder{
		o: o, m: o.Manifest, want: o.Want,
		done: map[fileID]struct{}{}, warned: map[string]struct{}{}, sizes: map[int64]struct{}{},
	}
	f.ctx, f.fail = context.WithCancelCause(ctx)
	defer f.fail(nil)
	longest := f.m.Cutter().Max()
	f.bufs.New = func() any { b := make([]byte, longest+longest/2+windowLen); return &b }
	f.sort()
	for _, p := range o.Places {
		f.bases = append(f.bases, f.basesOf(p)...)
	}
	for _, search := range []func() error{f.atPlace, f.bySizes, f.byContent, f.together} {
		if err := search(); err != nil && !errors.Is(err, errNothingLeft) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if f.nothingLeft() {
			break
		}
	}
	f.report(true)
	return nil
}

// windowLen is how much is read at once.
const windowLen = 256 << 10

// workers returns how many goroutines read at once: each holds a longest chunk and
// a half.
func (f *finder) workers() int {
	return max(1, min(runtime.GOMAXPROCS(0), 4, maxBuffers/f.m.Cutter().Max()))
}

const maxBuffers = 32 << 20

// sort makes the index of hashes.
func (f *finder) sort() {
	f.index = make([]int32, 0, f.want.Count())
	for r := range f.want.Ranges() {
		for i := r.First; i < r.End(); i++ {
			f.index = append(f.index, int32(i))
		}
	}
	slices.SortFunc(f.index, func(a, b int32) int {
		x, y := f.m.ChunkHash(int(a)), f.m.ChunkHash(int(b))
		return slices.Compare(x[:], y[:])
	})
}

// lookup returns the chunks, wanted or found meanwhile, that have a hash. The
// index never changes while a search runs.
func (f *finder) lookup(h chunk.Hash) []int32 {
	cmp := func(i int32, h chunk.Hash) int {
		x := f.m.ChunkHash(int(i))
		return slices.Compare(x[:], h[:])
	}
	first, ok := slices.BinarySearchFunc(f.index, h, cmp)
	if !ok {
		return nil
	}
	end := first + 1
	for end < len(f.index) && f.m.ChunkHash(int(f.index[end])) == h {
		end++
	}
	return f.index[first:end]
}

// take gives chunk i, whose bytes are p, to the sink, unless it was found before.
func (f *finder) take(i int, p []byte, src store.File, off int64) error {
	f.mu.Lock()
	fresh := f.want.Clear(i)
	f.mu.Unlock()
	if !fresh {
		return nil
	}
	var err error
	if src != nil {
		err = f.o.Sink.WriteFrom(i, p, src, off)
	} else {
		err = f.o.Sink.Write(i, p)
	}
	if err != nil {
		return err
	}
	f.found.Add(int64(len(p)))
	return nil
}

// takeAll gives all chunks that have the hash of p to the sink.
func (f *finder) takeAll(h chunk.Hash, p []byte, src store.File, off int64) error {
	for _, i := range f.lookup(h) {
		if err := f.take(int(i), p, src, off); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) wanted(i int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.want.Has(i)
}

// wants reports whether any of the chunks [first, end) is missing.
func (f *finder) wants(first, end int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.want.NextSet(first)
	return i >= 0 && i < end
}

func (f *finder) nothingLeft() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.want.None()
}

// noteRead counts bytes that were read, and says how far it is.
func (f *finder) noteRead(n int) {
	f.read.Add(int64(n))
	f.report(false)
}

func (f *finder) report(last bool) {
	if f.o.Report == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); last || now.Sub(f.said) >= 200*time.Millisecond {
		f.said = now
		f.o.Report(f.read.Load(), f.found.Load())
	}
}

// maxWarned bounds what is remembered of unreadable names.
const maxWarned = 100

// unreadable tells of a name that cannot be read, once.
func (f *finder) unreadable(p Place, name string, err error) {
	if f.o.Warn == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	key := p.Disk.Path() + "\x00" + name
	f.mu.Lock()
	_, known := f.warned[key]
	known = known || len(f.warned) >= maxWarned
	if !known {
		f.warned[key] = struct{}{}
	}
	f.mu.Unlock()
	if !known {
		f.o.Warn(p.Disk.Path(), name, err)
	}
}

func (f *finder) isDone(i store.Info) bool {
	if i.Ino == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, done := f.done[fileID{i.Dev, i.Ino}]
	return done
}

func (f *finder) setDone(i store.Info) {
	if i.Ino == 0 {
		return
	}
	f.mu.Lock()
	f.done[fileID{i.Dev, i.Ino}] = struct{}{}
	f.mu.Unlock()
}

// large reports whether a file of this size is cut on its own.
func (f *finder) large(size int64) bool { return size >= int64(f.m.Cutter().Size()) }
