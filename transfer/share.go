package transfer

import (
	"context"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A Share serves a file or a tree straight from where it lies.
type Share struct {
	m       *manifest.Manifest
	origin  *store.Origin
	sw      *swarm
	network Network
}

// NewShare walks and hashes what o names. It serves nobody before Serve is
// called. Errors are those of manifest.Build.
func NewShare(ctx context.Context, o ShareOptions) (*Share, error) {
	emit := serialised(o.Events)
	b := o.Build
	if b.Progress == nil {
		b.Progress = func(done, total int64) { emit(Hashing{Done: done, Total: total}) }
	}
	if b.Skipped == nil {
		b.Skipped = func(path, why string) { emit(Skipped{Path: path, Why: why}) }
	}
	m, src, err := manifest.Build(ctx, o.Paths, b)
	if err != nil {
		return nil, err
	}
	s := &Share{m: m, origin: store.NewOrigin(m, src), network: o.Network}
	s.sw = newSwarm(m.Root(), o.Network, o.Port, emit)
	s.sw.limits, s.sw.peerMax = o.Limits.orNone(), orMax(o.MaxPeers)
	o.Inspect.look(s.sw)
	have := chunk.NewBitfield(m.NumChunks())
	have.Fill()
	s.sw.serve(m, s.origin, have)
	return s, nil
}

// Manifest returns what is shared.
func (s *Share) Manifest() *manifest.Manifest { return s.m }

// Serve answers peers until ctx ends, and returns when the last of them is
// gone. It may be called once.
func (s *Share) Serve(ctx context.Context) error {
	var wg crew.Crew
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := s.network.Accept(s.m.Root(), func(c Conn) { _ = s.sw.join(ctx, c, nil) })
	wg.Go(func() { s.sw.watch(ctx) })
	<-ctx.Done()
	s.sw.closeAll()
	stop()
	wg.Wait()
	return s.origin.Close()
}

// Stats may be called at any time.
func (s *Share) Stats() Stats { return s.sw.statsNow() }

// serialised wraps f so that its calls come one at a time; f may be nil.
func serialised(f func(Event)) func(Event) {
	if f == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		f(e)
	}
}
