package transfer

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// maxSegment is the most bytes that go out under one line, so that control
// lines never wait behind a chunk.
const maxSegment = 256 << 10

// maxBacklog bounds the bytes that a peer may have asked us for at once.
const maxBacklog = maxWindow + 4*chunk.MaxSize

// What all peers together may be asked for: the chunks that come in askedTime,
// and at least so many.
const (
	minAsked  = 12
	askedTime = 700 * time.Millisecond
)

// In the endgame at most one in maxTwice chunks, and a few, are asked for twice:
// what saves one leech some time costs all the others. Nor may requests be moved
// from peer to peer without end.
const (
	maxTwice = 400
	minTwice = 1
	maxMoved = 32
	minMoved = 4
)

// stallLimit is how long a peer that was asked may send nothing before it is
// dropped and dialled again.
const stallLimit = 60 * time.Second

// A session is one connection in the swarm. Its reader is the Conn's Run,
// which calls the Handler methods; its writer is the only goroutine that sends.
// So neither ever waits for the other, and two peers that both send cannot
// block each other.
type session struct {
	sw    *swarm
	conn  Conn
	stats *PeerStats
	more  chan<- struct{} // asks for another connection to this peer; nil: cannot

	// The swarm's mu guards these.
	started  bool            // the manifest is known and haves were exchanged with the picker
	seed     bool            // the peer has all chunks
	has      *chunk.Bitfield // what it has, if it is no seed; nil: nothing yet
	early    []chunk.Range   // haves that came before the manifest was known
	queue    []request       // what it was asked for, in order
	inflight int             // bytes of queue that are still wanted and did not come yet
	last     int             // the last chunk that it was asked for, or -1
	flow     flow
	broken   error     // a mistake that showed late; the writer ends the session
	overdue  bool      // its requests were late and are free for others
	refused  int       // chunks that it said are gone
	numMore  int       // how many more connections were asked for,
	lastMore time.Time // the last of them then
	told     int       // how much of the swarm's news it was sent,
	toldAt   time.Time // when that was

	// When the peer is served; see turns.go.
	turn   bool      // a chunk may be on its way to it
	turnAt time.Time // since then
	waits  time.Time // since when it waits for its turn; zero: it does not
	out    meter     // what it was sent during its turns
	outAt  time.Time // until when that was measured

	// What a seed shows the peer; see reveal.go.
	shown    *chunk.Bitfield // what it neither asked for yet nor got elsewhere; nil: everything is shown
	pace     int             // chunks that it takes in revealTime
	measured int64           // what it had taken when that was measured
	shownAt  time.Time
	busyAt   time.Time // when it was last seen waiting for something
	greeted  bool      // it was told what we have, or that is withheld
	met      bool      // it said what it has,
	metAt    time.Time // at this time

	listens   string          // host:port at which it accepts connections,
	listensAt time.Time       // since when we know
	toldPeers map[string]bool // addresses of others that it was told
	listeners int             // the swarm's, when it had been told of all
	hinted    time.Time       // when the batch began of which it may be told
	hintsLeft int             // so many more

	buf      []byte // the chunk that is arriving; nil between chunks
	filled   int    // how much of it is there
	manTried bool   // it was asked for the manifest,
	manAsked bool   // and has not answered yet

	// Only the reader uses these.
	man     []byte // the manifest that is arriving
	manSize int64

	// wmu guards what the writer is to send.
	wmu     sync.Mutex
	wants   []chunk.Range
	cancels []chunk.Range
	gones   []chunk.Range
	shows   []chunk.Range // what a seed tells of itself
	sending bool          // a chunk is on its way out
	hints   []string      // addresses of other peers
	serving []chunk.Range // what the peer wants, in order
	backlog int64         // bytes of serving
	askMan  bool          // ask for the manifest
	wantMan bool          // the peer asked for it
	hello   bool          // say what we have
	wake    chan struct{} // capacity 1
	err     error         // why the session ends
}

// A request is one chunk that the peer was asked for.
type request struct {
	i        int
	deadline time.Time
	dropped  bool // cancelled or refused: no longer counted, may still arrive
	late     bool // others may be asked for it too
}

func newSession(sw *swarm, c Conn) *session {
	return &session{sw: sw, conn: c, last: -1, wake: make(chan struct{}, 1)}
}

// poke wakes the writer.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail notes the reason for the end, if there is none yet.
func (s *session) fail(err error) {
	s.wmu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.wmu.Unlock()
}

// end closes the connection for a reason of ours.
func (s *session) end(err error) {
	s.fail(err)
	_ = s.conn.Close(err) // the reason is what counts
}

