package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
)

// A Source is anything but a peer that can give the bytes of a share: a web
// server, a folder. What it gives is checked like a peer's. A Source is used by
// one get at a time; Fetch may be called by several goroutines.
type Source interface {
	// Open is called before anything is fetched, and again after Fetch has
	// failed. It returns which chunks the source has; nil is all.
	Open(ctx context.Context, m *manifest.Manifest) (*chunk.Bitfield, error)
	// Fetch writes the bytes of chunk i to w, and nothing else. An error that
	// is a *GoneError says that the source lacks this chunk; after any other it
	// is left alone for a while.
	Fetch(ctx context.Context, i int, w io.Writer) error
	// Width is how many chunks may be fetched at once, at least 1.
	Width() int
	// String names the source for messages: no secrets.
	String() string
}

// A GoneError reports that a source does not have a chunk, or has other bytes.
type GoneError struct{ Err error }

func (e *GoneError) Error() string { return e.Err.Error() }
func (e *GoneError) Unwrap() error { return e.Err }

// A DeadSourceError reports that it is of no use to ask a source again.
type DeadSourceError struct{ Err error }

func (e *DeadSourceError) Error() string { return e.Err.Error() }
func (e *DeadSourceError) Unwrap() error { return e.Err }

// sourceBudget bounds the bytes that all sources together fetch ahead; each may
// always fetch one chunk.
const sourceBudget = 32 << 20

// A sourceConn makes a Source a peer that has chunks and wants none, so that
// picking, deadlines, blame and statistics are the same for both.
type sourceConn struct {
	src  Source
	m    *manifest.Manifest
	have *chunk.Bitfield // nil: all
	id   [32]byte

	budget int // bytes that it fetches ahead, beside the first chunk

	mu     sync.Mutex
	queue  []*sourceJob // what was asked for, in order
	rtt    time.Duration
	closed error
	wake   chan struct{} // something has changed; capacity 1
	done   chan struct{} // closed by Close
}

// A sourceJob is one chunk that is asked for. The conn's mu guards it.
type sourceJob struct {
	i       int
	began   bool
	stop    context.CancelFunc // ends its Fetch; nil before that began
	buf     []byte             // what has come
	sent    int                // and was handed on
	ended   bool
	err     error
	dropped bool
}

var errSourceClosed = errors.New("closed")

// openSource returns a Conn for src, which fetches ahead at most budget bytes.
func openSource(ctx context.Context, src Source, m *manifest.Manifest, budget int) (*sourceConn, error) {
	have, err := src.Open(ctx, m)
	if err != nil {
		return nil, err
	}
	return &sourceConn{
		src: src, m: m, have: have, budget: budget, id: chunk.Sum([]byte("source " + src.String())),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}, nil
}

func (c *sourceConn) ID() [32]byte       { return c.id }
func (c *sourceConn) RemoteAddr() string { return c.src.String() }
func (c *sourceConn) Dialled() bool      { return true }

func (c *sourceConn) RTT() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rtt
}

func (c *sourceConn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run fetches what is wanted, several chunks at once, and hands it on in the
// order in which it was asked for.
func (c *sourceConn) Run(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var fetching crew.Crew
	defer fetching.Wait()
	defer cancel()
	if c.have == nil {
		if err := h.HaveAll(); err != nil {
			return err
		}
	} else if err := h.Have(slices.Collect(c.have.Ranges())); err != nil {
		return err
	}
	for {
		c.begin(ctx, &fetching)
		if err := c.deliver(h); err != nil {
			return err
		}
		select {
		case <-c.wake:
		case <-c.done:
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.closed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin starts to fetch what may be on its way now.
func (c *sourceConn) begin(ctx context.Context, fetching *crew.Crew) {
	width := max(1, min(c.src.Width(), c.budget/max(c.m.MaxChunkLen(), 1)))
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, j := range c.queue {
		if k >= width {
			return
		}
		if j.began {
			continue
		}
		var jctx context.Context
		j.began = true
		jctx, j.stop = context.WithCancel(ctx)
		j.buf = make([]byte, 0, c.m.ChunkLen(j.i))
		fetching.Go(func() { c.fetch(jctx, j) })
	}
}

func (c *sourceConn) fetch(ctx context.Context, j *sourceJob) {
	began := time.Now()
	err := c.src.Fetch(ctx, j.i, &sourceWriter{c, j, began})
	c.mu.Lock()
	if err == nil && len(j.buf) < cap(j.buf) {
		err = fmt.Errorf("chunk %d: %d of %d bytes: %w", j.i, len(j.buf), cap(j.buf), io.ErrUnexpectedEOF)
	}
	j.ended, j.err = true, err
	j.stop()
	c.mu.Unlock()
	c.poke()
}

// A sourceWriter takes the bytes of one chunk.
type sourceWriter struct {
	c     *sourceConn
	j     *sourceJob
	began time.Time
}

func (w *sourceWriter) Write(p []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	j := w.j
	if len(p) > cap(j.buf)-len(j.buf) {
		return 0, &GoneError{fmt.Errorf("chunk %d: more than its %d bytes", j.i, cap(j.buf))}
	}
	if len(j.buf) == 0 {
		if d := time.Since(w.began); w.c.rtt == 0 || d < w.c.rtt {
			w.c.rtt = d
		}
	}
	j.buf = append(j.buf, p...)
	w.c.poke()
	return len(p), nil
}

// deliver hands on what has come for the chunk whose turn it is, and for those
// behind it if it is whole.
func (c *sourceConn) deliver(h Handler) error {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.mu.Unlock()
			return nil
		}
		j := c.queue[0]
		if j.dropped && j.sent == 0 { // what has begun to go out goes on: the other side expects it
			c.pop()
			c.mu.Unlock()
			continue
		}
		p := j.buf[j.sent:min(len(j.buf), j.sent+maxSegment)]
		off, ended, err := j.sent, j.ended, j.err
		j.sent += len(p)
		whole := j.sent == cap(j.buf) && j.began
		if whole || len(p) == 0 && ended {
			c.pop()
		}
		c.mu.Unlock()

		var gone *GoneError
		switch {
		case len(p) > 0:
			buf, err := h.Segment(j.i, off, len(p))
			if err != nil {
				return err
			}
			copy(buf, p)
			if err := h.Received(j.i, off, len(p)); err != nil {
				return err
			}
		case !ended:
			return nil // more is to come
		case j.dropped && errors.Is(err, context.Canceled):
		case errors.As(err, &gone):
			if err := h.Gone([]chunk.Range{{First: j.i, N: 1}}); err != nil {
				return err
			}
		default:
			return cmp.Or(err, errSourceClosed)
		}
	}
}

// pop takes the first job out, and lets the next begin. Called with mu held.
func (c *sourceConn) pop() {
	if c.queue[0].stop != nil {
		c.queue[0].stop()
	}
	c.queue = c.queue[1:]
	c.poke()
}

func (c *sourceConn) SendWant(rs []chunk.Range) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rs {
		for i := r.First; i < r.End(); i++ {
			c.queue = append(c.queue, &sourceJob{i: i})
		}
	}
	c.poke()
	return nil
}

func (c *sourceConn) SendCancel(rs []chunk.Range) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.queue {
		for _, r := range rs {
			if r.First > j.i || j.i >= r.End() || j.sent > 0 {
				continue
			}
			j.dropped = true
			if j.stop != nil {
				j.stop()
			}
		}
	}
	c.poke()
	return nil
}

