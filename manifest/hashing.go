package manifest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
)

const (
	// A batch is what one worker takes at a time: enough to read ahead, little
	// enough that the last ones end together.
	batchSize = 1 << 20

	// A unit is what the hash cache knows as one: a file that is a segment of its
	// own, or this much of a run of small files.
	packUnitSize = 64 << 20

	// A chunk of more small files than this is read by several workers: opening them
	// takes longer than hashing.
	splitFiles = 256

	// A content-defined segment that is longer than this is cut by several workers.
	partSize = 32 << 20
)

// hashing is one run over a stream: it fills in where its chunks end and their hashes.
type hashing struct {
	ctx     context.Context
	s       *stream
	entries []int32 // index of the entry of each file of the stream
	b       *walker
	cutter  chunk.Cutter
	fixed   bool
	units   []unit
	cache   Cache
	rehash  bool
	done    atomic.Int64 // bytes
	hashes  []chunk.Hash // of a fixed cutter, by chunk

	mu    sync.Mutex // of the fields below: the next job
	u     int        // the next unit to begin
	cur   *unit      // the unit that jobs are taken from
	i     int        // its next chunk or part
	split *split     // its chunk that is being split
}

// A unit is a part of a segment that is hashed, and cached, as one.
type unit struct {
	start, end int64 // in the stream
	pack       bool  // a run of small files
	first, n   int   // chunks of a fixed cutter; parts of a content-defined one
	left       atomic.Int64
	began      time.Time
	key        chunk.Hash
	cached     bool // found in the cache
	parts      [][]cut
	cuts       []cut // of a content-defined cutter
}

// A cut is a chunk that was found in the content.
type cut struct {
	start int64 // in the stream
	len   int
	hash  chunk.Hash
}

// A split is a chunk of many small files that several workers read.
type split struct {
	buf   []byte
	start int64
	index int
	file  int // the next file to hand out
	last  int // the one behind the last
	left  atomic.Int64
}

// A job is what a worker does before it asks for the next.
type job struct {
	u          *unit
	from, to   int // chunks, or one part
	sp         *split
	file, last int // of the split chunk
}

func (h *hashing) plan(segments func(yield func(segment) bool)) {
	size := int64(h.cutter.Size())
	first := 0
	for seg := range segments {
		pack := seg.last-seg.first > 1 || seg.end-seg.start < size
		for start := seg.start; start < seg.end; {
			end := seg.end
			if pack && h.fixed {
				end = min(end, start+max(size, packUnitSize))
			}
			h.units = append(h.units, unit{start: start, end: end, pack: pack, first: first})
			u := &h.units[len(h.units)-1]
			if h.fixed {
				u.n = int(ceilDiv(end-start, size))
				first += u.n
			} else {
				u.n = int(max(1, (end-start)/h.partLen()))
				u.parts = make([][]cut, u.n)
			}
			u.left.Store(int64(u.n))
			start = end
		}
	}
	if h.fixed {
		h.hashes = make([]chunk.Hash, first)
	}
}

// partLen is how much of a content-defined segment one worker cuts; the cuts of
// neighbours meet after a few chunks, which is lost work.
func (h *hashing) partLen() int64 { return max(partSize, 64*int64(h.cutter.Max())) }

// next returns the next job, or false when there are none.
func (h *hashing) next() (job, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if sp := h.split; sp != nil {
			j := job{u: h.cur, sp: sp, file: sp.file, last: min(sp.file+splitFiles, sp.last)}
			if sp.file = j.last; sp.file == sp.last {
				h.split = nil
			}
			return j, true
		}
		if h.cur == nil {
			if h.u == len(h.units) {
				return job{}, false
			}
			h.cur, h.i = &h.units[h.u], 0
			h.u++
			h.cur.began = time.Now()
			if h.cache != nil && h.lookup(h.cur) {
				h.done.Add(h.cur.end - h.cur.start)
				h.cur = nil
				continue
			}
		}
		u := h.cur
		if h.i == u.n {
			h.cur = nil
			continue
		}
		j := job{u: u, from: h.i, to: h.i + 1}
		if h.fixed {
			size := int64(h.cutter.Size())
			off := u.start + int64(h.i)*size
			if u.pack {
				end := min(off+size, u.end)
				first, last := h.s.fileAt(off), h.s.fileAt(end-1)+1
				if last-first > 2*splitFiles && size <= batchSize {
					sp := &split{start: off, index: u.first + h.i, file: first, last: last}
					sp.left.Store(int64(ceilDiv(int64(last-first), splitFiles)))
					sp.buf = make([]byte, 0, end-off)
					h.split = sp
					h.i++
					continue
				}
				if last-first > splitFiles/4 {
					h.i++
					return j, true
				}
			}
			j.to = min(h.i+int(max(1, batchSize/size)), u.n)
		}
		h.i = j.to
		return j, true
	}
}