// preferred reports whether of two connections between the same peers, dialled
// from either side, both keep this one: the one that the smaller ID has dialled.
func (s *session) preferred() bool {
	us, them := s.sw.network.ID(), s.conn.ID()
	return (bytes.Compare(us[:], them[:]) < 0) == s.conn.Dialled()
}

// run reads and writes until the connection ends, and returns why.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.end(err)
		}
	})
	err := s.conn.Run(ctx, s)
	cancel()
	writer.Wait()
	s.sw.mu.Lock()
	if s.buf != nil {
		s.discard()
	}
	s.sw.mu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.err != nil {
		return s.err
	}
	return err
}

// begin starts the exchange of chunks: the manifest is known. Called with the
// swarm's mu held.
func (s *session) begin() {
	if s.started {
		return
	}
	s.started = true
	s.flow.chunkLen = max(s.sw.m.MaxChunkLen(), 1)
	s.told = len(s.sw.news)
	s.wmu.Lock()
	s.hello = true
	s.wmu.Unlock()
	if !s.seed {
		for _, r := range s.early {
			if err := s.addHave(r); err != nil {
				s.broken = err
				break
			}
		}
	}
	s.early = nil
	s.refill(time.Now())
	s.poke()
}

// addHave notes that the peer has r. Called with the swarm's mu held.
func (s *session) addHave(r chunk.Range) error {
	n := s.sw.m.NumChunks()
	if r.First+r.N > n {
		return fmt.Errorf("%w: %d of %d", errOutside, r.First+r.N-1, n)
	}
	if s.seed {
		return nil
	}
	if s.has == nil {
		s.has = chunk.NewBitfield(n)
	}
	f := s.sw.get
	for i := r.First; i < r.First+r.N; i++ {
		if s.has.Set(i) {
			s.sw.reveal.count(i, 1)
			if f != nil {
				f.pick.have(i)
			}
		}
		if s.shown != nil {
			s.shown.Clear(i)
		}
	}
	if s.has.All() {
		s.becomeSeed()
	}
	return nil
}

// becomeSeed forgets the single chunks: a peer that has all changes no order.
func (s *session) becomeSeed() {
	s.forgetHas()
	s.has, s.seed = nil, true
}

// forgetHas takes what the peer has out of the counts.
func (s *session) forgetHas() {
	if s.has == nil {
		return
	}
	f := s.sw.get
	for r := range s.has.Ranges() {
		for i := r.First; i < r.First+r.N; i++ {
			s.sw.reveal.count(i, -1)
			if f != nil {
				f.pick.lost(i)
			}
		}
	}
}

// refill asks for more if there is room for it. Called with the swarm's mu held.
func (s *session) refill(now time.Time) {
	f := s.sw.get
	if f == nil || !s.started || s.stats.Banned || (s.has == nil && !s.seed) {
		return
	}
	rtt := s.conn.RTT()
	window := s.flow.window(rtt, s.sw.numActive(s))
	if window < farWindow && s.flow.rate() == 0 && s.far() {
		window = farWindow
	}
	if s.overdue {
		window = 1 // what it owes comes first
	}
	room := min(window-s.inflight, s.sw.room(s))
	if room < s.flow.chunkLen && (s.inflight > 0 || room <= 0) {
		return
	}
	if s.inflight == 0 && !s.sw.mayStart(s) {
		return
	}
	for room > 0 {
		r := f.pick.pick(s.has, s.last, max(1, room/s.flow.chunkLen))
		if r.N == 0 {
			if s.inflight > 0 {
				return
			}
			if r = s.endgame(now, rtt); r.N == 0 {
				return
			}
		}
		s.ask(r, now, rtt)
		room = min(window-s.inflight, s.sw.room(s))
	}
}

// numActive returns how many peers were asked for something, or are about to be. Called with mu held.
func (sw *swarm) numActive(s *session) int {
	n := 0
	for _, o := range sw.sessions {
		if o.inflight > 0 || o == s {
			n++
		}
	}
	return n
}

// room returns how many bytes more may be asked for, of s or whom else: what
// comes in a moment. More would only wait in the queues of peers that
// serve others too, and be too late there for a better choice. Called with mu held.
func (sw *swarm) room(s *session) int {
	f := sw.get
	asked := 0
	for _, o := range sw.sessions {
		asked += o.inflight
	}
	limit := max(minAsked*s.flow.chunkLen, int(f.meter.rate*askedTime.Seconds()))
	if s.far() {
		limit = max(limit, maxLines*farWindow)
	}
	return limit - asked
}

