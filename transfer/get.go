package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A barrier is due after this time or this many bytes, whichever comes first:
// so much may be fetched again after a power cut.
const (
	barrierTime  = 2 * time.Second
	barrierBytes = 64 << 20
)

// A getter is one Get while it runs.
type getter struct {
	o     GetOptions
	emit  func(Event)
	sw    *swarm
	dial  *dialler
	began time.Time

	ctx  context.Context // ends with the first reason to stop; see STYLE: held for the run only
	fail context.CancelCauseFunc

	online context.Context // ends when no peer is needed any more, or with ctx
	part   context.CancelFunc

	m      *manifest.Manifest
	from   string      // who sent it
	asking atomic.Bool // sources are searched for it
	sel    *manifest.Selection
	store  *store.Store
	survey *store.Survey // of what is at the final name; nil if nothing was
	f      *fetch
	wake   chan struct{} // nothing is wanted any more; capacity 1
	kept   int64
	reuse  reusing

	preparing atomic.Bool // what is there already is looked at; nobody is waited for

	out    atomic.Pointer[outlet] // of a stream
	origin *store.Origin          // what is served after the end

	crew crew.Crew // everything that Get starts
}

// Get fetches a share, or what the globs select of it, from all peers it can
// reach, and returns when it is complete, checked, flushed and under its final
// name. What an earlier Get of the same share to the same place has left is kept.
//
// If ctx ends, everything that came is checkpointed and the cause is returned.
// Other errors are *NoPeerError, *StalledError, *IntegrityError, those of
// package manifest for what cannot be accepted, and those of package store for
// what cannot be written; after each of them, Get may be called again and goes
// on. With o.Seed, Get announces Finished and then serves until ctx ends, which
// is no error.
func Get(ctx context.Context, o GetOptions) (*Result, error) {
	g, err := newGetter(ctx, o)
	if err != nil {
		return nil, err
	}
	defer g.fail(nil)
	return g.run()
}

// newGetter returns one whose fail must be called at the end.
func newGetter(ctx context.Context, o GetOptions) (*getter, error) {
	if o.StallTimeout == 0 {
		o.StallTimeout = o.Timeout
	}
	if o.Timeout <= 0 || o.StallTimeout <= 0 {
		return nil, fmt.Errorf("get: timeouts of %v and %v; they must be positive", o.Timeout, o.StallTimeout)
	}
	g := &getter{o: o, emit: serialised(o.Events), began: time.Now(), wake: make(chan struct{}, 1), m: o.Manifest}
	if g.m != nil {
		g.o.Root = g.m.Root()
	}
	g.under(ctx)
	o.Inspect.look(g.sw)
	return g, nil
}

// under makes what a getter runs with until ctx ends.
func (g *getter) under(ctx context.Context) {
	g.ctx, g.fail = context.WithCancelCause(ctx)
	g.online, g.part = context.WithCancel(g.ctx)
	g.sw = newSwarm(g.o.Root, g.o.Network, g.o.Port, g.emit)
	g.sw.limits, g.sw.peerMax = g.o.Limits.orNone(), orMax(g.o.MaxPeers)
	g.dial = &dialler{sw: g.sw}
}

func (g *getter) run() (res *Result, err error) {
	if err := g.known(); err != nil {
		return nil, err
	}
	if g.m != nil { // all that can be refused is refused before anybody is called
		if res, err := g.prepare(); res != nil || err != nil {
			return res, err
		}
	}
	defer func() {
		g.stop()
		if g.store != nil {
			err = errors.Join(err, g.store.Close())
		}
		if g.origin != nil {
			err = errors.Join(err, g.origin.Close())
		}
	}()
	g.start()
	if g.m == nil {
		if err := g.askManifest(); err != nil {
			return nil, err
		}
		if res, err := g.prepare(); res != nil || err != nil {
			return res, err
		}
	}
	g.fetch()
	if err := g.await(); err != nil {
		return nil, err
	}
	if res, err = g.finish(); err != nil || !g.o.Seed {
		return res, err
	}
	<-g.ctx.Done()
	res.Stats = g.sw.statsNow()
	return res, nil
}

