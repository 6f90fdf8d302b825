//go:build !race

// Not under the race detector; see sim_test.go.

package transfer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
