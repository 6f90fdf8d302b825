package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/pack"
)

// PackOptions say what Pack writes. Of Get it takes Root, Manifest, Addrs,
// Sources, WebSource, Discover, Limits, MaxPeers, the timeouts, Network and Events.
type PackOptions struct {
	Get  GetOptions
	Path string // of the pack
	Size int64  // bytes that it may have at most; 0: no limit

	// MissingOf are sources of the one for whom the pack is made: what they
	// have, read and hashed, is left out.
	MissingOf []Source
}

// A PackResult tells how a pack became.
type PackResult struct {
	Manifest *manifest.Manifest
	Path     string
	Length   int64 // bytes of the pack
	Chunks   int   // in it
	Bytes    int64 // of these chunks
	Rest     int   // chunks that still are missing, for another pack
	Stats    Stats
}

// ErrNothingMissing is returned by Pack if what the pack is made for lacks nothing.
var ErrNothingMissing = errors.New("nothing is missing there")

// Pack fetches chunks of a share into a pack, from peers and other sources. What
// an earlier Pack to the same path has left is kept. Its errors are those of Get,
// and those of package pack.
func Pack(ctx context.Context, o PackOptions) (res *PackResult, err error) {
	g := &getter{o: o.Get, emit: serialised(o.Get.Events), began: time.Now(), wake: make(chan struct{}, 1), m: o.Get.Manifest}
	if g.m != nil {
		g.o.Root = g.m.Root()
		g.emit(Found{Manifest: g.m})
	}
	if g.o.StallTimeout == 0 {
		g.o.StallTimeout = g.o.Timeout
	}
	g.o.Port = 0 // it serves nobody
	g.under(ctx)
	var w *pack.Writer
	defer func() {
		g.stop()
		if w != nil { // nothing writes to it any more
			err = errors.Join(err, w.Close())
		}
	}()
	g.start()
	if g.m == nil {
		if err := g.askManifest(); err != nil {
			return nil, err
		}
	}
	if w, err = pack.Settle(g.ctx, o.Path, g.m); err != nil {
		return nil, err
	}
	want, err := g.missingOf(o.MissingOf)
	switch {
	case err != nil:
		return nil, err
	case w != nil:
		return g.packed(w, want, o.Path), nil
	}
	if want.None() {
		return nil, ErrNothingMissing
	}
	take, length, err := pack.Plan(g.m, want, o.Size)
	if err != nil {
		return nil, fmt.Errorf("a pack of %d bytes is %w; one needs %d", o.Size, err, length)
	}
	if w, err = pack.Create(g.ctx, o.Path, g.m); err != nil {
		return nil, err
	}
	if o.Size > 0 && w.Len()+rest(g.m, take, w.Has()) > o.Size { // an earlier line asked for more, or for other chunks
		return nil, &fs.PathError{Op: "open", Path: o.Path + pack.PartSuffix, Err: pack.ErrOther}
	}
	g.fill(w, take)
	select {
	case <-g.ctx.Done():
		return nil, context.Cause(g.ctx)
	case <-g.wake:
	}
	g.emit(Finishing{})
	if err := w.Finish(); err != nil {
		return nil, err
	}
	return g.packed(w, want, o.Path), nil
}

// rest returns the bytes that the chunks of take which has lacks need in a pack.
func rest(m *manifest.Manifest, take, has *chunk.Bitfield) (n int64) {
	for r := range take.Ranges() {
		for i := r.First; i < r.End(); i++ {
			if !has.Has(i) {
				n += pack.RecordLen(m.ChunkLen(i))
			}
		}
	}
	return n
}

// packed returns what came of it.
func (g *getter) packed(w *pack.Writer, want *chunk.Bitfield, path string) *PackResult {
	res := &PackResult{Manifest: g.m, Path: path, Length: w.Len(), Stats: g.sw.statsNow()}
	has := w.Has()
	for r := range want.Ranges() {
		for i := r.First; i < r.End(); i++ {
			if !has.Has(i) {
				res.Rest++
			}
		}
	}
	for r := range has.Ranges() {
		res.Chunks += r.N
		res.Bytes += g.m.ChunkOffset(r.End()) - g.m.ChunkOffset(r.First)
	}
	return res
}

// missingOf returns the chunks that none of the sources has.
func (g *getter) missingOf(sources []Source) (*chunk.Bitfield, error) {
	g.reuse.running.Store(true) // it reads; that nothing comes from peers means nothing
	defer g.reuse.running.Store(false)
	want := chunk.NewBitfield(g.m.NumChunks())
	want.Fill()
	for _, src := range sources {
		have, err := src.Open(g.ctx, g.m)
		var dead *DeadSourceError
		switch {
		case errors.As(err, &dead):
			continue // it has nothing
		case err != nil:
			return nil, err
		case have == nil:
			have = want.Clone()
		}
		for r := range have.Ranges() {
			for i := r.First; i < r.End(); i++ {
				if want.Has(i) && src.Fetch(g.ctx, i, io.Discard) == nil { // local sources hash what they give
					want.Clear(i)
				}
			}
			if g.ctx.Err() != nil {
				return nil, context.Cause(g.ctx)
			}
		}
	}
	return want, nil
}

// fill lets the swarm write chunks into w.
func (g *getter) fill(w *pack.Writer, take *chunk.Bitfield) {
	g.f = &fetch{failed: func(err error) { g.fail(err) }, complete: g.look}
	kept := w.Has()
	resumed := int64(0)
	total := int64(0)
	for i := range g.m.NumChunks() {
		switch {
		case !take.Has(i):
			kept.Set(i) // is not wanted
			continue
		case kept.Has(i):
			resumed += int64(g.m.ChunkLen(i))
		}
		total += int64(g.m.ChunkLen(i))
	}
	if resumed > 0 {
		g.emit(Resumed{Kept: resumed, Total: total})
	}
	g.sw.fetchInto(g.m, w, nil, kept, g.f)
	g.sw.mu.Lock()
	g.f.done, g.f.total = resumed, total
	if g.f.want.None() {
		g.look()
	}
	g.sw.mu.Unlock()
	for range min(runtime.GOMAXPROCS(0), 4) {
		g.crew.Go(g.sw.work)
	}
	g.openSources()
}