// place returns the folder that the share goes into and, if it was given, the
// name that it gets there.
func (g *getter) place() (dir, name string) {
	if g.o.Output != "" {
		path := filepath.Clean(g.o.Output)
		return filepath.Dir(path), filepath.Base(path)
	}
	return cmp.Or(g.o.Dir, "."), ""
}

// known looks for a part of this share that lies at the place already: it has
// the manifest, so that nobody needs to be asked for it.
func (g *getter) known() error {
	if g.m != nil {
		g.emit(Found{Manifest: g.m})
		return nil
	}
	dir, name := g.place()
	d, err := store.OpenDisk(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	parts, err := store.Find(d)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Root != g.o.Root || name != "" && p.Final != name {
			continue
		}
		m, err := p.Manifest()
		if err != nil || m.Root() != g.o.Root {
			continue // damaged: the peers have it
		}
		g.m = m
		g.emit(Found{Manifest: m})
		return nil
	}
	return nil
}

// prepare checks what the manifest asks for and opens the store. The result is
// not nil if the share is there already.
func (g *getter) prepare() (*Result, error) {
	g.preparing.Store(true) // until fetch
	var err error
	if len(g.o.Only)+len(g.o.Exclude) > 0 {
		if g.sel, err = g.m.Select(g.o.Only, g.o.Exclude); err != nil {
			return nil, err
		}
	}
	if !g.o.AnyName || runtime.GOOS == "windows" {
		if err := g.m.CheckPortable(); err != nil {
			return nil, err
		}
	}
	dir, name := g.place()
	if name == "" {
		name = g.m.Name()
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, &store.DiskError{Op: "create", Path: dir, Err: err}
	}
	final := filepath.Join(dir, name)
	if g.o.Update {
		if res, err := g.upToDate(final, false); res != nil || err != nil {
			return res, err
		}
	}
	o := store.Options{
		Final: name, Manifest: g.m, Selection: g.sel, Request: g.o.Request, Recheck: g.o.Recheck,
		Replace: g.o.Update, KeepOld: g.o.KeepOld,
		Warn: func(text string) { g.emit(Warning{Text: text}) },
	}
	g.store, err = openStore(g.ctx, dir, o)
	switch {
	case !errors.Is(err, store.ErrExists):
	case g.o.Update: // Open has ended what an earlier update had begun, perhaps to another version
		if res, err := g.upToDate(final, true); res != nil || err != nil {
			return res, err
		}
		g.store, err = openStore(g.ctx, dir, o)
	default:
		res, merr := g.merge(dir, name, o)
		if res != nil || merr != nil {
			return res, merr
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	_, g.kept = g.store.Kept()
	if g.kept > 0 {
		g.emit(Resumed{Kept: g.kept, Total: g.size()})
	}
	return nil, g.findReusable(final)
}

// openStore opens a store in a folder, which it closes if it cannot.
func openStore(ctx context.Context, dir string, o store.Options) (*store.Store, error) {
	d, err := store.OpenDisk(dir)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, d, o)
	if err != nil {
		_ = d.Close() // nothing is open in it
		return nil, err
	}
	return st, nil
}

func (g *getter) size() int64 {
	if g.sel != nil {
		return g.sel.Size
	}
	return g.m.Size()
}

// start begins to dial and to accept.
func (g *getter) start() {
	g.sw.known = g.m != nil
	g.crew.Go(func() { g.sw.watch(g.ctx) })
	g.crew.Go(g.supervise)
	if g.o.Port > 0 {
		stop := g.o.Network.Accept(g.o.Root, func(c Conn) { _ = g.sw.join(g.online, c, nil) })
		g.crew.Go(func() {
			<-g.ctx.Done()
			g.sw.closeAll()
			stop()
		})
	}
	g.dial.follow(g.online)
	for _, a := range g.o.Addrs {
		g.dial.add(g.online, a)
	}
	if g.o.Discover != nil {
		g.crew.Go(func() { g.o.Discover(g.online, g.dial.learn) })
	}
}

// stop ends everything that was started and waits for it.
func (g *getter) stop() {
	g.fail(nil)
	g.sw.closeAll()
	g.dial.wait()
	if g.f != nil {
		// Sessions that were accepted are among the crew, and the workers end
		// only when no session can send them a chunk any more.
		g.sw.drained()
		close(g.f.results)
	}
	g.crew.Wait()
}

// askManifest waits until a peer has sent the manifest, or a source has it. Sources
// are asked beside the dialling: to look through damaged packs may take long.
func (g *getter) askManifest() error {
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	found := make(chan arrival, 1)
	g.asking.Store(true)
	g.crew.Go(func() {
		defer g.asking.Store(false)
		if a, ok := g.askSources(ctx); ok {
			found <- a
		}
	})
	var a arrival
	select {
	case a = <-found:
	case a = <-g.sw.manifests:
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	}
	from, text := a.from, a.text
	a = arrival{} // Parse has a copy, and needs the room of this one
	m, err := manifest.Parse(text)
	if err != nil {
		return err
	}
	g.m, g.from = m, from
	g.emit(Found{Manifest: m, From: from})
	return nil
}

// fetch lets the swarm fill the store.
func (g *getter) fetch() {
	g.f = &fetch{failed: func(err error) { g.fail(err) }, complete: g.look}
	kept := g.store.Have()
	g.reuse.addTo(kept)
	g.sw.fetchInto(g.m, g.store, g.sel, kept, g.f)
	g.preparing.Store(false)
	g.reuse.addTo(g.f.verified) // nobody asks before the sessions are told
	for range numWorkers() {
		g.crew.Go(g.sw.work)
	}
	g.crew.Go(g.barriers)
	g.openSources()
	g.look()
}

// numWorkers is how many hash and write.
func numWorkers() int { return min(runtime.GOMAXPROCS(0), 4) }

// look wakes await.
func (g *getter) look() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// await returns when every wanted chunk is written, and every doubtful one was
// hashed again.
func (g *getter) await() error {
	doubtful := g.store.Doubtful()
	checked := make(chan error, 1)
	if doubtful == nil || doubtful.None() {
		checked <- nil
	} else {
		g.crew.Go(func() { checked <- g.recheck(doubtful) })
	}
	sure := false
	for {
		select {
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		case err := <-checked:
			if err != nil {
				return err
			}
			sure = true
		case <-g.wake:
		}
		if sure && g.sw.seal() {
			return nil
		}
	}
}

// recheck hashes what an earlier boot of the machine has left.
func (g *getter) recheck(doubtful *chunk.Bitfield) error {
	buf := alignedBuffer(maxSegment)
	bad := 0
	for r := range doubtful.Ranges() {
		for i := r.First; i < r.First+r.N; i++ {
			if g.ctx.Err() != nil {
				return context.Cause(g.ctx)
			}
			right, err := g.sw.check(i, buf)
			if err == nil && right {
				err = g.store.Checked(i)
			}
			if err != nil {
				return err
			}
			if !right {
				bad++
			}
		}
	}
	if bad > 0 {
		were, are := "were", "are"
		if bad == 1 {
			were, are = "was", "is"
		}
		g.emit(Warning{Text: fmt.Sprintf("%s %s damaged by the restart of this machine and %s fetched again", numText(bad), were, are)})
	}
	return nil
}

// barriers makes durable what is written, every now and then.
func (g *getter) barriers() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	last, at := int64(0), time.Now()
	g.f.flushes.begin(0, at)
	defer g.f.flushes.end()
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-t.C:
			g.sw.mu.Lock()
			done, total, sealed := g.f.done, g.f.total, g.f.sealed
			g.sw.mu.Unlock()
			if sealed {
				return
			}
			due := now.Sub(at) >= barrierTime || done-last >= barrierBytes
			if done == last || !due && !nearlyDone(done-last, now.Sub(at), total-done) {
				continue
			}
			began := time.Now()
			err := g.store.Barrier()
			spend(&g.sw.spent.flush, began)
			if err != nil {
				g.fail(err)
				return
			}
			g.f.flushes.begin(done, began)
			last, at = done, time.Now()
		}
	}
}

