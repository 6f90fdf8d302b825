package reuse

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/transfer/store"
)

var errShort = io.ErrUnexpectedEOF

// bySizes cuts the files that have the size of one that is missing: they may be
// the same under another name.
func (f *finder) bySizes() error {
	for e, x := range f.m.Entries() {
		if !f.large(x.Size) {
			continue
		}
		if first, end := f.m.Chunks(e); f.wants(first, end) {
			f.sizes[x.Size] = struct{}{}
		}
	}
	if len(f.sizes) == 0 {
		return nil
	}
	return f.cutFiles(func(name string, i store.Info) bool {
		_, ok := f.sizes[i.Size]
		return ok
	}, nil)
}

// byContent cuts all other files as the share was cut. Small files are cut one
// behind the other, in the order in which they lie in the share.
func (f *finder) byContent() error {
	f.prepareTogether()
	return f.cutFiles(func(name string, i store.Info) bool {
		_, did := f.sizes[i.Size]
		return !did
	}, func(p Place) *run { return &run{f: f, place: p, c: f.newCutting(nil)} })
}

// A job is a large file that is to be cut.
type job struct {
	place Place
	name  string
}

// cutFiles walks all places and cuts those large files that choose picks, several
// at once, and the small ones, if newRun is not nil, in runs.
func (f *finder) cutFiles(choose func(name string, i store.Info) bool, newRun func(Place) *run) error {
	jobs := make(chan job)
	var wg crew.Crew
	for range f.workers() {
		wg.Go(func() {
			for j := range jobs {
				if f.nothingLeft() {
					continue
				}
				if err := f.cutFile(j); err != nil {
					f.fail(err)
				}
			}
		})
	}
	err := f.walkPlaces(choose, newRun, jobs)
	close(jobs)
	wg.Wait()
	if f.ctx.Err() != nil {
		return f.cause()
	}
	return err
}