// mayStart reports whether one more session may have chunks on their way: with
// large chunks there are fewer buffers than peers. Called with mu held.
func (sw *swarm) mayStart(s *session) bool {
	active := 0
	for _, o := range sw.sessions {
		if o != s && (o.inflight > 0 || o.buf != nil) {
			active++
		}
	}
	return active < max(1, sw.get.buffers.len()-2)
}

// ask puts r behind what the peer was asked already. Called with mu held.
func (s *session) ask(r chunk.Range, now time.Time, rtt time.Duration) {
	f := s.sw.get
	if s.inflight == 0 && !s.overdue {
		s.flow.start(now)
		defer s.addLines(now)
	}
	for i := r.First; i < r.First+r.N; i++ {
		s.inflight += s.sw.m.ChunkLen(i)
		f.asked[i]++
		s.queue = append(s.queue, request{i: i, deadline: now.Add(s.flow.patience(s.inflight, rtt))})
	}
	s.last = r.First + r.N - 1
	s.wmu.Lock()
	s.wants = append(s.wants, r)
	s.wmu.Unlock()
	s.poke()
}

// endgame chooses a chunk that another peer was asked for and that we would have
// sooner from this one. If its bytes have not begun to come, the other is not to
// send it any more; else both may, and the first answer wins. Called with the
// swarm's mu held.
func (s *session) endgame(now time.Time, rtt time.Duration) chunk.Range {
	f := s.sw.get
	if f.pick.len() > 0 {
		return chunk.Range{} // this peer has none of them, but another may
	}
	var slowest *session
	var worst time.Duration
	for _, o := range s.sw.sessions {
		if o == s || o.inflight == 0 {
			continue
		}
		if d := o.flow.eta(o.inflight, o.conn.RTT(), now); d > worst && s.anyOf(o.queue) {
			slowest, worst = o, d
		}
	}
	mine := s.flow.eta(s.flow.chunkLen, rtt, now)
	if slowest == nil || worst < mine+mine/2+2*time.Millisecond {
		return chunk.Range{}
	}
	for k := len(slowest.queue) - 1; k >= 0; k-- {
		q := &slowest.queue[k]
		if !s.couldSend(q) {
			continue
		}
		begun := k == 0 && slowest.buf != nil
		switch {
		case begun && f.numTwice <= len(f.asked)/maxTwice+minTwice:
			f.numTwice++
		case k == 0 && worst < 3*mine+300*time.Millisecond:
			continue // it may be on its way
		case !begun && f.numMoved <= len(f.asked)/maxMoved+minMoved:
			f.numMoved++
			slowest.drop(q)
			slowest.wmu.Lock()
			slowest.cancels = append(slowest.cancels, chunk.Range{First: q.i, N: 1})
			slowest.wmu.Unlock()
			slowest.poke()
		default:
			continue
		}
		return chunk.Range{First: q.i, N: 1}
	}
	return chunk.Range{}
}

// couldSend reports whether s may be asked for what q asks another peer for.
func (s *session) couldSend(q *request) bool {
	f := s.sw.get
	return !q.dropped && f.want.Has(q.i) && f.asked[q.i] < 2 && (s.seed || s.has.Has(q.i)) && !s.queued(q.i)
}

// anyOf reports whether s could send something of the queue of another peer.
func (s *session) anyOf(queue []request) bool {
	for k := range queue {
		if s.couldSend(&queue[k]) {
			return true
		}
	}
	return false
}

func (s *session) queued(i int) bool {
	for _, q := range s.queue {
		if q.i == i {
			return true
		}
	}
	return false
}

// release takes back everything that s was asked for; for good when it has
// left, else only so that others may be asked too. Called with mu held.
func (s *session) release(left bool) {
	f := s.sw.get
	for k := range s.queue {
		q := &s.queue[k]
		if q.dropped {
			continue
		}
		q.late = true
		if left && f.asked[q.i] > 0 {
			f.asked[q.i]--
		}
		if f.want.Has(q.i) && (!left || f.asked[q.i] == 0) {
			f.pick.add(q.i)
		}
	}
	if left {
		s.queue, s.inflight = nil, 0
	}
}

// giveBack makes chunk i free again after s sent it wrong. Called with mu held.
func (s *session) giveBack(i int) {
	f := s.sw.get
	if f.asked[i] > 0 {
		f.asked[i]--
	}
	if f.want.Has(i) && f.asked[i] == 0 {
		f.pick.add(i)
	}
}