// run hashes with a number of workers and waits for them.
func (h *hashing) run(workers int, progress func(done int64)) error {
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	h.ctx = ctx
	var wg, waiter crew.Crew
	for range workers {
		wg.Go(func() {
			if err := h.work(); err != nil {
				cancel(err)
			}
		})
	}
	ended := make(chan struct{})
	waiter.Go(func() { wg.Wait(); close(ended) })
	if progress != nil {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for running := true; running; {
			select {
			case <-tick.C:
				progress(h.done.Load())
			case <-ended:
				running = false
			}
		}
	}
	<-ended
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// work does jobs until there are none left.
func (h *hashing) work() error {
	r := newReader(h.s)
	window := windows.Get().(*[windowSize]byte)
	defer windows.Put(window)
	var buf []byte
	if !h.fixed {
		buf = make([]byte, h.cutter.Max()+windowSize)
	}
	err := h.ctx.Err()
	for err == nil {
		j, ok := h.next()
		if !ok {
			break
		}
		switch {
		case j.sp != nil:
			err = h.splitJob(r, j)
		case h.fixed:
			err = h.fixedJob(r, j, window[:])
		default:
			err = h.partJob(r, j, buf)
		}
		if err == nil {
			err = h.ctx.Err()
		}
	}
	if cerr := r.close(); err == nil {
		err = cerr
	}
	return err
}

// fixedJob hashes the chunks [j.from, j.to) of a unit.
func (h *hashing) fixedJob(r *reader, j job, window []byte) error {
	u, size := j.u, int64(h.cutter.Size())
	off := u.start + int64(j.from)*size
	end := min(u.start+int64(j.to)*size, u.end)
	i := u.first + j.from
	chunkEnd := min(off+size, u.end)
	var hasher *chunk.Hasher // of a chunk longer than the window
	defer func() {
		if hasher != nil {
			hasher.Release()
		}
	}()
	for off < end {
		p := window[:min(int64(len(window)), end-off)]
		if err := r.readAt(p, off); err != nil {
			return err
		}
		h.done.Add(int64(len(p)))
		for len(p) > 0 {
			n := int(min(int64(len(p)), chunkEnd-off))
			whole := hasher == nil && off+int64(n) == chunkEnd
			switch {
			case whole:
				h.hashes[i] = chunk.Sum(p[:n])
			case hasher == nil:
				hasher = chunk.NewHasher()
				fallthrough
			default:
				hasher.Write(p[:n])
			}
			p, off = p[n:], off+int64(n)
			if off == chunkEnd {
				if !whole {
					h.hashes[i] = hasher.Sum()
					hasher.Reset()
				}
				i++
				chunkEnd = min(chunkEnd+size, u.end)
				if !whole {
					hasher.Release()
					hasher = nil
				}
			}
		}
		if err := h.ctx.Err(); err != nil {
			return err
		}
	}
	return h.finished(r, u, j.to-j.from)
}

// splitJob reads some of the files of a chunk; who reads the last hashes it.
func (h *hashing) splitJob(r *reader, j job) error {
	sp := j.sp
	buf := sp.buf[:cap(sp.buf)]
	from := max(h.s.offsets[j.file], sp.start)
	to := min(h.s.offsets[j.last], sp.start+int64(len(buf)))
	if err := r.readAt(buf[from-sp.start:to-sp.start], from); err != nil {
		return err
	}
	h.done.Add(to - from)
	if sp.left.Add(-1) > 0 {
		return nil
	}
	h.hashes[sp.index] = chunk.Sum(buf)
	return h.finished(r, j.u, 1)
}

// finished takes n chunks or parts of u as done, and caches it after the last.
func (h *hashing) finished(r *reader, u *unit, n int) error {
	if u.left.Add(-int64(n)) > 0 {
		return nil
	}
	if !h.fixed {
		if err := h.join(r, u); err != nil {
			return err
		}
	}
	return nil
}

// partJob cuts one part of a content-defined segment as if a chunk began there.
func (h *hashing) partJob(r *reader, j job, buf []byte) error {
	u := j.u
	start, end := h.part(u, j.from)
	cuts := make([]cut, 0, (end-start)/int64(h.cutter.Size())+1)
	err := h.cutFrom(r, u, start, buf, func(c cut) bool {
		cuts = append(cuts, c)
		h.done.Add(max(0, min(int64(c.len), end-c.start)))
		return c.start+int64(c.len) < end
	})
	if err != nil {
		return err
	}
	u.parts[j.from] = cuts
	return h.finished(r, u, 1)
}

func (h *hashing) part(u *unit, i int) (start, end int64) {
	n := (u.end - u.start) / int64(u.n)
	start, end = u.start+int64(i)*n, u.start+int64(i+1)*n
	if i == u.n-1 {
		end = u.end
	}
	return start, end
}

// cutFrom cuts the unit from off on until yield returns false or the unit ends.
func (h *hashing) cutFrom(r *reader, u *unit, off int64, buf []byte, yield func(cut) bool) error {
	var p []byte // what is read and not cut, at off
	head := 0    // where in buf p begins
	for off < u.end {
		left := u.end - off
		// Most chunks end soon after the nominal size, so try with little more first:
		// what was read is then still in the processor's cache.
		n := 0
		if want := min(left, int64(2*h.cutter.Size()), int64(h.cutter.Max())); int64(len(p)) >= want {
			n = h.cutter.Next(p)
			if n == len(p) && int64(n) < left && n < h.cutter.Max() {
				n = 0
			}
		}
		if n == 0 {
			if err := h.ctx.Err(); err != nil {
				return err
			}
			if head+len(p)+windowSize > len(buf) {
				copy(buf, p)
				head, p = 0, buf[:len(p)]
			}
			more := min(left-int64(len(p)), windowSize)
			q := buf[head+len(p) : head+len(p)+int(more)]
			if err := r.readAt(q, off+int64(len(p))); err != nil {
				return err
			}
			p = buf[head : head+len(p)+int(more)]
			continue
		}
		if !yield(cut{off, n, chunk.Sum(p[:n])}) {
			return nil
		}
		p, head, off = p[n:], head+n, off+int64(n)
	}
	return nil
}

// join puts the parts of a unit together: where a part's cuts go on beyond its end
// they meet those of the next part at some cut, from which on both are the same,
// as a cut depends on nothing before it. Until then the chunks are cut anew.
func (h *hashing) join(r *reader, u *unit) error {
	cuts := u.parts[0]
	var buf []byte
	for i := 1; i < u.n; i++ {
		next := u.parts[i]
		off := cuts[len(cuts)-1].start + int64(cuts[len(cuts)-1].len)
		_, partEnd := h.part(u, i)
		k := 0
		meet := func() bool {
			for k < len(next) && next[k].start < off {
				k++
			}
			return k < len(next) && next[k].start == off || off >= partEnd
		}
		if !meet() {
			if buf == nil {
				buf = make([]byte, h.cutter.Max()+windowSize)
			}
			err := h.cutFrom(r, u, off, buf, func(c cut) bool {
				cuts = append(cuts, c)
				off += int64(c.len)
				return !meet()
			})
			if err != nil {
				return err
			}
		}
		if k < len(next) && next[k].start == off {
			cuts = append(cuts, next[k:]...)
		}
	}
	u.cuts, u.parts = cuts, nil
	return nil
}

// chunks yields the length and the hash of each chunk, in order, and whether it was
// hashed in this run and not found in the cache.
func (h *hashing) chunks(yield func(length int64, hash chunk.Hash, hashed bool) error) error {
	size := int64(h.cutter.Size())
	for i := range h.units {
		u := &h.units[i]
		if h.fixed {
			for k := range u.n {
				length := min(size, u.end-u.start-int64(k)*size)
				if err := yield(length, h.hashes[u.first+k], !u.cached); err != nil {
					return err
				}
			}
			continue
		}
		for _, c := range u.cuts {
			if err := yield(int64(c.len), c.hash, !u.cached); err != nil {
				return err
			}
		}
	}
	return nil
}

// numChunks returns the number of chunks, once they are known.
func (h *hashing) numChunks() (int, error) {
	n := len(h.hashes)
	for i := range h.units {
		n += len(h.units[i].cuts)
	}
	if n > chunk.MaxNum {
		return 0, fmt.Errorf("share has %d chunks, the limit is %d: %w", n, chunk.MaxNum, ErrTooLarge)
	}
	return n, nil
}
