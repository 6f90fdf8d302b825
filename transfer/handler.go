package transfer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// The Handler methods: called from the reader, one at a time.

func (s *session) HaveAll() error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if s.started {
		if err := s.spend(0); err != nil {
			return err
		}
	}
	s.becomeSeed()
	s.early = nil
	s.refill(time.Now())
	return nil
}

func (s *session) Have(rs []chunk.Range) error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if !s.started {
		if s.early == nil {
			s.early = chunk.NewBitfield(chunk.MaxNum)
		}
		for _, r := range rs {
			if r.End() > s.early.Len() {
				return errOutside
			}
			s.early.SetRange(r.First, r.N)
		}
		return nil
	}
	for _, r := range rs {
		err := s.spend(r.N)
		if err == nil {
			err = s.addHave(r)
		}
		if err != nil {
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
		if k := len(s.serving) - 1; k >= 0 && s.serving[k].End() == r.First {
			s.serving[k].N += r.N
			continue
		}
		if len(s.serving) >= maxServing {
			return errTooEager
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
		// rs ascends, so what may touch q is found by halves.
		k, _ := slices.BinarySearchFunc(rs, q.First, func(r chunk.Range, first int) int { return cmp.Compare(r.End(), first+1) })
		for ; k < len(rs) && rs[k].First < q.End(); k++ {
			if n := rs[k].First - q.First; n > 0 {
				kept = append(kept, chunk.Range{First: q.First, N: n})
			}
			q = chunk.Range{First: rs[k].End(), N: q.End() - rs[k].End()}
		}
		if q.N > 0 {
			kept = append(kept, q)
		}
	}
	for _, r := range rs {
		if s.sending && r.First <= s.current && s.current < r.End() {
			s.unasked = true
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
		if err := s.spend(r.N); err != nil {
			return err
		}
		if s.seed { // from now on its chunks have to be told apart
			if err := s.spend(n); err != nil {
				return err
			}
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
		f.free(i)
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
	s.sw.mu.Unlock()
	if !asked || s.manSize > 0 {
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
	// Outside every lock: this peer waits, and so, by the line between us, does
	// its sending.
	s.sw.held.Add(1)
	err := s.sw.limits.down.wait(n, s.sw.stop)
	s.sw.held.Add(-1)
	if err != nil {
		return nil, err
	}
	if i < 0 {
		if int64(off) != s.manGot || int64(off+n) > s.manSize {
			return nil, errUnasked
		}
		if s.man == nil || s.sw.manifestNow() != nil {
			s.man = nil // somebody else was faster
			return make([]byte, n), nil
		}
		s.man = append(s.man, make([]byte, n)...)
		return s.man[off:], nil
	}
	if s.buf != nil && off == 0 {
		s.brokeOff()
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

// brokeOff forgets the chunk that is arriving if it was cancelled: its sender has
// begun another.
func (s *session) brokeOff() {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	if len(s.queue) == 0 || !s.queue[0].dropped || s.filled == 0 {
		return
	}
	s.queue = s.queue[1:]
	s.discard()
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
		s.sw.mu.Lock()
		s.manGot += int64(n)
		done := s.manGot == s.manSize
		if done {
			s.manAsked, s.manGot, s.manSize = false, 0, 0
			s.sw.known = s.sw.known || s.man != nil // until it turns out to be another
		}
		s.sw.mu.Unlock()
		if !done || s.man == nil {
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
	if f.brokenOff < maxBrokenOff {
		f.lastByte = now
	}
	f.meter.add(n, now.Sub(f.meterAt))
	f.meterAt = now
	q := s.queue[0]
	if !q.dropped {
		s.owe(-n)
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
	f.results <- received{from: s, i: i, buf: buf, req: q}
	return nil
}