// late reports whether the peer should be dropped, and frees what it is late
// with. Called with the swarm's mu held.
func (s *session) late(now time.Time) (drop bool) {
	if s.inflight == 0 || s.sw.get == nil {
		return false
	}
	for _, q := range s.queue {
		if q.dropped || q.late {
			continue
		}
		if now.After(q.deadline) {
			s.overdue = true
			s.release(false)
		}
		break
	}
	scarce := s.overdue && s.sw.get.buffers.len() < maxPeers && len(s.sw.sessions) > 1
	return now.Sub(s.flow.last) > stallLimit || scarce
}

// cancel takes chunk i out of what s was asked for, since it came from another
// peer. Called with the swarm's mu held.
func (s *session) cancel(i int) {
	for k := range s.queue {
		q := &s.queue[k]
		if q.i != i || q.dropped {
			continue
		}
		s.drop(q)
		s.wmu.Lock()
		s.cancels = append(s.cancels, chunk.Range{First: i, N: 1})
		s.wmu.Unlock()
		s.refill(time.Now())
		s.poke()
		return
	}
}

// drop marks q as no longer expected.
func (s *session) drop(q *request) {
	q.dropped = true
	f := s.sw.get
	if f.asked[q.i] > 0 {
		f.asked[q.i]--
	}
	s.inflight -= s.sw.m.ChunkLen(q.i)
	if len(s.queue) > 0 && &s.queue[0] == q && s.buf != nil {
		s.inflight += s.filled
	}
	s.inflight = max(s.inflight, 0)
}

// The Handler methods: called from the reader, one at a time.

func (s *session) HaveAll() error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	s.becomeSeed()
	s.early = nil
	s.refill(time.Now())
	return nil
}

func (s *session) Have(rs []chunk.Range) error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if !s.started {
		// Bounded: chunk.MaxNum chunks have at most half as many ranges.
		if len(s.early)+len(rs) > chunk.MaxNum/2 {
			return errTooEager
		}
		s.early = append(s.early, rs...)
		return nil
	}
	for _, r := range rs {
		if err := s.addHave(r); err != nil {
			return err
		}
	}
	now := time.Now()
	if !s.met {
		s.met, s.metAt = true, now
	}
	s.show(now)
	s.refill(now)
	return nil
}

func (s *session) Want(rs []chunk.Range) error {
	m := s.sw.manifestNow()
	if m == nil {
		return errOutside
	}
	if err := s.enqueue(m, rs); err != nil {
		return err
	}
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if s.shown != nil {
		for _, r := range rs {
			for i := r.First; i < r.First+r.N; i++ {
				s.shown.Clear(i)
			}
		}
		s.show(time.Now())
	}
	return nil
}

// enqueue puts what the peer wants behind what it wanted before.
func (s *session) enqueue(m *manifest.Manifest, rs []chunk.Range) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	for _, r := range rs {
		if r.First+r.N > m.NumChunks() {
			return fmt.Errorf("%w: %d of %d", errOutside, r.First+r.N-1, m.NumChunks())
		}
		for i := r.First; i < r.First+r.N; i++ {
			s.backlog += int64(m.ChunkLen(i))
			if s.backlog > maxBacklog {
				return errTooEager
			}
		}
		s.serving = append(s.serving, r)
	}
	s.poke()
	return nil
}

func (s *session) Cancel(rs []chunk.Range) error {
	m := s.sw.manifestNow()
	if m == nil {
		return nil
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	kept := make([]chunk.Range, 0, len(s.serving))
	for _, q := range s.serving {
		kept = append(kept, q)
		for _, r := range rs {
			var cut []chunk.Range
			for _, k := range kept {
				cut = append(cut, without(k, r)...)
			}
			kept = cut
		}
	}
	s.serving, s.backlog = kept, 0
	for _, r := range kept {
		for i := r.First; i < r.First+r.N; i++ {
			s.backlog += int64(m.ChunkLen(i))
		}
	}
	return nil
}

// without returns what is left of a when b is taken out.
func without(a, b chunk.Range) []chunk.Range {
	if b.First >= a.First+a.N || a.First >= b.First+b.N {
		return []chunk.Range{a}
	}
	var rs []chunk.Range
	if n := b.First - a.First; n > 0 {
		rs = append(rs, chunk.Range{First: a.First, N: n})
	}
	if end := b.First + b.N; end < a.First+a.N {
		rs = append(rs, chunk.Range{First: end, N: a.First + a.N - end})
	}
	return rs
}

func (s *session) Gone(rs []chunk.Range) error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	f := s.sw.get
	if f == nil || !s.started {
		return errUnaskedGone
	}
	n := s.sw.m.NumChunks()
	for _, r := range rs {
		if r.First+r.N > n {
			return fmt.Errorf("%w: %d of %d", errOutside, r.First+r.N-1, n)
		}
		if s.seed { // from now on its chunks have to be told apart
			s.seed = false
			s.has = chunk.NewBitfield(n)
			s.has.Fill()
			for i := range n {
				f.pick.have(i)
			}
		}
		for i := r.First; i < r.First+r.N; i++ {
			s.refuse(i)
		}
	}
	s.sw.refillAll()
	return nil
}

