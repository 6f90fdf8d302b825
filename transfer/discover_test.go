package transfer

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A get that knows no address fetches from what it discovers, however little sense
// the other things make that it is told.
func TestDiscover(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	us := n.node()
	o := GetOptions{
		Root: s.Manifest().Root(), Dir: dir, Timeout: 10 * time.Second, Network: us,
		Discover: func(_ context.Context, found func(string)) {
			for _, addr := range []string{us.addr, "", "nonsense", "198.51.100.1:1", s.node.addr, s.node.addr} {
				found(addr)
			}
		},
	}
	_, err := Get(t.Context(), o)
	must(t, err)
	same(t, s.Manifest(), filepath.Join(dir, "tree"))
}

// A peer that is found at a second address has one connection all the same, and
// that address is not dialled over and over.
func TestDiscoverTwoAddresses(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	s.node.up.rate = 5e6
	n.mu.Lock()
	n.nodes["198.51.100.2:7420"] = s.node
	n.mu.Unlock()
	us := &countingNetwork{Network: n.node()}
	twice := 0
	o := GetOptions{
		Root: s.Manifest().Root(), Addrs: []string{s.node.addr}, Dir: dir, Timeout: 10 * time.Second, Network: us,
		Discover: func(ctx context.Context, found func(string)) {
			for ctx.Err() == nil {
				found("198.51.100.2:7420")
				time.Sleep(time.Millisecond)
			}
		},
		Events: func(e Event) {
			if p, ok := e.(Progress); ok {
				if p.Peers > 1 {
					twice++
				}
			}
		},
	}
	_, err := Get(t.Context(), o)
	must(t, err)
	if twice > 1 { // for a moment there may be two
		t.Error("two connections to one peer")
	}
	if n := len(us.dials("198.51.100.2:7420")); n > 3 {
		t.Errorf("the second address was dialled %d times", n)
	}
}

// A countingNetwork notes when hosts are dialled.
type countingNetwork struct {
	Network

	mu   sync.Mutex
	at   map[string][]time.Time // by host
	by   map[string][]time.Time // by address
	now  int
	most int
}

func (n *countingNetwork) dials(addr string) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.by[addr]
}

func (n *countingNetwork) Dial(ctx context.Context, addr string, key [32]byte) (Conn, error) {
	host, _, _ := strings.Cut(addr, ":")
	n.mu.Lock()
	if n.at == nil {
		n.at, n.by = map[string][]time.Time{}, map[string][]time.Time{}
	}
	n.at[host] = append(n.at[host], time.Now())
	n.by[addr] = append(n.by[addr], time.Now())
	n.now++
	n.most = max(n.most, n.now)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.now--
		n.mu.Unlock()
	}()
	return n.Network.Dial(ctx, addr, key)
}