func (f *finder) walkPlaces(choose func(name string, i store.Info) bool, newRun func(Place) *run, jobs chan<- job) error {
	for _, p := range f.o.Places {
		var small *run
		if newRun != nil {
			small = newRun(p)
		}
		err := f.walk(p, func(name string, i store.Info) error {
			switch {
			case i.Size == 0:
				return nil
			case !f.large(i.Size):
				if small == nil {
					return nil
				}
				f.noteLikely(p, name, i)
				return small.add(name)
			}
			if small != nil {
				if err := small.end(); err != nil {
					return err
				}
			}
			if f.isDone(i) || !choose(name, i) {
				return nil
			}
			f.setDone(i) // a second name of it, or a second place that holds it, has nothing new
			select {
			case jobs <- job{p, name}:
				return nil
			case <-f.ctx.Done():
				return f.cause()
			}
		})
		if small != nil {
			if eerr := small.end(); err == nil {
				err = eerr
			}
			small.c.release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A cutting cuts bytes that come in pieces, and takes the chunks that are wanted.
type cutting struct {
	f     *finder
	buf   []byte
	whole *[]byte    // buf, as the pool knows it
	head  int        // where in buf what is not cut yet begins,
	n     int        // and how long it is
	src   store.File // where it comes from, if it is one file
	off   int64      // of head in src
	cuts  []byte     // what was cut, as it is cached,
	keep  bool       // if it is to be
}

func (f *finder) newCutting(src store.File) *cutting {
	b := f.bufs.Get().(*[]byte)
	return &cutting{f: f, buf: *b, whole: b, src: src}
}

func (c *cutting) release() { c.f.bufs.Put(c.whole) }

// room returns where the next bytes go.
func (c *cutting) room() []byte {
	if len(c.buf)-c.head-c.n < windowLen {
		copy(c.buf, c.buf[c.head:c.head+c.n])
		c.head = 0
	}
	at := c.head + c.n
	return c.buf[at:min(len(c.buf), at+windowLen)]
}

// added says that n bytes were put there, and cuts what can be cut.
func (c *cutting) added(n int) error {
	c.n += n
	for c.n >= c.f.m.Cutter().Max() {
		if err := c.cut(); err != nil {
			return err
		}
	}
	return nil
}

// end cuts the rest: the next bytes belong to something else.
func (c *cutting) end() error {
	for c.n > 0 {
		if err := c.cut(); err != nil {
			return err
		}
	}
	c.head, c.off = 0, 0
	return nil
}

func (c *cutting) cut() error {
	p := c.buf[c.head : c.head+c.n]
	p = p[:c.f.m.Cutter().Next(p)]
	h := chunk.Sum(p)
	if err := c.f.takeAll(h, p, c.src, c.off); err != nil {
		return err
	}
	if c.keep {
		if len(c.cuts) < maxCached*cachedLen {
			c.cuts = binary.LittleEndian.AppendUint32(c.cuts, uint32(len(p)))
			c.cuts = append(c.cuts, h[:]...)
		} else {
			c.keep = false
		}
	}
	c.head, c.n, c.off = c.head+len(p), c.n-len(p), c.off+int64(len(p))
	return nil
}

// cutFile looks for chunks in one large file. Its error is the sink's.
func (f *finder) cutFile(j job) error {
	file, before, err := open(j.place.Disk, j.name)
	if err != nil {
		f.unreadable(j.place, j.name, err)
		return nil
	}
	defer file.Close()
	began := time.Now()
	key := f.key(before)
	if f.o.Cache != nil {
		if cuts, ok := f.o.Cache.Get(key); ok && f.plausible(cuts, before.Size) {
			return f.fromCache(j, file, cuts)
		}
	}
	c := f.newCutting(file)
	defer c.release()
	c.keep = f.o.Cache != nil
	for at := int64(0); ; {
		p := c.room()
		n, err := file.ReadAt(p, at)
		f.noteRead(n)
		at += int64(n)
		if aerr := c.added(n); aerr != nil {
			return aerr
		}
		if f.ctx.Err() != nil {
			return f.cause()
		}
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			break
		}
		if err != nil {
			f.unreadable(j.place, j.name, err)
			return nil // what is not cut yet may lack its end
		}
	}
	if err := c.end(); err != nil {
		return err
	}
	after, err := file.Info()
	if c.keep && err == nil && after.Stat == before.Stat && !racy(before, began) {
		f.o.Cache.Put(key, c.cuts)
	}
	return nil
}

// What is cached of a file: the length (4 bytes) and the hash of each chunk.
const (
	cachedLen = 4 + len(chunk.Hash{})
	maxCached = 1 << 16 // chunks of a file; more are not kept
)

// key names a file as it is now, and how it is cut.
func (f *finder) key(i store.Info) chunk.Hash {
	h := chunk.NewHasher()
	defer h.Release()
	_, _ = h.WriteString("shoal reuse 1\n" + f.m.Cutter().String() + "\n") // a hash takes everything
	var p [8 * 5]byte
	for k, v := range []uint64{uint64(i.Size), uint64(i.MTime), uint64(i.CTime), i.Dev, i.Ino} {
		binary.LittleEndian.PutUint64(p[8*k:], v)
	}
	_, _ = h.Write(p[:])
	return h.Sum()
}

// racy reports whether a file was changed so shortly before it was read that
// another change would not show in its times. 2 s is the step of the coarsest.
func racy(i store.Info, began time.Time) bool {
	return i.Ino == 0 || max(i.MTime, i.CTime) > began.Add(-2*time.Second).UnixNano()
}

// plausible reports whether a cached value fits a file of this size.
func (f *finder) plausible(cuts []byte, size int64) bool {
	if len(cuts) == 0 || len(cuts)%cachedLen != 0 {
		return false
	}
	for ; len(cuts) > 0; cuts = cuts[cachedLen:] {
		n := binary.LittleEndian.Uint32(cuts)
		if n == 0 || int64(n) > int64(f.m.Cutter().Max()) {
			return false
		}
		size -= int64(n)
	}
	return size == 0
}

// fromCache reads only what the cache says to be wanted, and believes none of it.
func (f *finder) fromCache(j job, file store.File, cuts []byte) error {
	b := f.bufs.Get().(*[]byte)
	defer f.bufs.Put(b)
	for off := int64(0); len(cuts) > 0; cuts = cuts[cachedLen:] {
		n := int64(binary.LittleEndian.Uint32(cuts))
		h := chunk.Hash(cuts[4:cachedLen])
		for _, i := range f.lookup(h) {
			if !f.wanted(int(i)) {
				continue
			}
			p := (*b)[:n]
			if err := f.readAt(file, p, off); err != nil {
				if f.ctx.Err() != nil {
					return err
				}
				f.unreadable(j.place, j.name, err)
				return nil
			}
			if chunk.Sum(p) != h {
				return nil // it has changed, and says that it has not
			}
			if err := f.takeAll(h, p, file, off); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}

// A run is small files that are cut as one.
type run struct {
	f     *finder
	place Place
	c     *cutting
}

// add cuts the content of a small file behind that of the one before. One that
// changes, or cannot be read, costs the chunks that it lies in.
func (r *run) add(name string) error {
	file, _, err := open(r.place.Disk, name)
	if err != nil {
		r.f.unreadable(r.place, name, err)
		return nil
	}
	defer file.Close()
	for at := int64(0); ; {
		n, err := file.ReadAt(r.c.room(), at)
		r.f.noteRead(n)
		at += int64(n)
		if aerr := r.c.added(n); aerr != nil {
			return aerr
		}
		if errors.Is(err, io.EOF) || err == nil && n == 0 || at >= int64(r.f.m.Cutter().Size()) {
			return nil
		}
		if err != nil {
			r.f.unreadable(r.place, name, err)
			return nil
		}
	}
}

func (r *run) end() error { return r.c.end() }
