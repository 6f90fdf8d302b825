package transfer

import (
	"context"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/reuse"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A Stock says how much of a share was found.
type Stock struct {
	Chunks   *chunk.Bitfield // what was found
	Size     int64           // bytes of it
	NumFiles int             // files of the share
	Whole    int             // those of which every chunk was found
}

// TakeStock looks for a share in files and folders, as a Get with these paths to
// reuse would, and changes nothing. cache and events may be nil.
func TakeStock(ctx context.Context, m *manifest.Manifest, paths []string, cache manifest.Cache, events func(Event)) (*Stock, error) {
	emit := serialised(events)
	places, closeAll := openPlaces(paths, emit)
	defer closeAll()
	want := chunk.NewBitfield(m.NumChunks())
	want.Fill()
	s := &stockSink{found: chunk.NewBitfield(m.NumChunks())}
	read, found := int64(0), int64(0)
	err := reuse.Find(ctx, reuse.Options{
		Manifest: m, Want: want, Places: places, Sink: s, Cache: cache,
		Report: func(r, f int64) {
			read, found = r, f
			emit(Reusing{Read: r, Found: f})
		},
		Warn: unreadable(emit),
	})
	if err != nil {
		return nil, err
	}
	emit(Reusing{Read: read, Found: found, Done: true})
	stock := &Stock{Chunks: s.found}
	for i := s.found.NextSet(0); i >= 0; i = s.found.NextSet(i + 1) {
		stock.Size += int64(m.ChunkLen(i))
	}
	for e, x := range m.Entries() {
		if x.Kind != manifest.File {
			continue
		}
		stock.NumFiles++
		first, end := m.Chunks(e)
		if i := s.found.NextClear(first); i < 0 || i >= end {
			stock.Whole++
		}
	}
	return stock, nil
}

// A stockSink only counts.
type stockSink struct {
	mu    sync.Mutex
	found *chunk.Bitfield
}

// Write implements reuse.Sink.
func (s *stockSink) Write(i int, _ []byte) error {
	s.mu.Lock()
	s.found.Set(i)
	s.mu.Unlock()
	return nil
}

// WriteFrom implements reuse.Sink.
func (s *stockSink) WriteFrom(i int, p []byte, _ store.File, _ int64) error { return s.Write(i, p) }
