package transfer

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
)

// maxSegment is the most bytes that go out under one line, so that control
// lines never wait behind a chunk.
const maxSegment = 256 << 10

// maxBacklog bounds the bytes that a peer may have asked us for at once.
const maxBacklog = maxWindow + 4*chunk.MaxSize

// maxServing bounds the ranges of them: chunks may be a byte long.
const maxServing = 4096

// A session is one connection in the swarm. Its reader is the Conn's Run,
// which calls the Handler methods; its writer is the only goroutine that sends.
// So neither ever waits for the other, and two peers that both send cannot
// block each other.
type session struct {
	sw    *swarm
	conn  Conn
	stats *PeerStats
	more  chan<- struct{} // asks for another connection to this peer; nil: cannot
	hint  bool            // we have dialled it at an address that came from a hint

	// The swarm's mu guards these.
	started  bool            // the manifest is known and haves were exchanged with the picker
	seed     bool            // the peer has all chunks
	has      *chunk.Bitfield // what it has, if it is no seed; nil: nothing yet
	early    *chunk.Bitfield // what it said that it has before the manifest was known; nil: nothing
	said     int             // chunks that it spoke of, less those that time forgives; see spend
	saidAt   time.Time
	since    time.Time // when it was let in
	queue    []request // what it was asked for, in order
	inflight int       // bytes of queue that are still wanted and did not come yet
	last     int       // the last chunk that it was asked for, or -1
	flow     flow
	broken   error     // a mistake that showed late; the writer ends the session
	overdue  bool      // its requests were late and are free for others
	refused  int       // chunks that it said are gone
	used     int64     // stats.Used when it was let in
	wrong    int       // chunks of a source that were not right
	numMore  int       // how many more connections were asked for,
	lastMore time.Time // the last of them then
	tookAt   time.Time // when it was last seen to have taken bytes
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

	at        netip.Addr      // where it is
	listens   string          // host:port at which it accepts connections,
	listensAt time.Time       // since when we know
	toldPeers map[string]bool // addresses of others that it was told
	listeners int             // the swarm's, when it had been told of all
	numHints  int             // addresses that it told us

	buf      []byte    // the chunk that is arriving; nil between chunks
	filled   int       // how much of it is there
	manTried bool      // it was asked for the manifest,
	manAsked bool      // and has not sent all of it yet,
	manAt    time.Time // at this time
	manGot   int64     // bytes of it that came

	// Only the reader uses these.
	man     []byte // the manifest that is arriving, if it is of use
	manSize int64  // 0 before it begins

	// wmu guards what the writer is to send.
	wmu     sync.Mutex
	wants   []chunk.Range
	cancels []chunk.Range
	gones   []chunk.Range
	shows   []chunk.Range // what a seed tells of itself
	sending bool          // a chunk is on its way out:
	current int           // this one,
	unasked bool          // which the peer has cancelled meanwhile
	hints   []string      // addresses of other peers
	serving []chunk.Range // what the peer wants, in order
	backlog int64         // bytes of serving
	askMan  bool          // ask for the manifest
	wantMan bool          // the peer asked for it
	hello   bool          // say what we have
	quit    error         // end the session
	wake    chan struct{} // capacity 1
	err     error         // why the session ends
}

// A request is one chunk that the peer was asked for.
type request struct {
	i        int
	asked    time.Time
	owed     int // bytes that the peer owed from then on, this chunk among them
	deadline time.Time
	guessed  bool // the deadline: the peer's rate was not known
	dropped  bool // cancelled or refused: no longer counted, may still arrive
	late     bool // others may be asked for it too
}

func newSession(sw *swarm, c Conn) *session {
	return &session{sw: sw, conn: c, last: -1, at: addrOf(c.RemoteAddr()), wake: make(chan struct{}, 1)}
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
	var writer crew.Crew
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
		s.sw.get.brokenOff++
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
	if !s.seed && s.early != nil {
		for r := range s.early.Ranges() {
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

// spend counts n chunks that the peer spoke of: each costs us work, and to say the
// same over and over is cheap. Who serves a share speaks of each of its chunks
// once or twice. Called with the swarm's mu held.
func (s *session) spend(n int) error {
	all := s.sw.m.NumChunks()
	now := time.Now()
	s.said = max(0, s.said-int(now.Sub(s.saidAt).Minutes()*float64(all)))
	s.saidAt = now
	if s.said += 1 + n; s.said > 4*all+4096 {
		return errRepeats
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
