package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// Chunks of the greatest size: few of them fit into the memory of a get, and one may
// take longer than a peer is waited for that has sent nothing.

// largeChunks makes a file of n bytes in such chunks, and seeds for it, each of which
// sends so fast.
func largeChunks(t *testing.T, n, seeds int, rate string) (data []byte, m *manifest.Manifest, addrs []string) {
	t.Helper()
	dir := t.TempDir()
	data = noise(n)
	must(t, os.WriteFile(filepath.Join(dir, "data"), data, 0o644))
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "data")}, manifest.BuildOptions{Cutter: "fixed", ChunkSize: 16 << 20})
	must(t, err)
	for i := range seeds {
		s := start(t, filepath.Join(dir, fmt.Sprint(i)), "share", "--json", "-q", "--limit-up", rate,
			"--chunk-size", "16M", "--listen", "127.0.0.1:0", filepath.Join(dir, "data"))
		addrs = append(addrs, s.wait("ticket")["listen"].(string))
	}
	return data, m, addrs
}

// Peers that each stop in the middle of a chunk, and one that does not: they do not
// keep the buffers from it.
func TestE05ManyStallMidway(t *testing.T) {
	t.Parallel()
	data, m, addrs := largeChunks(t, 96<<20, 1, "20M")
	midway := behaviour{name: "midway", run: manifestFirst(func(c *badConn, i int) bool {
		c.sayf("data %d 0 262144\n%s", i, c.bytes(i)[:131072])
		c.hang()
		return false
	})}
	for range 63 {
		addrs = append(addrs, newVillain(t, midway, m, data).at)
	}
	res, err := getFrom(t, m, data, 45*time.Second, addrs...)
	must(t, err)
	t.Logf("%v", res.Elapsed.Round(time.Millisecond))
}

// Slow lines: what comes steadily is waited for, and nothing comes twice. There is a
// chunk for each peer, and the one that comes second gets its own.
func TestSlowPeersOfLargeChunks(t *testing.T) {
	t.Parallel()
	data, m, addrs := largeChunks(t, 32<<20, 2, "2M")
	res, err := getFrom(t, m, data, 45*time.Second, addrs...)
	must(t, err)
	t.Logf("%v", res.Elapsed.Round(time.Millisecond))
	if res.Stats.Wasted > 0 {
		t.Errorf("%d bytes of %d came in vain", res.Stats.Wasted, res.Stats.Received)
	}
	for _, p := range res.Stats.Peers {
		if p.Used == 0 {
			t.Errorf("nothing came from %s", p.Addr)
		}
	}
}
