package transfer

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
)

// content is what a swarm serves from: the user's own files, or a part.
type content interface {
	// ReadAt fills p with the bytes at off of chunk i. It never gives other
	// bytes than those that were hashed.
	ReadAt(i, off int, p []byte) error
}

// keeper is where a get puts chunks.
type keeper interface {
	content
	Write(i int, p []byte) error
	Drop(i int) error
	Complete(i int) bool
}

// How many peers one transfer has at once at most.
const maxPeers = 64

// How often the swarm looks at clocks: late requests, haves to pass on.
const tick = 50 * time.Millisecond

// A swarm is our side of one share: the connections to its peers, what we have
// of it, and, for a get, what we still want.
//
// mu guards everything below it and is held only for arithmetic, never while
// anything is read, written, hashed or sent.
type swarm struct {
	key     chunk.Hash
	network Network
	port    int
	emit    func(Event)
	limits  *Limits
	peerMax int // sessions at once

	mu       sync.Mutex
	m        *manifest.Manifest // nil until known
	content  content            // nil until m is known
	have     *chunk.Bitfield    // chunks that we offer
	known    bool               // the manifest is known, if not yet here: nobody is asked for it
	manAsked time.Time          // when a peer was last asked for it
	news     []int32            // chunks that we came to offer, oldest first
	sent     meter              // what all were sent,
	sentAt   time.Time          // until when that was measured
	reveal   reveal             // what a seed has shown of itself
	rnd      *rand.Rand
	sessions []*session
	peers    map[[32]byte]*PeerStats
	order    []*PeerStats // peers by arrival
	past     PeerStats    // sums of those that are not among them any more
	wasted   int64
	badHosts map[netip.Addr]int // how many banned peers each address had
	warned   map[string]bool    // what the user was told already
	closing  bool
	stop     chan struct{} // closed when closing is set
	lonely   chan struct{} // closed, and made anew, when somebody who gave leaves and nobody else gives
	held     atomic.Int32  // sessions whose bytes wait for our own limit

	learn     func(addr string) // takes a hint; nil if we dial nobody
	listeners int               // how often a peer said where it accepts connections

	manifests chan arrival // manifests with the right root

	get   *fetch // nil when we only serve
	spent spent  // where its time goes

	running sync.WaitGroup // sessions that were let in; entered with mu held and closing unset
}

// A fetch is the part of a swarm that wants chunks. The swarm's mu guards it.
type fetch struct {
	store     keeper
	buffers   *buffers
	pick      *picker
	want      *chunk.Bitfield // wanted and not written yet
	writing   *chunk.Bitfield // being written by a worker; a second copy must not be
	asked     []uint8         // how many sessions are asked for a chunk,
	due       []uint8         // and how many of them are not late with it
	inflight  int             // bytes that all sessions together owe,
	quiet     int             // those among them that do not come soon (see owesFor),
	numActive int             // and how many of them owe something
	crowded   bool            // somebody could not begin since the last tick, as buffers are few
	verified  *chunk.Bitfield // chunks whose bytes this run has hashed
	need      func(i int) int64
	done      int64 // bytes of the selection that are written,
	total     int64 // and that it has
	lastByte  time.Time

	flushes   flushes       // bounds what a power cut costs
	brokenOff int           // chunks that ended in the middle since one was whole and right
	meter     meter         // what all peers together deliver,
	meterAt   time.Time     // until when that was measured
	moved     chan struct{} // closed when the finished share is served instead of the part
	inOrder   bool          // a stream: the earliest chunk first,
	until     int           // and none from this one on yet
	sealed    bool          // complete: the store is being finished and must not change
	numTwice  int           // chunks that were asked for twice in the endgame,
	numMoved  int           // and from another peer instead
	corrupt   int           // last chunk that somebody sent wrong, or -2
	results   chan received
	failed    func(error) // ends the get
	complete  func()      // nothing is wanted any more
}

// maxBrokenOff is how many chunks in a row may end in the middle. After so many
// only whole ones count as a sign of life: somebody may send the beginning of one
// for ever.
const maxBrokenOff = 8

// An arrival is the text of a manifest, which hashes to the root.
type arrival struct {
	text []byte
	from string
}

// received is a whole chunk that waits to be hashed and written.
type received struct {
	from *session
	i    int
	buf  []byte
	req  request // what it answers
}

