package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestRank(t *testing.T) {
	tests := []struct {
		name, in, want string
		only4          bool
	}{
		{"loopback only", "127.0.0.1 ::1", "127.0.0.1", false},
		{"IPv4 first, no loopback", "127.0.0.1 2001:db8::1 192.168.1.2", "192.168.1.2 2001:db8::1", false},
		{"link-local is of no use elsewhere", "fe80::1 169.254.1.1 10.0.0.1", "10.0.0.1", false},
		{"private IPv6 last", "fd00::1 2001:db8::1 10.0.0.1", "10.0.0.1 2001:db8::1 fd00::1", false},
		{"IPv4 only", "10.0.0.1 2001:db8::1", "10.0.0.1", true},
		{"a few, each once", "10.0.0.1 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", false},
		{"nothing", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var in []netip.Addr
			for s := range strings.FieldsSeq(tt.in) {
				in = append(in, netip.MustParseAddr(s))
			}
			var got []string
			for _, ip := range rank(in, tt.only4) {
				got = append(got, ip.String())
			}
			if !slices.Equal(got, strings.Fields(tt.want)) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTicketAddrs(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:7420")
	for host, want := range map[string]string{"127.0.0.1": "127.0.0.1:7420", "my.host": "my.host:7420", "2001:db8::1": "[2001:db8::1]:7420"} {
		if got := ticketAddrs(at, host); !slices.Equal(got, []string{want}) {
			t.Errorf("listening at %q: %v", host, got)
		}
	}
	for _, host := range []string{"", "0.0.0.0", "::"} {
		got := ticketAddrs(netip.MustParseAddrPort("[::]:7420"), host)
		if len(got) == 0 || len(got) > maxTicketAddrs || slices.ContainsFunc(got, func(s string) bool { return netip.MustParseAddrPort(s).Addr().IsUnspecified() }) {
			t.Errorf("listening at %q: %v", host, got)
		}
	}
}

func TestParseListen(t *testing.T) {
	for in, want := range map[string]string{
		"7420": ":7420", ":0": ":0", "127.0.0.1:1": "127.0.0.1:1", "[::1]:5": "[::1]:5", "host:5": "host:5",
		"": "error", "host": "error", "70000": "error", "1.2.3.4:x": "error", ":-1": "error", "::1": "error",
	} {
		got, _, err := parseListen(in)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("parseListen(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParsePeers(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"10.0.0.1:5|h:6", "10.0.0.1:5 h:6", ""},
		{"a:1,b:2 , a:1", "a:1 b:2", ""},
		{"laptop", "laptop:7420", ""},
		{"10.0.0.1", "10.0.0.1:7420", ""},
		{"2001:db8::1", "[2001:db8::1]:7420", ""},
		{"[2001:db8::1]", "[2001:db8::1]:7420", ""},
		{"", "", "names no peer"},
		{"h:0", "", "is not HOST:PORT"},
		{"h:65536", "", "is not HOST:PORT"},
		{"a b:5", "", "is not HOST:PORT"},
		{"fe80::1%eth0", "", "zone"},
		{"\x1b[31m:5", "", `"\x1b[31m:5" is not HOST:PORT`},
	}
	for _, tt := range tests {
		got, err := parsePeers("peer", strings.Split(tt.in, "|"))
		if tt.err == "" && err != nil || tt.err != "" && !strings.Contains(errText(err), tt.err) {
			t.Errorf("parsePeers(%q): error %v, want %q", tt.in, err, tt.err)
		}
		if err == nil && strings.Join(got, " ") != tt.want {
			t.Errorf("parsePeers(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Without a port, what is advertised is where share listens; what nobody can
// connect to is refused.
func TestParseAdvertise(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"192.0.2.1", "192.0.2.1:7431", ""},
		{"192.0.2.1:7420", "192.0.2.1:7420", ""},
		{"far.example|2001:db8::1|[2001:db8::2]", "far.example:7431 [2001:db8::1]:7431 [2001:db8::2]:7431", ""},
		{"h|h:7431", "h:7431", ""},
		{"0.0.0.0", "", "nobody can connect"},
		{"0.0.0.0:7420", "", `--advertise "0.0.0.0:7420": nobody can connect`},
		{"::", "", "nobody can connect"},
		{"192.0.2.1|[::]:7420", "", `--advertise "[::]:7420": nobody can connect`},
		{"[::ffff:0.0.0.0]:7420", "", "nobody can connect"},
		{"192.0.2.1:0", "", "is not HOST:PORT"},
		{"h:0", "", "is not HOST:PORT"},
		{"a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q", "", "a ticket holds at most"},
	}
	for _, tt := range tests {
		got, err := parseAdvertise(strings.Split(tt.in, "|"), 7431)
		if tt.err == "" && err != nil || tt.err != "" && !strings.Contains(errText(err), tt.err) {
			t.Errorf("parseAdvertise(%q): error %v, want %q", tt.in, err, tt.err)
		}
		if err == nil && strings.Join(got, " ") != tt.want {
			t.Errorf("parseAdvertise(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
