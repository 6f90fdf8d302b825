package peer

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whether a share is there or not: who cannot prove that he knows its key gets the
// same bytes, and about as fast.
func TestN03SameAnswer(t *testing.T) {
	n := newTestNode(t, Config{MaxPerAddr: 100})
	addr := serveTest(t, n)
	ask := func(known bool) (string, time.Duration) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		key := testKey
		if !known {
			key = [32]byte{9}
		}
		p := newRawPeer(t, nc, true, key)
		began := time.Now()
		fmt.Fprintf(p.tc, "hello shoal/1.0 x\njoin %s %s\n", p.name(), strings.Repeat("0", 64))
		b, err := p.lr.next()
		d := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := p.lr.next()
		return fmt.Sprintf("%s, then %q, %v", b, rest, err), d
	}
	var said []string
	for range 3 { // of which one must do: other things run here too
		var times [2][]time.Duration
		for range 40 {
			for k, known := range []bool{true, false} {
				answer, d := ask(known)
				times[k] = append(times[k], d)
				if want := "error share no such share, then \"\", EOF"; answer != want {
					t.Fatalf("known %v: %s", known, answer)
				}
			}
		}
		for k := range times {
			slices.Sort(times[k])
		}
		ratio := times[0][20].Seconds() / times[1][20].Seconds()
		if said = append(said, fmt.Sprintf("%.2f", ratio)); ratio > 0.5 && ratio < 2 {
			return
		}
	}
	t.Errorf("a known share is answered in %v of the time of an unknown one", said)
}

// Clocks that are years off, or jump, change nothing: keys count, not dates.
func TestN07WallClock(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	jump := years
	for _, clock := range []func() time.Time{
		func() time.Time { return time.Now().Add(years) },
		func() time.Time { return time.Now().Add(-years) },
		func() time.Time { return time.Time{} },
		func() time.Time { jump = -jump; return time.Now().Add(jump) },
	} {
		seed, leech := newTestNode(t, Config{}), newTestNode(t, Config{})
		leech.tls.Time = clock
		c, err := leech.Dial(t.Context(), serveTest(t, seed), testKey)
		if err != nil {
			t.Errorf("a dialler at %v: %v", clock(), err)
			continue
		}
		c.Close(nil)
		seed, leech = newTestNode(t, Config{}), newTestNode(t, Config{})
		seed.tls.Time = clock
		if c, err = leech.Dial(t.Context(), serveTest(t, seed), testKey); err != nil {
			t.Errorf("a listener at %v: %v", clock(), err)
			continue
		}
		c.Close(nil)
	}
}
