package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

func TestWhereIs(t *testing.T) {
	var local []net.Addr
	for _, s := range []string{"127.0.0.1/8", "::1/128", "192.168.1.5/24", "fe80::5/64", "2001:db8:1::5/64", "100.64.0.1/32"} {
		ip, n, err := net.ParseCIDR(s)
		must(t, err)
		local = append(local, &net.IPNet{IP: ip, Mask: n.Mask})
	}
	for addr, want := range map[string]string{
		"127.0.0.1:1": hereItself, "[::1]:1": hereItself, "192.168.1.5:7420": hereItself, "127.0.0.77:1": hereItself,
		"192.168.1.9:7420": onLAN, "[fe80::9%eth0]:7420": onLAN, "[2001:db8:1::9]:7420": onLAN, "[::ffff:192.168.1.9]:1": onLAN,
		"192.168.2.9:7420": direct, "[2001:db8:2::9]:7420": direct, "100.64.0.2:7420": direct, "8.8.8.8:1": direct,
		"http://192.168.1.9/tree": "", "": "", "host:1": "",
	} {
		if got := whereIs(addr, local); got != want {
			t.Errorf("%s is at %q, want %q", addr, got, want)
		}
	}
}

func TestPresent(t *testing.T) {
	var p present
	if got := p.text(2); got != "2 peers" {
		t.Error(got)
	}
	p.up([32]byte{1}, "127.0.0.1:1")
	p.up([32]byte{1}, "127.0.0.1:1") // another connection to the same one
	p.up([32]byte{2}, "198.51.100.1:1")
	if got := p.text(3); got != "2 peers: 1 direct + 1 this machine" {
		t.Error(got)
	}
	p.down([32]byte{1})
	p.down([32]byte{2})
	p.down([32]byte{3})
	if got := p.text(1); got != "1 peer (this machine)" {
		t.Error(got)
	}
}

// Each reason is told once, however often it comes and whatever its figures, and
// whoever makes up reasons does not fill the screen.
func TestWaitings(t *testing.T) {
	var w waitings
	for _, tt := range []struct {
		reasons   string
		connected int
		known     bool
		want      string
	}{
		{"", 0, true, "waiting for a peer: nobody was found yet"},
		{"", 0, true, ""},
		{"", 0, false, "waiting for a peer: nobody was found yet on the local network; --peer HOST:PORT names one"},
		{"", 1, true, "waiting for something new: nothing comes"},
		{"192.0.2.1:7420: no answer yet", 0, true, "waiting for a peer: 192.0.2.1:7420: no answer yet"},
		{"192.0.2.1:7420: connection refused|192.0.2.2:7420: no answer yet", 0, true, "waiting for a peer: 192.0.2.1:7420: connection refused; 192.0.2.2:7420: no answer yet"},
		{"192.0.2.2:7420: no answer yet|192.0.2.1:7420: connection refused", 0, true, ""},
		{"192.0.2.2:7420: asked for 34 chunks, sends nothing", 1, true, "waiting for something new: 192.0.2.2:7420: asked for 34 chunks, sends nothing"},
		{"192.0.2.2:7420: asked for 1 chunk, sends nothing", 1, true, ""},
	} {
		var rs []string
		if tt.reasons != "" {
			rs = strings.Split(tt.reasons, "|")
		}
		if got := w.text(rs, tt.connected, tt.known); got != tt.want {
			t.Errorf("%q: said %q, want %q", tt.reasons, got, tt.want)
		}
	}
	lines := 0
	for k := range 1000 {
		if w.text([]string{strings.Repeat("x", k) + ": no"}, 0, true) != "" {
			lines++
		}
	}
	if lines > mostWaitings {
		t.Errorf("%d lines", lines)
	}
}

func TestFromLine(t *testing.T) {
	for want, p := range map[string]transfer.PeerStats{
		"     1.6 GB from 127.0.0.1:7420 (this machine, 160 MB/s)":               {Addr: "127.0.0.1:7420", Used: 1_600_000_000, Time: 10 * time.Second},
		"       10 B from http://192.0.2.1/x":                                    {Addr: "http://192.0.2.1/x", Used: 10},
		"        0 B from 127.0.0.1:7420 (this machine), which sent wrong bytes": {Addr: "127.0.0.1:7420", Banned: true},
	} {
		if got := fromLine(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestFreeText(t *testing.T) {
	for _, o := range []transfer.GetOptions{{Dir: t.TempDir()}, {Dir: filepath.Join(t.TempDir(), "not", "there", "yet")}, {Output: filepath.Join(t.TempDir(), "x")}} {
		if got := freeText(&o); !strings.HasSuffix(got, "B free") {
			t.Errorf("%+v: %q", o, got)
		}
	}
	if got := freeText(&transfer.GetOptions{Output: toStdout}); got != "" {
		t.Error(got)
	}
}