// refuse notes that the peer does not give chunk i. Called with mu held.
func (s *session) refuse(i int) {
	f := s.sw.get
	if s.has != nil && s.has.Clear(i) {
		f.pick.lost(i)
		if f.want.Has(i) {
			s.refused++
		}
	}
	for k := range s.queue {
		q := &s.queue[k]
		if q.i != i || q.dropped {
			continue
		}
		s.drop(q)
		if k == 0 && s.buf != nil { // it broke off in the middle
			s.discard()
		}
		if f.want.Has(i) && f.asked[i] == 0 {
			f.pick.add(i)
		}
	}
	for len(s.queue) > 0 && s.queue[0].dropped {
		s.queue = s.queue[1:]
	}
}

// discard throws away the half of a chunk that came.
func (s *session) discard() {
	s.sw.wasted += int64(s.filled)
	s.sw.get.buffers.put(s.buf)
	s.buf, s.filled = nil, 0
}

func (s *session) WantManifest() error {
	s.wmu.Lock()
	s.wantMan = true
	s.wmu.Unlock()
	s.poke()
	return nil
}

func (s *session) Manifest(size int64) error {
	s.sw.mu.Lock()
	asked := s.manAsked
	s.manAsked = false
	s.sw.mu.Unlock()
	if !asked {
		return errUnasked
	}
	if size < 1 || size > manifest.MaxText {
		return fmt.Errorf("manifest of %d bytes; the limit is %d", size, manifest.MaxText)
	}
	// It grows as the bytes come: a peer's number alone reserves nothing.
	s.man = make([]byte, 0, min(size, maxSegment))
	s.manSize = size
	return nil
}

func (s *session) Segment(i, off, n int) ([]byte, error) {
	if i < 0 {
		if s.man == nil || off != len(s.man) || int64(off+n) > s.manSize {
			return nil, errUnasked
		}
		s.man = append(s.man, make([]byte, n)...)
		return s.man[off:], nil
	}
	if s.buf == nil {
		if off != 0 || !s.reach(i) {
			return nil, fmt.Errorf("%w: chunk %d", errUnasked, i)
		}
		// Outside every lock: while no buffer is free, this peer waits.
		buf, err := s.sw.get.buffers.get(s.sw.stop)
		if err != nil {
			return nil, err
		}
		s.sw.mu.Lock()
		s.buf, s.filled = buf[:s.sw.m.ChunkLen(i)], 0
		s.sw.mu.Unlock()
	}
	if s.head() != i || off != s.filled || off+n > len(s.buf) {
		return nil, fmt.Errorf("%w: chunk %d at %d", errUnasked, i, off)
	}
	return s.buf[off : off+n], nil
}

// reach makes chunk i the head of the queue, past requests that were dropped,
// and reports whether it was asked for.
func (s *session) reach(i int) bool {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if s.sw.get == nil {
		return false
	}
	for len(s.queue) > 0 && s.queue[0].dropped && s.queue[0].i != i {
		s.queue = s.queue[1:]
	}
	return len(s.queue) > 0 && s.queue[0].i == i
}

func (s *session) head() int {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if len(s.queue) == 0 {
		return -1
	}
	return s.queue[0].i
}

func (s *session) Received(i, off, n int) error {
	if i < 0 {
		if int64(len(s.man)) < s.manSize {
			return nil
		}
		text := s.man
		s.man = nil
		return s.sw.arrived(s, text)
	}
	now := time.Now()
	f := s.sw.get
	s.sw.mu.Lock()
	s.filled += n
	s.stats.Received += int64(n)
	s.flow.delivered(n, s.conn.RTT(), now)
	f.lastByte = now
	f.meter.add(n, now.Sub(f.meterAt))
	f.meterAt = now
	q := s.queue[0]
	if !q.dropped {
		s.inflight -= n
	}
	s.overdue = false
	if s.filled < len(s.buf) {
		s.sw.mu.Unlock()
		return nil
	}
	s.queue = s.queue[1:]
	buf := s.buf
	s.buf, s.filled = nil, 0
	s.refill(now)
	s.sw.mu.Unlock()
	f.results <- received{from: s, i: i, buf: buf}
	return nil
}