func newSwarm(key chunk.Hash, network Network, port int, emit func(Event)) *swarm {
	return &swarm{
		key: key, network: network, port: port, emit: emit,
		limits: &noLimits, peerMax: maxPeers,
		peers:     make(map[[32]byte]*PeerStats),
		rnd:       rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		stop:      make(chan struct{}),
		lonely:    make(chan struct{}),
		manifests: make(chan arrival, 1),
	}
}

// maxWarned bounds how many different warnings one transfer gives: a folder that
// went away would have one for each of its files.
const maxWarned = 100

// warn tells the user something, once.
func (sw *swarm) warn(text string) {
	sw.mu.Lock()
	fresh := !sw.warned[text] && len(sw.warned) < maxWarned
	if fresh {
		if sw.warned == nil {
			sw.warned = make(map[string]bool)
		}
		sw.warned[text] = true
	}
	sw.mu.Unlock()
	if fresh {
		sw.emit(Warning{Text: text})
	}
}

// refillAll lets every session that has room ask for more: of the last chunks first
// those that have shown how fast they are. Called with mu held.
func (sw *swarm) refillAll() {
	now := time.Now()
	all := sw.sessions
	if sw.get != nil && sw.get.pick.len() <= len(all) {
		all = slices.Clone(all)
		slices.SortStableFunc(all, func(a, b *session) int { return cmp.Compare(b.proven(), a.proven()) })
	}
	for _, s := range all {
		s.refill(now)
	}
}

// proven returns the rate that the peer has shown, or 0 while it owes us something.
func (s *session) proven() float64 {
	if s.overdue {
		return 0
	}
	return s.flow.usual()
}

// statsNow returns a copy of what was counted.
func (sw *swarm) statsNow() Stats {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.count(time.Now())
}

// count is statsNow, called with mu held.
func (sw *swarm) count(now time.Time) Stats {
	var t Stats
	t.Wasted = sw.wasted
	t.Received, t.Sent = sw.past.Received, sw.past.Sent
	for _, p := range sw.order {
		one := *p
		if p.Lines > 0 {
			one.Time += now.Sub(p.since)
		}
		t.Peers = append(t.Peers, one)
		t.Received += p.Received
		t.Sent += p.Sent
	}
	return t
}

// serve sets what we offer. have is taken over by the swarm.
func (sw *swarm) serve(m *manifest.Manifest, c content, have *chunk.Bitfield) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.m, sw.content, sw.have = m, c, have
	for _, s := range sw.sessions {
		s.begin()
	}
}

// fetchInto is serve for a get: sel says what is wanted, kept is what the store
// has of it.
func (sw *swarm) fetchInto(m *manifest.Manifest, st keeper, sel *manifest.Selection, kept *chunk.Bitfield, f *fetch) {
	n := m.NumChunks()
	f.store = st
	f.buffers = newBuffers(m.MaxChunkLen())
	f.pick = newPicker(n, sw.rnd)
	if f.pick.inOrder = f.inOrder; !f.inOrder {
		f.until = n
	}
	f.asked, f.due = make([]uint8, n), make([]uint8, n)
	f.verified = chunk.NewBitfield(n)
	f.need = neededBytes(m, sel)
	f.total = m.Size()
	if sel != nil {
		f.total = sel.Size
	}
	f.corrupt = -2
	f.moved = make(chan struct{})
	f.lastByte = time.Now()
	f.results = make(chan received, 1)
	f.want, f.writing = chunk.NewBitfield(n), chunk.NewBitfield(n)
	offer := chunk.NewBitfield(n)
	for i := range n {
		switch {
		case kept.Has(i):
			f.done += f.need(i)
			if st.Complete(i) {
				offer.Set(i)
			}
		case sel == nil || sel.Chunks.Has(i):
			f.want.Set(i)
			if i < f.until {
				f.pick.add(i)
			}
		}
	}
	sw.mu.Lock()
	sw.get = f
	sw.mu.Unlock()
	sw.serve(m, st, offer)
}

// neededBytes returns how many bytes of a chunk the selection wants.
func neededBytes(m *manifest.Manifest, sel *manifest.Selection) func(i int) int64 {
	if sel == nil {
		return func(i int) int64 { return int64(m.ChunkLen(i)) }
	}
	return func(i int) int64 {
		n := int64(0)
		for x := range m.Extents(i) {
			if sel.Entries.Has(x.Entry) {
				n += int64(x.Len)
			}
		}
		return n
	}
}

func (sw *swarm) manifestNow() *manifest.Manifest {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.m
}

