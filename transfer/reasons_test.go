package transfer

import (
	"slices"
	"testing"
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
