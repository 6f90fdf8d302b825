package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/peer"
)

// A chaos is a line to one peer with faults that follow from a seed: what befalls
// the k-th connection over it is the same each time.
type chaos struct {
	seed   uint64
	target string
	addr   string // where it listens
}

// The faults of a line, each of which happens at some byte.
const (
	calm = iota
	delays
	cuts
	resets
	corrupts
	doubles
	drops
	throttles
	stalls
	halfCloses
	numFaults
)

// A lineFault happens to the bytes that go one way.
type lineFault struct {
	kind int
	at   int // byte
	long time.Duration
}

// maxFaulty is how many connections of a line have faults; later ones are calm, so
// that there is an end.
const maxFaulty = 5

func (c *chaos) listen(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for k := uint64(0); ; k++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.carry(ctx, nc, k) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
}

// carry passes on what goes over the k-th connection.
func (c *chaos) carry(ctx context.Context, a net.Conn, k uint64) {
	defer a.Close()
	b, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer b.Close()
	defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
	rnd := rand.New(rand.NewPCG(c.seed, k))
	var faults [2]lineFault
	if k < maxFaulty {
		for i := range faults {
			// Most happen in the data, some in the handshake.
			most := []int{600, 4000, 300_000}[rnd.IntN(3)]
			faults[i] = lineFault{kind: rnd.IntN(numFaults), at: rnd.IntN(most), long: time.Duration(rnd.IntN(400)) * time.Millisecond}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { pass(ctx, b, a, faults[0]) })
	both.Go(func() { pass(ctx, a, b, faults[1]) })
	both.Wait()
}

// pass copies from one to the other until the end, with one fault.
func pass(ctx context.Context, to, from net.Conn, f lineFault) {
	sleep := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	end := func() { to.Close(); from.Close() }
	buf := make([]byte, 16<<10)
	for n := 0; ; {
		m, err := from.Read(buf)
		p := buf[:m]
		if hit := f.at - n; hit >= 0 && hit < m {
			switch f.kind {
			case delays, stalls:
				_, _ = to.Write(p[:hit]) // the next one fails as well
				sleep(f.long)
				p = p[hit:]
			case cuts:
				_, _ = to.Write(p[:hit])
				end()
			case resets:
				for _, nc := range []net.Conn{to, from} {
					_ = nc.(*net.TCPConn).SetLinger(0)
				}
				end()
			case corrupts:
				p[hit] ^= 0x10
			case doubles:
				_, _ = to.Write(p[hit:])
			case drops:
				p = p[hit:]
			case halfCloses:
				_, _ = to.Write(p[:hit])
				_ = to.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
		n += m
		if f.kind == throttles && n > f.at {
			sleep(time.Duration(m) * time.Second / 400_000)
		}
		if _, werr := to.Write(p); werr != nil || err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// Four peers over lines with faults of every kind: the file comes, and is right.
// SHOAL_TEST_CHAOS=SEED plays one seed again.
func TestN02Chaos(t *testing.T) {
	t.Parallel()
	num := 20
	switch {
	case os.Getenv("SHOAL_SOAK") != "":
		num = 5000
	case os.Getenv("SHOAL_CI") != "" && !testing.Short():
		num = 200
	}
	first := 0
	if s := os.Getenv("SHOAL_TEST_CHAOS"); s != "" {
		var err error
		first, err = strconv.Atoi(s)
		must(t, err)
		num = 1
	}
	dir := t.TempDir()
	data, m := shareFile(t, dir, 1<<20)
	var seeds [4]*honest
	for i := range seeds {
		n, err := peer.NewNode(peer.Config{MaxPerAddr: 1000, MaxPending: 1000})
		must(t, err)
		seeds[i] = serveOn(t, network{n}, filepath.Join(dir, "data"), 0)
	}
	at := make(chan struct{}, 16)
	var all sync.WaitGroup
	began := time.Now()
	for seed := first; seed < first+num; seed++ {
		at <- struct{}{}
		all.Go(func() {
			defer func() { <-at }()
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				var addrs []string
				for i, s := range seeds {
					c := &chaos{seed: uint64(4*seed + i), target: s.addr}
					c.listen(t)
					addrs = append(addrs, c.addr)
				}
				if _, err := getFrom(t, m, data, time.Minute, addrs...); err != nil {
					t.Errorf("%v; again with SHOAL_TEST_CHAOS=%d", err, seed)
				}
			})
		})
	}
	all.Wait()
	t.Logf("%d seeds in %v", num, time.Since(began).Round(time.Millisecond))
}