// watch looks after late requests and spreads haves until ctx ends.
func (sw *swarm) watch(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			var stalled []*session
			sw.mu.Lock()
			for _, s := range sw.sessions {
				s.addLines(now)
				if s.late(now) {
					stalled = append(stalled, s)
				}
				if s.tellsNews(now) {
					s.poke()
				}
				s.measure(now, now.Sub(last))
				if s.shown != nil {
					s.show(now)
				}
			}
			last = now
			sw.grant(now)
			sw.again(now)
			sw.askManifest(now)
			for _, s := range sw.sessions {
				if fresh := s.spread(now); fresh != nil {
					s.wmu.Lock()
					s.hints = append(s.hints, fresh...)
					s.wmu.Unlock()
					s.poke()
				}
			}
			if f := sw.get; f != nil {
				f.quiet, f.crowded = 0, false
				for _, s := range sw.sessions {
					if s.owesFor(quietTime, now) {
						f.quiet += s.inflight
					}
				}
				sw.refillAll() // what was late, or the endgame, may be for somebody else now
			}
			sw.mu.Unlock()
			for _, s := range stalled {
				s.end(errNoData)
			}
		}
	}
}

// closeAll says good-bye to everyone; no new session is let in.
func (sw *swarm) closeAll() {
	sw.mu.Lock()
	if !sw.closing {
		sw.closing = true
		close(sw.stop)
	}
	all := slices.Clone(sw.sessions)
	sw.mu.Unlock()
	var wg crew.Crew
	for _, s := range all {
		wg.Go(func() { _ = s.conn.Close(nil) })
	}
	wg.Wait()
}

// reasons says for each connected peer why nothing comes from it. Called
// without mu.
func (sw *swarm) reasons() []string {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	var rs []string
	for _, s := range sw.sessions {
		switch {
		case sw.m == nil:
			rs = append(rs, fmt.Sprintf("%s: has not sent the manifest yet", s.conn.RemoteAddr()))
		case sw.get == nil:
		case s.refused > 0:
			rs = append(rs, fmt.Sprintf("%s: refused %s; its files have changed", s.conn.RemoteAddr(), numText(s.refused)))
		case len(s.queue) == 0:
			rs = append(rs, fmt.Sprintf("%s: offers nothing of what is missing (%s)", s.conn.RemoteAddr(), numText(sw.get.want.Count())))
		default:
			rs = append(rs, fmt.Sprintf("%s: asked for %s, sends nothing", s.conn.RemoteAddr(), numText(len(s.queue))))
		}
	}
	slices.SortFunc(rs, cmp.Compare)
	return rs
}

// numText returns "1 chunk", "2 chunks".
func numText(n int) string {
	if n == 1 {
		return "1 chunk"
	}
	return fmt.Sprintf("%d chunks", n)
}

// seal reports whether nothing is wanted any more, and if so lets nothing
// change the store from now on.
func (sw *swarm) seal() bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.get.want.None() {
		sw.get.sealed = true
	}
	return sw.get.sealed
}

// progress returns how far a get is, and how long no byte has come; that is
// negative once it is sealed.
func (sw *swarm) progress(began, now time.Time) (p Progress, idle time.Duration) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	p.Peers = len(sw.sessions)
	f := sw.get
	if f == nil || sw.m == nil {
		return p, now.Sub(began)
	}
	p.Done, p.Total = f.done, f.total
	if f.sealed {
		return p, -1
	}
	if sw.held.Load() > 0 && f.brokenOff < maxBrokenOff {
		f.lastByte = now // they came; it is we who hold them up
	}
	return p, now.Sub(f.lastByte)
}

// lastCorrupt returns a chunk that somebody sent wrong; -1 is the manifest.
func (sw *swarm) lastCorrupt() int {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.get == nil {
		return -1
	}
	return sw.get.corrupt
}

// refusedByAll reports whether every connected peer has refused, or does not
// have, what is missing, and at least one has refused. If nobody else can come,
// that they do not have it is enough.
func (sw *swarm) refusedByAll(nobodyElse bool) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	refused := 0
	for _, s := range sw.sessions {
		if s.inflight > 0 {
			return false
		}
		refused += s.refused
	}
	return refused > 0 || nobodyElse && len(sw.sessions) > 0
}

// nobodyEver reports whether no peer was ever connected.
func (sw *swarm) nobodyEver() bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.order) == 0
}

// drained waits until every session has ended. No new one can begin: the swarm
// is closing.
func (sw *swarm) drained() { sw.running.Wait() }