func (c *sourceConn) Close(reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
	default:
		c.closed = reason
		close(c.done)
	}
	return nil
}

// A source wants nothing, and is told nothing.

func (*sourceConn) SendHaveAll() error              { return nil }
func (*sourceConn) SendHaves(*chunk.Bitfield) error { return nil }
func (*sourceConn) SendHave([]chunk.Range) error    { return nil }
func (*sourceConn) SendGone([]chunk.Range) error    { return nil }
func (*sourceConn) SendWantManifest() error         { return nil }
func (*sourceConn) SendManifest(int64) error        { return nil }
func (*sourceConn) SendData(int, int, []byte) error { return nil }
func (*sourceConn) SendPeers([]string) error        { return nil }
func (*sourceConn) SendListen(int) error            { return nil }
func (*sourceConn) Flush() error                    { return nil }

var _ Conn = (*sourceConn)(nil)

// maxWrong is how many wrong chunks a source may give that has not given a right
// one: then it holds something else.
const maxWrong = 8

// distrust notes that a source gave wrong bytes for chunk i. It is not its
// enemy's choice, as with a peer: one file of a folder may be another version,
// one place of a stick damaged. So the source loses the chunk and keeps the rest.
func (sw *swarm) distrust(s *session, i, n int) error {
	sw.mu.Lock()
	sw.wasted += int64(n)
	s.wrong++
	s.stats.Banned = s.wrong >= maxWrong && s.stats.Used == 0
	useless := s.stats.Banned
	sw.mu.Unlock()
	if useless {
		s.end(&CorruptError{Index: i})
		return nil
	}
	sw.warn(fmt.Sprintf("%s has other bytes than the share in places; those come from elsewhere", s.conn.RemoteAddr()))
	if err := s.Gone([]chunk.Range{{First: i, N: 1}}); err != nil {
		s.end(err)
	}
	return nil
}

// openSources lets the sources give what they have.
func (g *getter) openSources() {
	sources := slices.Clone(g.o.Sources)
	if g.o.WebSource != nil {
		for _, url := range g.m.Web() {
			src, err := g.o.WebSource(url)
			if err != nil {
				g.emit(Warning{Text: "the manifest names a web source that cannot be used: " + err.Error()})
				continue
			}
			sources = append(sources, src)
		}
	}
	for _, src := range sources {
		g.dial.addSource(g.online, src, g.m, sourceBudget/len(sources))
	}
}

// sourcePatience is how long a get that knows nothing but sources, all of which
// are of no use, hopes that a peer may turn up.
const sourcePatience = 5 * time.Second

// onlySources reports whether nobody named a peer.
func (g *getter) onlySources() bool {
	m := g.sw.manifestNow()
	return m != nil && len(g.o.Addrs) == 0 && len(g.o.Sources)+len(m.Web()) > 0
}

// askSources returns the manifest from the first source that has it, such as a
// folder with packs.
func (g *getter) askSources(ctx context.Context) (a arrival, ok bool) {
	for _, src := range g.o.Sources {
		has, ok := src.(interface {
			Manifest(ctx context.Context, root chunk.Hash) []byte
		})
		if !ok {
			continue
		}
		text := has.Manifest(ctx, g.o.Root)
		if text == nil || chunk.Sum(text) != g.o.Root {
			continue
		}
		if _, err := manifest.Parse(text); err == nil { // else whoever asks a peer for it hears why
			return arrival{text, src.String()}, true
		}
	}
	return a, false
}
