package transfer

import (
	"slices"
	"testing"
	"time"
)

// What is told of a wait says nothing of other addresses of a peer that is
// connected, whatever became of those connections, and all of the others.
func TestReasonsOfOtherAddresses(t *testing.T) {
	w := newStill()
	here, gone := w.net.node(), w.net.node()
	s := newSession(w.swarm, w.conn(here, false))
	if _, _, err := w.enter(s); err != nil {
		t.Fatal(err)
	}
	d := &dialler{sw: w.swarm, addrs: []*address{
		{addr: "198.51.100.1:7420", met: true, id: here.id, err: errDouble},
		{addr: "198.51.100.2:7420", met: true, id: gone.id, err: errMemRefused},
		{addr: "198.51.100.3:7420"},
	}}
	st := d.state()
	if want := []string{"198.51.100.2:7420: connection refused", "198.51.100.3:7420: no answer yet"}; !slices.Equal(st.reasons, want) {
		t.Errorf("%q, want %q", st.reasons, want)
	}
	if st.connected != 1 || st.alive != 3 {
		t.Errorf("%d connected, %d alive", st.connected, st.alive)
	}
}

// How long a get waits depends on what it waits for.
func TestPatience(t *testing.T) {
	w := newStill()
	g := &getter{sw: w.swarm, dial: &dialler{sw: w.swarm}, o: GetOptions{Timeout: time.Minute, StallTimeout: time.Hour, Network: w.net.node(), Port: 7420}}
	is := func(what string, want time.Duration) {
		t.Helper()
		if got := g.patience(Progress{Peers: len(w.sessions)}); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	is("nobody came yet", time.Minute)
	s := newSession(w.swarm, w.conn(w.net.node(), false))
	if _, _, err := w.enter(s); err != nil {
		t.Fatal(err)
	}
	is("somebody is there", time.Hour)
	s.refused = 1
	is("and has refused what is missing", refusedPatience)
	g.dial.addrs = []*address{{addr: "198.51.100.1:7420"}}
	is("but another may come", time.Hour)
	g.dial.addrs = nil
	g.o.StallTimeout = time.Second
	is("less was asked for", time.Second)
}

// Bytes that one's own limit holds up are signs of life, but not those of peers that
// only ever send the beginning of a chunk.
func TestHeldUpIsNoWait(t *testing.T) {
	w, now := newStill(), time.Now()
	w.m = zeroShare(t, 1<<20)
	w.get = &fetch{lastByte: now.Add(-time.Minute), brokenOff: maxBrokenOff}
	w.held.Store(1)
	if _, idle := w.progress(now, now); idle != time.Minute {
		t.Errorf("beginnings only: idle for %v", idle)
	}
	w.get.brokenOff = 0
	if _, idle := w.progress(now, now); idle != 0 {
		t.Errorf("whole chunks: idle for %v", idle)
	}
}
