package transfer

import (
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// work hashes and writes chunks until results is closed. Any number may run.
func (sw *swarm) work() {
	for r := range sw.get.results {
		if err := sw.settle(r); err != nil {
			sw.get.failed(err)
		}
		sw.get.buffers.put(r.buf)
	}
}

// settle checks one chunk and writes it. Its error ends the get; a wrong chunk
// only ends the peer.
func (sw *swarm) settle(r received) error {
	f := sw.get
	sw.mu.Lock()
	wanted := f.want.Has(r.i)
	if !wanted {
		sw.wasted += int64(len(r.buf))
		f.answered(&r.req)
	}
	sw.mu.Unlock()
	if !wanted {
		return nil // somebody else was faster
	}
	began := time.Now()
	sum := chunk.Sum(r.buf)
	spend(&sw.spent.hash, began)
	if sum != sw.m.ChunkHash(r.i) {
		sw.mu.Lock()
		f.corrupt = r.i
		f.answered(&r.req)
		f.free(r.i)
		sw.mu.Unlock()
		if _, ok := r.from.conn.(*sourceConn); ok {
			return sw.distrust(r.from, r.i, len(r.buf))
		}
		sw.ban(r.from, r.i, len(r.buf))
		return nil
	}
	// Two peers may have sent it at the same time. The second copy would be
	// right as well, but may be written after the store was sealed.
	sw.mu.Lock()
	wanted = f.want.Has(r.i) && f.writing.Set(r.i)
	if !wanted {
		sw.wasted += int64(len(r.buf))
		f.answered(&r.req)
	}
	sw.mu.Unlock()
	if !wanted {
		return nil
	}
	sw.mu.Lock()
	done := f.done
	sw.mu.Unlock()
	f.flushes.wait(done, sw.stop)
	began = time.Now()
	err := f.store.Write(r.i, r.buf)
	spend(&sw.spent.write, began)
	if err != nil {
		return err
	}
	sw.written(r)
	return nil
}

// ban ends the connection to a peer that sent wrong bytes for chunk i, which
// may be -1 for the manifest, and keeps it out from now on.
func (sw *swarm) ban(s *session, i, n int) {
	sw.mu.Lock()
	s.stats.Banned = true
	sw.noteBad(addrOf(s.conn.RemoteAddr()))
	sw.wasted += int64(n)
	sw.mu.Unlock()
	s.end(&CorruptError{Index: i})
}

// written notes that a chunk is on disk.
func (sw *swarm) written(r received) {
	f := sw.get
	complete := f.store.Complete(r.i)
	sw.mu.Lock()
	defer sw.mu.Unlock()
	f.writing.Clear(r.i)
	f.want.Clear(r.i)
	r.from.stats.Used += int64(len(r.buf))
	f.done += f.need(r.i)
	f.lastByte, f.brokenOff = time.Now(), 0
	f.verified.Set(r.i)
	f.answered(&r.req)
	f.pick.remove(r.i)
	if f.asked[r.i] > 0 {
		for _, s := range sw.sessions {
			s.cancel(r.i)
		}
	}
	if complete {
		sw.offer(r.i)
	}
	if f.want.None() {
		f.complete()
	}
}

// offer lets others fetch chunk i from us. Called with mu held.
func (sw *swarm) offer(i int) {
	if sw.have.Set(i) {
		sw.news = append(sw.news, int32(i))
	}
}

// check hashes chunk i as it lies in the store, in small pieces, and takes it
// back if it is not what it should be: an earlier run wrote it, and disks rot.
// It reports whether the chunk is right.
func (sw *swarm) check(i int, buf []byte) (bool, error) {
	f := sw.get
	h := chunk.NewHasher()
	defer h.Release()
	for off, n := 0, sw.m.ChunkLen(i); off < n; {
		p := buf[:min(len(buf), n-off)]
		if err := f.store.ReadAt(i, off, p); err != nil {
			return false, err
		}
		h.Write(p)
		off += len(p)
	}
	if h.Sum() == sw.m.ChunkHash(i) {
		sw.mu.Lock()
		f.verified.Set(i)
		sw.mu.Unlock()
		return true, nil
	}
	sw.mu.Lock()
	if f.sealed || !f.want.Set(i) { // wanted from here on, so it cannot be sealed
		sw.mu.Unlock()
		return false, nil
	}
	sw.have.Clear(i)
	f.done -= f.need(i)
	sw.mu.Unlock()
	if err := f.store.Drop(i); err != nil {
		return false, err
	}
	sw.mu.Lock()
	f.pick.add(i) // only now: its new record must come after the one that drops it
	sw.refillAll()
	sw.mu.Unlock()
	return false, nil
}
