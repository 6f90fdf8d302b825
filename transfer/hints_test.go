package transfer

import (
	"net/netip"
	"testing"
	"time"
)

func TestMayDial(t *testing.T) {
	for _, c := range []struct {
		hint, from string
		want       bool
	}{
		{"198.51.100.7:7420", "203.0.113.1", true},
		{"[2001:db8::7]:7420", "203.0.113.1", true},
		{"192.168.1.5:7420", "203.0.113.1", true},
		{"127.0.0.1:22", "203.0.113.1", false},
		{"127.0.0.1:22", "127.0.0.1", true},
		{"[::1]:22", "203.0.113.1", false},
		{"[::ffff:127.0.0.1]:22", "203.0.113.1", false},
		{"169.254.1.1:80", "203.0.113.1", false},
		{"[fe80::1]:80", "203.0.113.1", false},
		{"[fe80::1%eth0]:80", "fe80::2", false},
		{"0.0.0.0:80", "203.0.113.1", false},
		{"[::]:80", "203.0.113.1", false},
		{"224.0.0.1:80", "203.0.113.1", false},
		{"[ff02::1]:80", "203.0.113.1", false},
		{"255.255.255.255:80", "203.0.113.1", false},
		{"198.51.100.7:0", "203.0.113.1", false},
		{"example.com:80", "203.0.113.1", false},
		{"198.51.100.7", "203.0.113.1", false},
		{"", "203.0.113.1", false},
	} {
		if got := mayDial(c.hint, netip.MustParseAddr(c.from)); got != c.want {
			t.Errorf("hint %q from %s: %v, want %v", c.hint, c.from, got, c.want)
		}
	}
}

// Each peer is told of a few others, not of the same, and never of itself.
func TestToldOfFew(t *testing.T) {
	w := stillSeed(t, 400)
	const n = 40
	for range n {
		s := w.attach(t, w.net.node())
		must(t, s.Listening(7420))
	}
	told := map[string]int{}
	w.locked(func() {
		for _, s := range w.sessions {
			for round := range 3 {
				fresh := s.spread(time.Now().Add(time.Duration(round) * time.Minute))
				for _, addr := range fresh {
					told[addr]++
					if addr == s.listens {
						t.Errorf("%s is told of itself", addr)
					}
				}
			}
			if len(s.toldPeers) != enoughTold {
				t.Errorf("%s is told of %d, want %d", s.listens, len(s.toldPeers), enoughTold)
			}
		}
	})
	if len(told) < n*3/4 {
		t.Errorf("of %d peers only %d are told of", n, len(told))
	}
}
