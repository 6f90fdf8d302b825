package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/reuse"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// reusing is what a get has found in other files.
type reusing struct {
	running atomic.Bool     // it searches: that nothing comes from peers means nothing
	chunks  *chunk.Bitfield // what was found; nil: it has not searched
	size    int64           // bytes of the selection in them
}

// addTo adds what was found to a set of chunks.
func (r *reusing) addTo(b *chunk.Bitfield) {
	if r.chunks == nil {
		return
	}
	for i := r.chunks.NextSet(0); i >= 0; i = r.chunks.NextSet(i + 1) {
		b.Set(i)
	}
}

// findReusable fills the store with what lies in the files that may be reused.
// final is where the share will be.
func (g *getter) findReusable(final string) error {
	paths := g.o.Reuse
	if _, err := os.Lstat(final); err == nil && g.o.Update {
		paths = append([]string{final}, paths...)
	}
	places, closeAll := openPlaces(paths, g.emit)
	defer closeAll()
	if len(places) == 0 {
		return nil
	}
	want := chunk.NewBitfield(g.m.NumChunks())
	have := g.store.Have()
	for i := range g.m.NumChunks() {
		if !have.Has(i) && (g.sel == nil || g.sel.Chunks.Has(i)) {
			want.Set(i)
		}
	}
	if want.None() {
		return nil
	}
	g.reuse.running.Store(true)
	defer g.reuse.running.Store(false)
	sink := &reuseSink{Store: g.store, found: chunk.NewBitfield(g.m.NumChunks()), flushedAt: time.Now()}
	own, ownErr := os.Lstat(final + store.PartSuffix)
	read, found := int64(0), int64(0)
	err := reuse.Find(g.ctx, reuse.Options{
		Manifest: g.m, Want: want, Places: places, Sink: sink, Cache: g.o.Cache,
		Avoid: func(name string, i store.Info) bool {
			if ownErr != nil || name != own.Name() {
				return false
			}
			st := manifest.StatOf(own)
			return st.Ino == i.Ino && st.Dev == i.Dev
		},
		Report: func(r, f int64) {
			read, found = r, f
			g.emit(Reusing{Read: r, Found: f, Shared: g.store.Cloned()})
		},
		Warn: unreadable(g.emit),
	})
	g.reuse.chunks = sink.found
	need := neededBytes(g.m, g.sel)
	for i := sink.found.NextSet(0); i >= 0; i = sink.found.NextSet(i + 1) {
		g.reuse.size += need(i)
	}
	if err == nil {
		g.emit(Reusing{Read: read, Found: found, Shared: g.store.Cloned(), Done: true})
	}
	return err
}

// openPlaces opens what is to be searched. What cannot be opened is told of.
func openPlaces(paths []string, emit func(Event)) (places []reuse.Place, closeAll func()) {
	var disks []*store.OSDisk
	closeAll = func() {
		for _, d := range disks {
			_ = d.Close() // only read from
		}
	}
	for _, path := range paths {
		dir, name := path, "."
		if fi, err := os.Stat(path); err != nil {
			emit(Warning{Text: fmt.Sprintf("%q cannot be reused: %s", path, reason(err))})
			continue
		} else if !fi.IsDir() {
			dir, name = filepath.Dir(path), filepath.Base(path)
		}
		d, err := store.OpenDisk(dir)
		if err != nil {
			emit(Warning{Text: fmt.Sprintf("%q cannot be reused: %s", path, reason(err))})
			continue
		}
		disks = append(disks, d)
		places = append(places, reuse.Place{Disk: d, Name: name})
	}
	return places, closeAll
}

func unreadable(emit func(Event)) func(place, name string, err error) {
	return func(place, name string, err error) {
		emit(Warning{Text: fmt.Sprintf("%q cannot be read: %s", filepath.Join(place, filepath.FromSlash(name)), reason(err))})
	}
}

// reason returns the part of a file error that says why.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return strings.TrimSpace(err.Error())
}

// A reuseSink notes what comes into a store, and makes it durable now and then: a
// search may take long.
type reuseSink struct {
	*store.Store

	mu        sync.Mutex
	found     *chunk.Bitfield
	dirty     int64 // bytes since the last barrier
	flushedAt time.Time
}

// Write implements reuse.Sink.
func (s *reuseSink) Write(i int, p []byte) error {
	if err := s.Store.Write(i, p); err != nil {
		return err
	}
	return s.note(i, len(p))
}

// WriteFrom implements reuse.Sink.
func (s *reuseSink) WriteFrom(i int, p []byte, src store.File, off int64) error {
	if err := s.Store.WriteFrom(i, p, src, off); err != nil {
		return err
	}
	return s.note(i, len(p))
}

func (s *reuseSink) note(i, n int) error {
	s.mu.Lock()
	s.found.Set(i)
	s.dirty += int64(n)
	due := s.dirty >= barrierBytes || time.Since(s.flushedAt) >= barrierTime
	if due {
		s.dirty, s.flushedAt = 0, time.Now()
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	return s.Barrier()
}