// nearlyDone reports whether the rest comes within a few ticks if the last n bytes
// took d: a flush now leaves little for the one that the end has to wait for.
func nearlyDone(n int64, d time.Duration, rest int64) bool {
	const soon = 250 * time.Millisecond
	return n >= 4<<20 && float64(rest)*d.Seconds() <= float64(n)*soon.Seconds()
}

// finish gives the share its final name.
func (g *getter) finish() (*Result, error) {
	g.emit(Finishing{})
	if !g.o.Seed {
		// A peer that hangs, or a slow one that is still sending what somebody else
		// was faster with, has until everything is flushed to let us go.
		g.part()
		g.crew.Go(g.sw.closeAll)
	}
	if err := g.store.Finish(g.ctx); err != nil {
		return nil, err
	}
	dir, name := g.place()
	path := filepath.Join(dir, cmp.Or(name, g.m.Name()))
	if _, err := os.Lstat(path); err != nil && g.survey == nil {
		g.emit(Warning{Text: fmt.Sprintf("%s was moved while the share was fetched; %s is complete where that is now", dir, filepath.Base(path))})
	}
	res := g.result(path)
	if old := g.store.Old(); old != "" {
		res.Old = filepath.Join(dir, old)
	}
	g.merged(res)
	if p := g.store.Placed(); p != nil {
		g.sel = g.m.Choose(p.Entries) // only what has its own name can be served
	}
	if g.o.Seed {
		g.seed(path)
	}
	g.emit(Finished{Result: res})
	return res, nil
}

