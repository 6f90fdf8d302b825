package reuse

import (
	"context"
	"errors"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (f *finder) cause() error { return context.Cause(f.ctx) }

// atPlace looks for each chunk where it would lie: in a half download, whatever
// holes it has, in an older version, in a file that has grown or was cut.
func (f *finder) atPlace() error {
	for _, b := range f.bases {
		next := make(chan []int)
		var wg crew.Crew
		for range f.workers() {
			wg.Go(func() {
				r := &placeReader{f: f, b: b, missing: -1}
				defer r.close()
				buf := make([]byte, f.m.MaxChunkLen())
				for run := range next {
					for _, i := range run {
						if err := r.chunk(i, buf); err != nil {
							f.fail(err)
							break
						}
					}
				}
			})
		}
		f.handOut(next)
		close(next)
		wg.Wait()
		if f.ctx.Err() != nil {
			return f.cause()
		}
		f.noteDone(b)
		if f.nothingLeft() {
			break
		}
	}
	return nil
}

// handOut sends the wanted chunks, some at a time.
func (f *finder) handOut(next chan<- []int) {
	const batch = 16
	for from := 0; f.ctx.Err() == nil; {
		var run []int
		f.mu.Lock()
		for len(run) < batch {
			i := f.want.NextSet(from)
			if i < 0 {
				break
			}
			run = append(run, i)
			from = i + 1
		}
		f.mu.Unlock()
		if len(run) == 0 {
			return
		}
		select {
		case next <- run:
		case <-f.ctx.Done():
		}
	}
}

// noteDone notes which large files have given all that they could: those of which
// every chunk was found.
func (f *finder) noteDone(b base) {
	for e, x := range f.m.Entries() {
		if !f.large(x.Size) {
			continue
		}
		if first, end := f.m.Chunks(e); f.wants(first, end) {
			continue
		}
		if i, err := b.Disk.Lstat(b.name(f.m, e)); err == nil && i.Size == x.Size {
			f.setDone(i)
		}
	}
}

// A placeReader reads chunks where they would lie under a base, with one file open
// at a time. It belongs to one goroutine.
type placeReader struct {
	f       *finder
	b       base
	entry   int // whose file is open, if file is not nil
	file    store.File
	info    store.Info
	missing int // an entry that is not there, or -1
}

func (r *placeReader) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
		r.file = nil
	}
}

// use opens the file of an entry, unless it is open.
func (r *placeReader) use(entry int) bool {
	if r.file != nil && r.entry == entry {
		return true
	}
	if r.missing == entry {
		return false
	}
	r.close()
	name := r.b.name(r.f.m, entry)
	file, i, err := open(r.b.Disk, name)
	if err != nil {
		r.missing = entry
		return false
	}
	r.entry, r.file, r.info = entry, file, i
	return true
}

// chunk looks for chunk i. Its error is the sink's.
func (r *placeReader) chunk(i int, buf []byte) error {
	f := r.f
	if !f.wanted(i) {
		return nil
	}
	p := buf[:f.m.ChunkLen(i)]
	at, n := 0, 0
	start := int64(0)
	for x := range f.m.Extents(i) {
		if !r.use(x.Entry) {
			return nil
		}
		size := f.m.Entries()[x.Entry].Size
		if r.info.Size < x.Off+int64(x.Len) || !f.large(size) && r.info.Size != size {
			return nil
		}
		if err := f.readAt(r.file, p[at:at+x.Len], x.Off); err != nil {
			if f.ctx.Err() != nil {
				return err
			}
			if !errors.Is(err, errShort) {
				f.unreadable(r.b.Place, r.b.name(f.m, x.Entry), err)
			}
			return nil
		}
		at += x.Len
		start = x.Off
		n++
	}
	if chunk.Sum(p) != f.m.ChunkHash(i) {
		return nil
	}
	if n > 1 {
		return f.take(i, p, nil, 0)
	}
	return f.take(i, p, r.file, start)
}
