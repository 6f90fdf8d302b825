package transfer

import (
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// What all peers together may be asked for: the chunks that come in askedTime,
// and at least so many.
const (
	minAsked     = 12
	minAskedSlow = 3 // under a limit
	askedTime    = 700 * time.Millisecond
)

// In the endgame at most one in maxTwice chunks, and a few, are asked for twice:
// what saves one leech some time costs all the others. Nor may requests be moved
// from peer to peer without end.
const (
	maxTwice = 400
	minTwice = 1
	maxMoved = 64
	minMoved = 2
)

// stallLimit is how long a peer that was asked may send nothing before it is
// dropped and dialled again.
const stallLimit = 60 * time.Second

// How long a peer that was asked may send nothing, beside some round trips: it may
// have others to serve, or want to hold us up. What a quiet one owes keeps nobody
// else from being asked; what a silent one owes is taken from it in the endgame.
const (
	quietTime  = 500 * time.Millisecond
	silentTime = 3 * time.Second
)

// owesFor reports whether s was asked for something and has sent nothing for d, some
// round trips, and the time in which it has sent some chunks until now; for 2d if it
// never sent any. Called with the swarm's mu held.
func (s *session) owesFor(d time.Duration, now time.Time) bool {
	switch {
	case s.inflight == 0:
		return false
	case s.overdue:
		return true
	}
	if r := s.flow.usual(); r > 0 {
		d += time.Duration(4 * float64(s.flow.chunkLen) / r * float64(time.Second))
	} else {
		d *= 2
	}
	return now.Sub(s.flow.last) > d+4*s.conn.RTT()
}

// refill asks for more if there is room for it. Called with the swarm's mu held.
func (s *session) refill(now time.Time) {
	f := s.sw.get
	if f == nil || f.done == f.total || !s.started || s.stats.Banned || (s.has == nil && !s.seed) {
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
	if s.inflight == 0 && !s.sw.mayStart(s, now) {
		f.crowded = true
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

// owe notes that s was asked for n bytes more, or owes so many less. Called with mu held.
func (s *session) owe(n int) {
	f := s.sw.get
	before := s.inflight
	s.inflight = max(s.inflight+n, 0)
	f.inflight += s.inflight - before
	switch {
	case before == 0 && s.inflight > 0:
		f.numActive++
	case before > 0 && s.inflight == 0:
		f.numActive--
	}
}

// numActive returns how many peers were asked for something, or are about to be. Called with mu held.
func (sw *swarm) numActive(s *session) int {
	if s.inflight > 0 {
		return sw.get.numActive
	}
	return sw.get.numActive + 1
}

// room returns how many bytes more may be asked for, of s or whom else: what
// comes in a moment. More would only wait in the queues of peers that
// serve others too, and be too late there for a better choice. Called with mu held.
func (sw *swarm) room(s *session) int {
	f := sw.get
	limit := max(minAsked*s.flow.chunkLen, int(f.meter.rate*askedTime.Seconds()))
	if s.far() {
		limit = max(limit, maxLines*farWindow)
	}
	if most := sw.limits.down.limit(); most > 0 {
		// More would only wait on the lines, and control lines behind it.
		limit = min(limit, max(minAskedSlow*s.flow.chunkLen, int(most*askedTime.Seconds())))
	}
	return limit - f.inflight + f.quiet
}

// mayStart reports whether one more session may have chunks on their way: with
// large chunks there are fewer buffers than peers. Called with mu held.
func (sw *swarm) mayStart(s *session, now time.Time) bool {
	active := 0
	for _, o := range sw.sessions {
		if o != s && (o.inflight > 0 && !o.owesFor(quietTime, now) || o.buf != nil) {
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
		s.owe(s.sw.m.ChunkLen(i))
		f.asked[i]++
		f.due[i]++
		s.queue = append(s.queue, request{
			i: i, asked: now, owed: s.inflight,
			deadline: now.Add(s.flow.patience(s.inflight, rtt)), guessed: s.flow.usual() == 0,
		})
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
	if f.pick.len() > 0 || s.overdue {
		return chunk.Range{} // this peer has none of them, but another may; or it owes enough
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
	since := now
	if s.inflight == 0 && slowest != nil && slowest.owesFor(quietTime, now) {
		since = s.flow.last // its own silence means nothing: it was asked for nothing
	}
	mine := s.flow.eta(s.flow.chunkLen, rtt, since)
	if slowest == nil || worst < mine+mine/2+2*time.Millisecond {
		return chunk.Range{}
	}
	hopeless := slowest.owesFor(silentTime, now) ||
		slowest.flow.usual() == 0 && s.flow.usual() > 0 && slowest.owesFor(quietTime, now) // a bird in the hand
	next := 4*mine + time.Second // what its peer has to send next is mostly on its way
	if slowest.flow.usual() == 0 {
		next = 3*mine + 300*time.Millisecond // but not if nothing ever came from there
	}
	for k := len(slowest.queue) - 1; k >= 0; k-- {
		q := &slowest.queue[k]
		if !s.couldSend(q) {
			continue
		}
		begun := k == 0 && slowest.buf != nil
		switch {
		case begun && worst < 3*mine+30*time.Millisecond:
			continue // it is soon there
		case begun && hopeless:
		case begun && f.numTwice <= len(f.asked)/maxTwice+minTwice:
			f.numTwice++
		case k == 0 && worst < next:
			continue
		case !begun && (hopeless || f.numMoved <= len(f.asked)/maxMoved+minMoved):
			if !hopeless {
				f.numMoved++
			}
			slowest.drop(q)
			slowest.wmu.Lock()
			slowest.cancels = append(slowest.cancels, chunk.Range{First: q.i, N: 1})
			slowest.wmu.Unlock()
			slowest.poke()
		default:
			continue
		}
		if slowest.owesFor(quietTime, now) {
			slowest.overdue = true // or it would soon take this one back
		}
		return chunk.Range{First: q.i, N: 1}
	}
	return chunk.Range{}
}

// couldSend reports whether s may be asked for what q asks another peer for.
func (s *session) couldSend(q *request) bool {
	f := s.sw.get
	return !q.dropped && f.want.Has(q.i) && f.due[q.i] < 2 && (s.seed || s.has.Has(q.i)) && !s.queued(q.i)
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
		if left {
			f.answered(q)
		} else {
			f.late(q)
		}
		f.free(q.i)
	}
	if left {
		s.queue = nil
		s.owe(-s.inflight)
	}
}

// free lets chunk i be picked again if it is wanted and all that were asked for it,
// if anybody was, are late. Called with the swarm's mu held.
func (f *fetch) free(i int) {
	if f.want.Has(i) && f.due[i] == 0 {
		f.pick.add(i)
	}
}

// late notes that q is not to be waited for any more. Called with the swarm's mu held.
func (f *fetch) late(q *request) {
	if !q.dropped && !q.late {
		f.due[q.i]--
	}
	q.late = true
}

// answered takes q out of the counts. Called with the swarm's mu held.
func (f *fetch) answered(q *request) {
	f.late(q)
	if !q.dropped {
		f.asked[q.i]--
	}
	q.dropped = true
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
		if q.guessed && s.flow.usual() > 0 {
			q.guessed = false
			q.deadline = q.asked.Add(s.flow.patience(q.owed, s.conn.RTT()))
		}
		if now.After(q.deadline) || s.owesFor(silentTime, now) && s.sw.get.pick.len() == 0 {
			s.overdue = true
			s.release(false)
		}
		break
	}
	return now.Sub(s.flow.last) > stallLimit || s.hoards(now)
}

// hoards reports whether s holds one of few buffers without filling it, while others
// cannot begin for want of one. The less it has given, the sooner.
// Called with the swarm's mu held.
func (s *session) hoards(now time.Time) bool {
	if s.buf == nil || !s.sw.get.crowded {
		return false
	}
	wait := silentTime
	if s.stats.Used == 0 {
		wait = 2 * quietTime
	}
	return s.overdue || now.Sub(s.flow.last) > wait+4*s.conn.RTT()
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
	s.sw.get.answered(q)
	n := s.sw.m.ChunkLen(q.i)
	if len(s.queue) > 0 && &s.queue[0] == q && s.buf != nil {
		n -= s.filled
	}
	s.owe(-n)
}
