package transfer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
)

// What a stream fetches ahead of the reader: so much, and at least so many
// chunks, so that several peers can be asked at once. It is all that a stream
// holds, beside the buffers of every get.
const (
	streamAhead     = 32 << 20
	minStreamChunks = 4
)

// A NotOneFileError reports a stream of a share, or of what the globs select of
// it, that is not exactly one file.
type NotOneFileError struct {
	Name  string
	Files int
}

func (e *NotOneFileError) Error() string {
	return fmt.Sprintf("a stream is one file, and %q has %d", e.Name, e.Files)
}

// A WriteError reports that the writer of a stream took no more.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write the stream: " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Stream fetches the one file of a share, or the one that the globs select, and
// writes it to w in order, each chunk as soon as it and all before it are
// verified. It asks all peers, a bounded way ahead of what w has taken, and waits
// while w does. Nothing is written to the disk, so nothing is kept for another
// try, and nothing is served to others.
//
// Of o, what concerns the place on disk, and seeding, is not used. The errors are
// those of Get, *NotOneFileError and *WriteError.
func Stream(ctx context.Context, o GetOptions, w io.Writer) (*Result, error) {
	o.Port = 0
	g, err := newGetter(ctx, o)
	if err != nil {
		return nil, err
	}
	defer g.fail(nil)
	return g.stream(w)
}

func (g *getter) stream(w io.Writer) (*Result, error) {
	defer g.stop()
	if g.m != nil {
		g.emit(Found{Manifest: g.m})
	}
	g.start()
	if g.m == nil {
		if err := g.askManifest(); err != nil {
			return nil, err
		}
	}
	if len(g.o.Only)+len(g.o.Exclude) > 0 {
		var err error
		if g.sel, err = g.m.Select(g.o.Only, g.o.Exclude); err != nil {
			return nil, err
		}
	}
	st, err := newStream(g.m, g.sel, w)
	if err != nil {
		return nil, err
	}
	g.out.Store(st)
	g.f = &fetch{failed: func(err error) { g.fail(err) }, complete: g.look, inOrder: true, until: st.until()}
	g.sw.fetchInto(g.m, st, g.sel, chunk.NewBitfield(g.m.NumChunks()), g.f)
	g.crew.Go(g.sw.work)
	g.openSources()
	sent := make(chan error, 1)
	g.crew.Go(func() { sent <- st.send(g.ctx, g.sw) })
	g.look()
	// The last chunk may be out before it is noted that it was written.
	for streamed := false; !streamed || !g.sw.seal(); {
		select {
		case <-g.ctx.Done():
			return nil, context.Cause(g.ctx)
		case <-g.wake:
			g.sw.seal()
		case err := <-sent:
			if err != nil {
				return nil, err
			}
			streamed = true
		}
	}
	res := g.result(g.m.Name())
	g.emit(Finished{Result: res})
	return res, nil
}

// An outlet is where a stream's chunks wait until it is their turn: a keeper
// that holds a bounded number of them, in memory.
type outlet struct {
	m           *manifest.Manifest
	entry       int // of the file
	first, last int // its chunks; last < first: it is empty
	w           io.Writer

	mu    sync.Mutex
	next  int            // the chunk that w gets next
	held  map[int][]byte // what the file has of chunks that came
	spare [][]byte
	since time.Time     // when a write began that has not ended; zero: none
	came  chan struct{} // capacity 1
}

func newStream(m *manifest.Manifest, sel *manifest.Selection, w io.Writer) (*outlet, error) {
	o := &outlet{m: m, entry: -1, last: -1, w: w, held: map[int][]byte{}, came: make(chan struct{}, 1)}
	files := 0
	for i, e := range m.Entries() {
		if e.Kind == manifest.File && (sel == nil || sel.Entries.Has(i)) {
			o.entry = i
			files++
		}
	}
	if files != 1 {
		return nil, &NotOneFileError{Name: m.Name(), Files: files}
	}
	for i := range m.NumChunks() {
		if sel != nil && !sel.Chunks.Has(i) {
			continue
		}
		if o.last < 0 {
			o.first = i
		}
		o.last = i
	}
	o.next = o.first
	return o, nil
}

// until returns the first chunk that may not be asked for yet. mu is held, or
// nobody else knows o.
func (o *outlet) until() int {
	return min(o.last+1, o.next+max(minStreamChunks, streamAhead/max(1, o.m.MaxChunkLen())))
}

// Write holds what the file has of a chunk.
func (o *outlet) Write(i int, p []byte) error {
	o.mu.Lock()
	var q []byte
	if k := len(o.spare); k > 0 {
		q, o.spare = o.spare[k-1][:0], o.spare[:k-1]
	}
	o.mu.Unlock()
	if q == nil {
		q = make([]byte, 0, len(p))
	}
	for x := range o.m.Extents(i) {
		if x.Entry == o.entry {
			q = append(q, p[:x.Len]...)
		}
		p = p[x.Len:]
	}
	o.mu.Lock()
	o.held[i] = q
	o.mu.Unlock()
	select {
	case o.came <- struct{}{}:
	default:
	}
	return nil
}

// Complete is false: what was passed on cannot be served.
func (o *outlet) Complete(int) bool { return false }

func (o *outlet) ReadAt(i, _ int, _ []byte) error {
	return fmt.Errorf("chunk %d was passed on", i)
}

func (o *outlet) Drop(int) error { return nil }

// send gives w one chunk after the other, and lets as many more be asked for.
func (o *outlet) send(ctx context.Context, sw *swarm) error {
	for {
		o.mu.Lock()
		if o.next > o.last {
			o.mu.Unlock()
			return nil
		}
		p, ok := o.held[o.next]
		if ok {
			o.since = time.Now()
		}
		o.mu.Unlock()
		if !ok {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-o.came:
			}
			continue
		}
		if err := o.write(ctx, p); err != nil {
			return err
		}
		o.mu.Lock()
		o.since = time.Time{}
		delete(o.held, o.next)
		o.spare = append(o.spare, p)
		o.next++
		next, until := o.next, o.until()
		o.mu.Unlock()
		sw.advance(next, until)
	}
}

// write gives p to w. A reader that takes nothing cannot be woken, so when ctx
// ends first, it is left behind: p is of no more use to anybody else then.
func (o *outlet) write(ctx context.Context, p []byte) error {
	done := make(chan error, 1)
	var one crew.Crew
	one.Go(func() {
		_, err := o.w.Write(p)
		done <- err
	})
	select {
	case err := <-done:
		if err != nil {
			return &WriteError{Err: err}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waiting reports whether the reader of the stream is what a get waits for.
func (o *outlet) waiting() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.since.IsZero() && time.Since(o.since) > time.Second
}

// advance lets chunks before until be asked for; those before next are done.
func (sw *swarm) advance(next, until int) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	f := sw.get
	f.pick.low = next
	f.lastByte = time.Now() // whoever takes what came is no reason to give up
	if f.until >= until {
		return
	}
	for ; f.until < until; f.until++ {
		if f.want.Has(f.until) {
			f.pick.add(f.until)
		}
	}
	sw.refillAll()
}

// touch notes that it is not the peers' fault that nothing comes.
func (sw *swarm) touch(now time.Time) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.get != nil {
		sw.get.lastByte = now
	}
}
