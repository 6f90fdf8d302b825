package transfer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// The simulation runs the real swarm code (picker, windows, what is shown, who
// is served, hints) of many peers over a network in memory, in a time that is
// not real. The share consists of zeros, so that no bytes need to be kept.

// zeros is a store and a source of zeros.
type zeros struct{}

func (zeros) ReadAt(int, int, []byte) error { return nil }
func (zeros) Write(int, []byte) error       { return nil }
func (zeros) Drop(int) error                { return nil }
func (zeros) Complete(int) bool             { return true }

// A simPeer is one leech of a simulation.
type simPeer struct {
	node *memNode
	sw   *swarm
	down float64
	done time.Duration
	free bool // takes and does not give
}

type simulation struct {
	net     *memNet
	m       *manifest.Manifest
	began   time.Time
	seed    *simPeer
	leeches []*simPeer
	wg      sync.WaitGroup
}

// zeroShare returns the manifest of a file of n zero bytes.
func zeroShare(t testing.TB, n int64) *manifest.Manifest {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zeros")
	must(t, os.WriteFile(file, nil, 0o644))
	must(t, os.Truncate(file, n))
	m, _, err := manifest.Build(t.Context(), []string{file}, manifest.BuildOptions{Cutter: "fixed"})
	must(t, err)
	return m
}

func (s *simulation) node(up, down float64, delay time.Duration) *memNode {
	n := s.net.node()
	n.blank, n.up.rate, n.down.rate, n.delay = true, up, down, delay
	return n
}

// serve starts the seed.
func (s *simulation) serve(ctx context.Context, up float64) {
	p := &simPeer{node: s.node(up, up, 5*time.Millisecond)}
	p.sw = newSwarm(s.m.Root(), p.node, 7420, func(Event) {})
	have := chunk.NewBitfield(s.m.NumChunks())
	have.Fill()
	p.sw.serve(s.m, zeros{}, have)
	p.node.Accept(s.m.Root(), func(c Conn) { _ = p.sw.join(ctx, c, nil) })
	s.wg.Go(func() { p.sw.watch(ctx) })
	s.seed = p
}

// leech starts a peer that gets the share and serves it until ctx ends.
func (s *simulation) leech(ctx context.Context, up, down float64, finished func()) *simPeer {
	p := &simPeer{node: s.node(up, down, 5*time.Millisecond), down: down}
	p.sw = newSwarm(s.m.Root(), p.node, 7420, func(Event) {})
	began := time.Now()
	f := &fetch{failed: func(err error) { panic(err) }}
	f.complete = sync.OnceFunc(func() { p.done = time.Since(began); finished() })
	d := &dialler{sw: p.sw}
	s.wg.Go(func() { p.sw.watch(ctx) })
	stop := p.node.Accept(s.m.Root(), func(c Conn) { _ = p.sw.join(ctx, c, nil) })
	d.follow(ctx)
	d.add(ctx, s.seed.node.addr)
	p.sw.fetchInto(s.m, zeros{}, nil, chunk.NewBitfield(s.m.NumChunks()), f)
	s.wg.Go(p.sw.work)
	s.wg.Go(func() {
		<-ctx.Done()
		p.sw.closeAll()
		stop()
		d.wait()
		p.sw.drained()
		close(f.results)
	})
	s.leeches = append(s.leeches, p)
	return p
}

// report says how it went; ideal is the shortest time in which the last leech
// could have been done.
func (s *simulation) report(ideal time.Duration) (last time.Duration, seedRatio, dup, control float64) {
	var times []time.Duration
	var used, wasted, ctl, data int64
	for _, p := range s.leeches {
		if p.free {
			continue
		}
		times = append(times, p.done)
	}
	for _, p := range append(s.leeches, s.seed) {
		st := p.sw.statsNow()
		for _, q := range st.Peers {
			used += q.Used
		}
		wasted += st.Wasted
		ctl += p.node.control.Load()
		data += p.node.payload.Load()
	}
	slices.Sort(times)
	last = times[len(times)-1]
	return last, float64(s.seed.node.payload.Load()) / float64(s.m.Size()), float64(wasted) / float64(used), float64(ctl) / float64(data)
}

func simulate(t *testing.T, name string, n int, size int64, rates func(r *rand.Rand) (up, down float64), seedUp float64) {
	m := zeroShare(t, size)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &simulation{net: newMemNet(), m: m, began: time.Now()}
		s.serve(ctx, seedUp)
		r := rand.New(rand.NewPCG(1, uint64(n)))
		var left sync.WaitGroup
		slowest := seedUp
		for range n {
			up, down := rates(r)
			slowest = min(slowest, down)
			left.Add(1)
			s.leech(ctx, up, down, left.Done)
			time.Sleep(3 * time.Millisecond)
		}
		dbg := make(chan struct{})
		s.wg.Go(func() {
			for {
				select {
				case <-dbg:
					return
				case <-time.After(250 * time.Millisecond):
				}
				v := s.seed.sw
				v.mu.Lock()
				line := fmt.Sprintf("%v shown=%d uniq=%d sent=%.0f |", time.Since(s.began).Round(time.Millisecond), v.reveal.shown.Count(), v.reveal.sent.Count(), float64(s.seed.node.payload.Load())/131072)
				for _, q := range v.sessions {
					a := -1
					if q.shown != nil {
						a = q.shown.Count()
					}
					line += fmt.Sprintf(" %d/%d", a, q.backlog>>17)
				}
				v.mu.Unlock()
				line += "|"
				for _, p := range s.leeches {
					line += fmt.Sprintf(" %d", p.sw.have.Count())
				}
				t.Log(line)
			}
		})
		left.Wait()
		close(dbg)
		ideal := time.Duration(float64(size) / slowest * float64(time.Second))
		last, seed, dup, control := s.report(ideal)
		cancel()
		s.wg.Wait()
		t.Log(fmt.Sprintf("%s: %d leeches, last after %v = %.2f of ideal; seed sent %.2f copies; duplicates %.2f %%; control %.3f %%",
			name, n, last.Round(time.Millisecond), float64(last)/float64(ideal), seed, 100*dup, 100*control))
	})
}

func TestSimulation(t *testing.T) {
	simulate(t, "S4", 8, 64<<20, func(*rand.Rand) (float64, float64) { return 12.5e6, 12.5e6 }, 12.5e6)
}
