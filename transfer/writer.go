package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// An outgoing is what the writer works off: control lines first, since they are
// short and others wait for them, then one segment of data, then it looks again.
type outgoing struct {
	seg []byte // for one segment; nil while nothing is sent

	man    string // rest of the manifest that is being sent
	manOff int

	size   int // of the next segment, at most
	i, off int // the chunk that is being sent, and how much of it is out; i < 0: none

	wait    time.Duration   // until the limit lets the next segment pass; 0: it does
	changed <-chan struct{} // closed if the limit has changed
}

// segments has the buffers of those writers that are not waiting: of 64 peers
// few are served at the same time.
var segments = sync.Pool{New: func() any { return (*[maxSegment]byte)(alignedBuffer(maxSegment)) }}

// hold makes sure that o has a buffer, release gives it back.
func (o *outgoing) hold() {
	if o.seg == nil {
		o.seg = segments.Get().(*[maxSegment]byte)[:]
	}
}

func (o *outgoing) release() {
	if o.seg != nil {
		segments.Put((*[maxSegment]byte)(o.seg))
		o.seg = nil
	}
}

// write sends until ctx ends or the connection breaks.
func (s *session) write(ctx context.Context) error {
	o := outgoing{i: -1, size: segmentSize(0)}
	defer o.release()
	if s.sw.port > 0 {
		if err := s.conn.SendListen(s.sw.port); err != nil {
			return err
		}
	}
	for {
		if err := s.writeControl(&o); err != nil {
			return err
		}
		more, err := s.writeSegment(&o)
		if err != nil {
			return err
		}
		if err := s.conn.Flush(); err != nil {
			return err
		}
		if more {
			continue
		}
		o.release()
		// A limit holds back data only: control lines go out meanwhile.
		var timer <-chan time.Time
		if o.wait > 0 {
			timer = time.After(o.wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-timer:
		case <-o.changed:
		}
	}
}

// segmentSize returns how many bytes to send in one segment at a rate in bytes/s:
// what takes a tenth of a second, so that control lines do not wait for longer.
func segmentSize(rate float64) int {
	if rate == 0 {
		return maxSegment / 4
	}
	n := int(rate/10) &^ 4095 // whole pages
	return min(max(n, maxSegment/16), maxSegment)
}

// writeControl sends the lines that wait.
func (s *session) writeControl(o *outgoing) error {
	s.wmu.Lock()
	wants, cancels, gones, shows := s.wants, s.cancels, s.gones, s.shows
	s.wants, s.cancels, s.gones, s.shows = nil, nil, nil, nil
	hints := s.hints
	s.hints = nil
	hello, askMan, quit := s.hello, s.askMan, s.quit
	s.hello, s.askMan = false, false
	s.wmu.Unlock()
	if quit != nil {
		return quit
	}

	if askMan {
		if err := s.conn.SendWantManifest(); err != nil {
			return err
		}
	}
	if hello {
		if err := s.writeHello(); err != nil {
			return err
		}
	}
	if len(shows) > 0 {
		if err := s.conn.SendHave(shows); err != nil {
			return err
		}
	}
	if len(cancels) > 0 {
		if err := s.conn.SendCancel(cancels); err != nil {
			return err
		}
	}
	if len(wants) > 0 {
		if err := s.conn.SendWant(wants); err != nil {
			return err
		}
	}
	if len(gones) > 0 {
		if err := s.conn.SendGone(gones); err != nil {
			return err
		}
	}
	if len(hints) > 0 {
		if err := s.conn.SendPeers(hints); err != nil {
			return err
		}
	}
	return s.writeNews()
}

// writeHello says what we have as of now.
func (s *session) writeHello() error {
	s.sw.mu.Lock()
	if s.broken != nil {
		s.sw.mu.Unlock()
		return s.broken
	}
	if !s.greeted && s.sw.withholds() {
		s.shown, s.measured = chunk.NewBitfield(s.sw.have.Len()), s.stats.Sent
		s.shownAt = time.Now()
		s.show(s.shownAt)
	}
	s.greeted = true
	s.told = len(s.sw.news)
	if s.shown != nil {
		s.sw.mu.Unlock()
		return nil
	}
	var some *chunk.Bitfield
	if !s.sw.have.All() {
		some = s.sw.have.Clone()
	}
	s.sw.mu.Unlock()
	if some == nil {
		return s.conn.SendHaveAll()
	}
	return s.conn.SendHaves(some)
}

// tellsNews reports whether it is time to tell the peer which chunks we got since
// it was told last. The more peers, the larger the batches: otherwise the lines
// would soon be a percent of the data. Called with mu held.
func (s *session) tellsNews(now time.Time) bool {
	if !s.started || s.shown != nil || s.told == len(s.sw.news) {
		return false
	}
	wait := tick * time.Duration(1+len(s.sw.sessions)/8)
	if s.seed {
		wait = newsToSeed // it only wants to know what is not lost
	}
	return now.Sub(s.toldAt) >= wait || s.sw.have.All()
}

const newsToSeed = time.Second

// writeNews says what came since, if it is time to.
func (s *session) writeNews() error {
	now := time.Now()
	s.sw.mu.Lock()
	if !s.tellsNews(now) {
		s.sw.mu.Unlock()
		return nil
	}
	all := s.sw.have.All()
	fresh := chunk.NewBitfield(s.sw.m.NumChunks())
	for _, i := range s.sw.news[s.told:] {
		if s.has == nil || !s.has.Has(int(i)) {
			fresh.Set(int(i))
		}
	}
	s.told, s.toldAt = len(s.sw.news), now
	s.sw.mu.Unlock()
	switch {
	case all:
		return s.conn.SendHaveAll()
	case fresh.None():
		return nil
	}
	return s.conn.SendHaves(fresh)
}

// writeSegment sends the next piece of what the peer wants, and reports whether
// there is more that may go out at once.
func (s *session) writeSegment(o *outgoing) (more bool, err error) {
	o.wait, o.changed = 0, nil
	if sent, err := s.writeManifest(o); sent || err != nil {
		return o.wait == 0, err
	}
	if o.i < 0 {
		if o.i = s.nextWanted(); o.i < 0 {
			return false, nil
		}
		o.off = 0
	}
	if o.i >= 0 && s.breaksOff() {
		o.i = -1
		s.sw.mu.Lock()
		s.endTurn(time.Now())
		s.sw.mu.Unlock()
		return true, nil
	}
	o.hold()
	i := o.i
	p := o.seg[:s.sw.limits.up.piece(min(o.size, s.sw.m.ChunkLen(i)-o.off))]
	if s.held(o, len(p)) {
		return false, nil
	}
	if err := s.sw.read(i, o.off, p, o.seg); errors.Is(err, errStopping) {
		return false, err
	} else if err != nil {
		s.sw.warn(err.Error())
		o.i = -1
		s.wmu.Lock()
		s.gones = append(s.gones, chunk.Range{First: i, N: 1})
		s.wmu.Unlock()
		return true, nil
	}
	if err := s.conn.SendData(i, o.off, p); err != nil {
		return false, err
	}
	now := time.Now()
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	s.stats.Sent += int64(len(p))
	s.out.add(len(p), now.Sub(s.outAt))
	s.outAt = now
	s.sw.sent.add(len(p), now.Sub(s.sw.sentAt))
	s.sw.sentAt = now
	o.size = segmentSize(s.out.rate)
	if o.off += len(p); o.off == s.sw.m.ChunkLen(i) {
		o.i = -1
		s.endTurn(now)
	}
	return true, nil
}

// held reports whether the limit lets n bytes not pass yet; o says for how long.
func (s *session) held(o *outgoing, n int) bool {
	o.wait, o.changed = s.sw.limits.up.take(n, time.Now())
	return o.wait > 0
}

// breaksOff reports whether the rest of the chunk that is being sent is of no use:
// the peer has cancelled it. It learns of that by what comes next, so something
// must.
func (s *session) breaksOff() bool {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return s.unasked && len(s.serving) > 0
}

// writeManifest sends a segment of the manifest if the peer wants it and we
// know it. sent is also true while the limit does not let it pass.
func (s *session) writeManifest(o *outgoing) (sent bool, err error) {
	if o.man == "" {
		m := s.sw.manifestNow()
		s.wmu.Lock()
		wanted := s.wantMan && m != nil
		if wanted {
			s.wantMan = false
		}
		s.wmu.Unlock()
		if !wanted {
			return false, nil
		}
		o.man, o.manOff = m.Text(), 0
		if err := s.conn.SendManifest(int64(len(o.man))); err != nil {
			return true, err
		}
	}
	o.hold()
	n := s.sw.limits.up.piece(copy(o.seg, o.man))
	if s.held(o, n) {
		return true, nil
	}
	if err := s.conn.SendData(-1, o.manOff, o.seg[:n]); err != nil {
		return true, err
	}
	o.man, o.manOff = o.man[n:], o.manOff+n
	return true, nil
}

// nextWanted takes the next chunk that the peer wants, or returns -1 if there is
// none, or it is not this peer's turn. Chunks that we do not offer are refused.
func (s *session) nextWanted() int {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	now := time.Now()
	for len(s.serving) > 0 {
		r := &s.serving[0]
		i := r.First
		offered := s.sw.have.Has(i)
		if offered && !s.takeTurn(now) {
			s.sending = false
			return -1 // it is woken when it is
		}
		r.First++
		if r.N--; r.N == 0 {
			s.serving = s.serving[1:]
		}
		s.backlog -= int64(s.sw.m.ChunkLen(i))
		if offered {
			if s.sw.reveal.sent != nil {
				s.sw.reveal.sent.Set(i)
			}
			s.sending, s.current, s.unasked = true, i, false
			return i
		}
		s.gones = append(s.gones, chunk.Range{First: i, N: 1})
		s.poke()
	}
	s.serving, s.sending = nil, false
	s.endTurn(now)
	return -1
}

// read fills p with the bytes at off of chunk i, for a peer. A chunk that an
// earlier run has written is hashed before it goes out for the first time; buf
// is for that.
func (sw *swarm) read(i, off int, p, buf []byte) error {
	sw.mu.Lock()
	c, f := sw.content, sw.get
	fromPart := f != nil && c == content(f.store)
	checked := !fromPart || f.verified.Has(i)
	sw.mu.Unlock()
	if !checked && off == 0 {
		right, err := sw.check(i, buf)
		if err != nil {
			return err
		}
		if !right {
			return fmt.Errorf("chunk %d was damaged on disk since it was fetched", i)
		}
	}
	err := c.ReadAt(i, off, p)
	if err == nil || !fromPart {
		return err
	}
	// When a get is finished its part becomes the share, and for a moment it
	// is neither.
	sw.mu.Lock()
	sealed := f.sealed
	sw.mu.Unlock()
	if !sealed {
		return err
	}
	select {
	case <-f.moved:
	case <-sw.stop:
		return errStopping
	}
	sw.mu.Lock()
	c = sw.content
	sw.mu.Unlock()
	return c.ReadAt(i, off, p)
}