// seed serves from the finished files from now on.
func (g *getter) seed(path string) {
	src, err := located(g.m, g.sel, path, g.f.verified.Clone())
	if err != nil {
		g.emit(Warning{Text: "cannot go on serving: " + err.Error()})
		g.fail(nil)
		return
	}
	g.origin = store.NewOrigin(g.m, src)
	g.sw.mu.Lock()
	g.sw.content = g.origin
	g.sw.mu.Unlock()
	close(g.f.moved)
}

// located says where the files of a share lie that was fetched to path. Files
// that the selection left out have no path; nothing of them is offered.
func located(m *manifest.Manifest, sel *manifest.Selection, path string, hashed *chunk.Bitfield) (*manifest.Source, error) {
	src := &manifest.Source{Manifest: m, Hashed: hashed}
	for i, e := range m.Entries() {
		if e.Kind != manifest.File {
			continue
		}
		var f manifest.SourceFile
		if sel == nil || sel.Entries.Has(i) {
			f.Path = path
			if !m.IsFile() {
				f.Path = filepath.Join(path, filepath.FromSlash(e.Path))
			}
			fi, err := os.Lstat(f.Path)
			if err != nil {
				return nil, err
			}
			f.Stat = manifest.StatOf(fi)
		}
		src.Files = append(src.Files, f)
	}
	return src, nil
}

func (g *getter) result(path string) *Result {
	res := &Result{Manifest: g.m, Path: path, Size: g.size(), Kept: g.kept, Elapsed: time.Since(g.began), Stats: g.sw.statsNow()}
	res.Reused = g.reuse.size
	res.Fetched = res.Size - res.Kept - res.Reused
	return res
}
