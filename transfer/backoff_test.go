//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A dialLog is a network that notes when it is dialled.
type dialLog struct {
	Network
	mu sync.Mutex
	at []time.Time
}

func (n *dialLog) Dial(ctx context.Context, addr string, key [32]byte) (Conn, error) {
	n.mu.Lock()
	n.at = append(n.at, time.Now())
	n.mu.Unlock()
	return n.Network.Dial(ctx, addr, key)
}

// An address whose connections break off, or where nobody answers, is dialled again
// after waits that grow to a quarter of a minute, give or take half, and do not end.
func TestN01Backoff(t *testing.T) {
	for name, deaf := range map[string]bool{"refuses": true, "breaks off": false} {
		t.Run(name, func(t *testing.T) {
			m := zeroShare(t, 1<<20)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				n := newMemNet()
				to, us := n.node(), &dialLog{Network: n.node()}
				to.setDeaf(deaf)
				to.Accept(m.Root(), func(c Conn) { _ = c.Close(errMemRefused) })
				d := &dialler{sw: newSwarm(m.Root(), us, 0, func(Event) {})}
				d.add(ctx, to.addr)
				time.Sleep(time.Hour)
				cancel()
				d.wait()
				to.calls.Wait()
				for k, at := range us.at[1:] {
					wait, base := at.Sub(us.at[k]), min(firstBackoff<<min(k, 20), lastBackoff)
					if wait < base/2 || wait > base*3/2+time.Second {
						t.Errorf("dial %d: after %v, want about %v", k+1, wait, base)
					}
				}
				if got := len(us.at); got < 150 || got > 500 {
					t.Errorf("dialled %d times in an hour", got)
				}
			})
		})
	}
}

// An address that has not answered for long is tried at once when the last peer that
// gave something has left.
func TestN01DialsWhenAlone(t *testing.T) {
	m := zeroShare(t, 16<<20)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &simulation{net: newMemNet(), m: m}
		s.serve(ctx, 12.5e6)
		s.seed.node.setDeaf(true)
		slow := s.node(100e3, 100e3, 5*time.Millisecond)
		there, leave := context.WithCancel(ctx)
		stop := slow.Accept(m.Root(), func(c Conn) {
			if c.SendHaveAll() == nil {
				_ = c.Run(there, &sleeper{c: c, m: m, left: m.NumChunks()})
			}
		})
		left := make(chan time.Time, 1)
		sw := newSwarm(m.Root(), s.node(12.5e6, 12.5e6, 5*time.Millisecond), 0, func(e Event) {
			if _, ok := e.(PeerDown); ok {
				select {
				case left <- time.Now():
				default: // the first counts
				}
			}
		})
		d := &dialler{sw: sw}
		done := make(chan struct{})
		f := &fetch{failed: func(err error) { t.Error(err) }, complete: func() { close(done) }}
		s.wg.Go(func() { sw.watch(ctx) })
		d.add(ctx, s.seed.node.addr)
		d.add(ctx, slow.addr)
		sw.fetchInto(m, zeros{}, nil, chunk.NewBitfield(m.NumChunks()), f)
		s.wg.Go(sw.work)
		time.Sleep(time.Minute)
		s.seed.node.setDeaf(false)
		leave()
		began := <-left // what is on its way comes first
		<-done
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		stop()
		sw.closeAll()
		s.seed.sw.closeAll()
		d.wait()
		sw.drained()
		close(f.results)
		s.seed.node.calls.Wait()
		slow.calls.Wait()
		s.wg.Wait()
	})
}
