package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// A lanBridge is a bridge in a network namespace of its own, with hosts in theirs. No
// packet of it leaves them.
type lanBridge struct {
	t     testing.TB
	name  string
	hosts []*host
}

// A host has one line to the bridge, with a rate each way.
type host struct {
	l      *lanBridge
	ns     string
	port   string // its end of the line at the bridge
	v4, v6 string
	dir    string
}

// numLANs makes their names differ: tests run at the same time.
var numLANs atomic.Int64

// newLAN makes a bridge, or skips the test if it may not.
func newLAN(t testing.TB) *lanBridge {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, "needs %s (iproute2)", tool)
		}
	}
	l := &lanBridge{t: t, name: fmt.Sprintf("shoal%d-%d-b", os.Getpid(), numLANs.Add(1))}
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", l.name).CombinedOutput(); err != nil {
		skip(t, "network namespaces need root: %v %s", err, out)
	}
	t.Cleanup(func() { l.run("ip", "netns", "del", l.name) })
	l.run("ip", "-n", l.name, "link", "add", "name", "bridge0", "type", "bridge")
	l.run("ip", "-n", l.name, "link", "set", "bridge0", "up")
	return l
}

// run runs a command that must succeed. It may be a cleanup, so it has no
// context of the test.
func (l *lanBridge) run(args ...string) string {
	l.t.Helper()
	out, err := exec.CommandContext(context.Background(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// host adds a host whose line passes up and down bits/s (tc's notation).
func (l *lanBridge) host(up, down string) *host {
	l.t.Helper()
	n := len(l.hosts) + 1
	h := &host{
		l: l, ns: strings.TrimSuffix(l.name, "b") + strconv.Itoa(n), port: fmt.Sprintf("p%d", n),
		v4: fmt.Sprintf("10.77.0.%d", n), v6: fmt.Sprintf("fd77::%x", n), dir: l.t.TempDir(),
	}
	l.run("ip", "netns", "add", h.ns)
	l.t.Cleanup(func() { l.run("ip", "netns", "del", h.ns) })
	l.run("ip", "-n", h.ns, "link", "set", "lo", "up")
	l.run("ip", "-n", l.name, "link", "add", "name", h.port, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	l.run("ip", "-n", l.name, "link", "set", h.port, "master", "bridge0", "up")
	l.run("ip", "-n", h.ns, "addr", "add", h.v4+"/24", "dev", "eth0")
	l.run("ip", "-n", h.ns, "addr", "add", h.v6+"/64", "dev", "eth0", "nodad")
	l.run("ip", "-n", h.ns, "link", "set", "eth0", "up")
	h.shape(l.name, h.port, down)
	h.shape(h.ns, "eth0", up)
	l.hosts = append(l.hosts, h)
	return h
}

func (h *host) shape(ns, dev, rate string) {
	h.l.t.Helper()
	h.l.run("tc", "-n", ns, "qdisc", "replace", "dev", dev, "root", "tbf", "rate", rate, "burst", "32kb", "latency", "100ms")
}

// sent returns how many bytes the host has put on its line.
func (h *host) sent() int64 {
	h.l.t.Helper()
	out := h.l.run("ip", "netns", "exec", h.ns, "cat", "/sys/class/net/eth0/statistics/tx_bytes")
	n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	must(h.l.t, err)
	return n
}

// start runs shoal on the host.
func (h *host) start(args ...string) *process {
	h.l.t.Helper()
	exe, err := exec.LookPath("shoal")
	must(h.l.t, err)
	ip, err := exec.LookPath("ip")
	must(h.l.t, err)
	return startCommand(h.l.t, exec.Command(ip, append([]string{"netns", "exec", h.ns, exe}, args...)...), filepath.Join(h.dir, ".home"))
}

// share serves a file on the host and returns its ticket.
func (h *host) share(file string) string {
	h.l.t.Helper()
	e := h.start("share", "--json", "--quiet", "--listen", ":7420", file).wait("ticket")
	if e == nil {
		h.l.t.Fatal("share ended")
	}
	return e["ticket"].(string)
}

// get fetches to the host until the end, and returns the last event.
func (h *host) get(args ...string) map[string]any {
	h.l.t.Helper()
	e := h.start(append([]string{"get", "--json", "--quiet"}, args...)...).wait("finished")
	if e == nil {
		h.l.t.Errorf("get on %s ended", h.v4)
	}
	return e
}

func holds(t testing.TB, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("%s differs", file)
	}
}

// One seed and five receivers that know only the seed: they find each other, and
// do most of the work. What the seed has sent is counted on its line.
func TestNetworkSwarm(t *testing.T) {
	l := newLAN(t)
	seed := l.host("40mbit", "40mbit")
	data, _ := shareFile(t, seed.dir, 12<<20)
	ticket := seed.share(filepath.Join(seed.dir, "data"))
	var all sync.WaitGroup
	for range 5 {
		h := l.host("40mbit", "40mbit")
		all.Go(func() {
			if e := h.get(ticket, h.dir, "--seed"); e != nil {
				holds(t, filepath.Join(h.dir, "data"), data)
			}
		})
	}
	all.Wait()
	if copies := float64(seed.sent()) / float64(len(data)); copies > 2 {
		t.Errorf("the seed has sent %.2f copies to 5 receivers", copies)
	}
}

// Four sources of which one is fifty times as fast as another: each gives what it
// can, and the slowest does not hold up the end.
func TestNetworkSlowSource(t *testing.T) {
	l := newLAN(t)
	leech := l.host("1gbit", "1gbit")
	data, _ := shareFile(t, leech.dir, 16<<20)
	args := []string{filepath.Join(leech.dir, "data.shoal"), "-o", filepath.Join(leech.dir, "out")}
	for _, rate := range []string{"50mbit", "20mbit", "10mbit", "1mbit"} {
		h := l.host(rate, rate)
		h.share(filepath.Join(leech.dir, "data"))
		args = append(args, "--peer", h.v4+":7420")
	}
	e := leech.get(args...)
	if e == nil {
		return
	}
	holds(t, filepath.Join(leech.dir, "out"), data)
	var used []float64
	for _, h := range l.hosts[1:] {
		for _, p := range e["peers"].([]any) {
			if p := p.(map[string]any); strings.HasPrefix(p["addr"].(string), h.v4+":") {
				used = append(used, p["used"].(float64))
			}
		}
	}
	if len(used) != 4 {
		t.Fatalf("of 4 sources: %v", e["peers"])
	}
	for k, share := range []float64{0.5, 0.15, 0.05, 0} {
		if used[k] < share*float64(len(data)) {
			t.Errorf("source %d gave %.0f %%, want at least %.0f %%", k+1, 100*used[k]/float64(len(data)), 100*share)
		}
	}
	if wasted := e["wasted"].(float64); wasted > 0.05*float64(len(data)) {
		t.Errorf("%.0f bytes came twice", wasted)
	}
}

// The line of the only source is cut in the middle, and comes back.
func TestNetworkLineCut(t *testing.T) {
	l := newLAN(t)
	seed, leech := l.host("40mbit", "40mbit"), l.host("40mbit", "40mbit")
	data, _ := shareFile(t, seed.dir, 12<<20)
	ticket := seed.share(filepath.Join(seed.dir, "data"))
	p := leech.start("get", "--json", "--quiet", ticket, leech.dir)
	for e := p.wait("progress"); ; e = p.wait("progress") {
		if e == nil {
			t.Fatal("get ended")
		}
		if e["done"].(float64) > 2<<20 {
			break
		}
	}
	l.run("ip", "-n", l.name, "link", "set", seed.port, "down")
	if e := p.wait("waiting"); e == nil {
		t.Fatal("get ended while the line was cut")
	}
	for range 10 { // five a second
		if p.wait("progress") == nil {
			t.Fatal("get ended while the line was cut")
		}
	}
	l.run("ip", "-n", l.name, "link", "set", seed.port, "up")
	e := p.wait("finished")
	if e == nil {
		t.Fatal("get ended when the line was back")
	}
	holds(t, filepath.Join(leech.dir, "data"), data)
	if received := e["received"].(float64); received > 1.05*float64(len(data)) {
		t.Errorf("%.0f bytes came for %d", received, len(data))
	}
}

// A source that vanishes without a word, as a machine that loses its power, costs
// its chunks in flight: the others go on at once.
func TestNetworkSourceVanishes(t *testing.T) {
	l := newLAN(t)
	leech := l.host("100mbit", "100mbit")
	data, _ := shareFile(t, leech.dir, 12<<20)
	args := []string{"get", "--json", "--quiet", filepath.Join(leech.dir, "data.shoal"), "-o", filepath.Join(leech.dir, "out")}
	for range 3 {
		h := l.host("10mbit", "10mbit")
		h.share(filepath.Join(leech.dir, "data"))
		args = append(args, "--peer", h.v4+":7420")
	}
	p := leech.start(args...)
	for e := p.wait("progress"); ; e = p.wait("progress") {
		if e == nil {
			t.Fatal("get ended")
		}
		if e["done"].(float64) > 2<<20 {
			break
		}
	}
	l.run("ip", "-n", l.name, "link", "set", l.hosts[2].port, "down")
	for e := range p.events {
		switch e["event"] {
		case "waiting":
			t.Errorf("it waits although two sources are left: %v", e["reasons"])
		case "finished":
			holds(t, filepath.Join(leech.dir, "out"), data)
			return
		}
	}
	t.Error("get ended")
}

// A peer to which no route leads, and one that is not there: which, and why.
func TestN09NoRoute(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	h := l.host("40mbit", "40mbit")
	shareFile(t, h.dir, 1000)
	for _, tt := range []struct {
		addr string
		why  []string // one of them
	}{
		{"198.51.100.1:7420", []string{"network is unreachable"}},
		{"[2001:db8::1]:7420", []string{"network is unreachable"}},
		{"10.77.0.99:7420", []string{"no route to host", "no answer"}},
		{h.v4 + ":7420", []string{"connection refused"}},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", h.ns, "shoal", "get", "data.shoal", t.TempDir(), "-q", "--no-lan", "--peer", tt.addr, "--timeout", "5s")
			cmd.Dir = h.dir
			cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(t.TempDir(), ".home"))
			out, err := cmd.CombinedOutput()
			msg := string(out)
			why := slices.ContainsFunc(tt.why, func(s string) bool { return strings.Contains(msg, s) })
			if code := cmd.ProcessState.ExitCode(); code != codeNoPeer || !why || !strings.Contains(msg, " "+tt.addr+": ") || strings.Count(msg, "\n") != 1 {
				t.Errorf("%v: code %d, %q", err, code, msg)
			}
		})
	}
}

// N09: two hosts behind one router that does not lead them back to its own public
// address (no hairpin), but drops what they send there. The ticket has that address
// too: it holds nothing up, and nobody is said to be waited for.
func TestN09NoHairpin(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, leech := l.host("200mbit", "200mbit"), l.host("200mbit", "200mbit")
	data, _ := shareFile(t, seed.dir, 8<<20)
	const public = "203.0.113.5:7420"
	l.run("ip", "-n", l.name, "addr", "add", "10.77.0.254/24", "dev", "bridge0") // the router forwards nothing
	for _, h := range []*host{seed, leech} {
		l.run("ip", "-n", h.ns, "route", "add", "default", "via", "10.77.0.254")
	}
	e := seed.start("share", "--json", "--quiet", "--no-lan", "--listen", ":7420", "--advertise", public, "--advertise", seed.v4+":7420", filepath.Join(seed.dir, "data")).wait("ticket")
	if e == nil {
		t.Fatal("share ended")
	}
	ticket, err := manifest.ParseTicket(e["ticket"].(string))
	must(t, err)
	if !slices.Contains(ticket.Addrs, public) || !slices.Contains(ticket.Addrs, seed.v4+":7420") {
		t.Fatalf("the ticket has %q", ticket.Addrs)
	}
	// By itself it is one from which no answer comes.
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", leech.ns, "shoal", "get", filepath.Join(seed.dir, "data.shoal"), t.TempDir(), "-q", "--no-lan", "--peer", public, "--timeout", "2s")
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(t.TempDir(), ".home"))
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != codeNoPeer || !strings.Contains(string(out), public+": no answer") {
		t.Errorf("code %d, %s", cmd.ProcessState.ExitCode(), out)
	}
	began := time.Now()
	p := leech.start("get", "--json", "--quiet", "--no-lan", e["ticket"].(string), leech.dir)
	for e := range p.events {
		switch e["event"] {
		case "waiting":
			t.Errorf("it waits: %v", e["reasons"])
		case "finished":
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			holds(t, filepath.Join(leech.dir, "data"), data)
			return
		}
	}
	t.Error("get ended")
}

// A NAT router leads the hosts of a lanBridge out, as the box at home does: they all
// have its public address there, whose port 7420 is that of the first host.
const (
	natPublic  = "203.0.113.5"
	natOutside = "203.0.113.9"
)

// nat makes the bridge such a router. If hairpin, who calls the public address from
// inside is led back in. It returns a host outside.
func (l *lanBridge) nat(hairpin bool) *host {
	l.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		skip(l.t, "needs nft (nftables)")
	}
	l.run("ip", "-n", l.name, "addr", "add", "10.77.0.254/24", "dev", "bridge0")
	for _, h := range l.hosts {
		l.run("ip", "-n", h.ns, "route", "add", "default", "via", "10.77.0.254")
	}
	out := &host{l: l, ns: strings.TrimSuffix(l.name, "b") + "out", v4: natOutside, dir: l.t.TempDir()}
	l.run("ip", "netns", "add", out.ns)
	l.t.Cleanup(func() { l.run("ip", "netns", "del", out.ns) })
	l.run("ip", "-n", out.ns, "link", "set", "lo", "up")
	l.run("ip", "-n", l.name, "link", "add", "name", "wan0", "type", "veth", "peer", "name", "eth0", "netns", out.ns)
	l.run("ip", "-n", l.name, "addr", "add", natPublic+"/24", "dev", "wan0")
	l.run("ip", "-n", out.ns, "addr", "add", out.v4+"/24", "dev", "eth0")
	l.run("ip", "-n", l.name, "link", "set", "wan0", "up")
	l.run("ip", "-n", out.ns, "link", "set", "eth0", "up")
	l.run("ip", "netns", "exec", l.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	from, back := `iifname "wan0"`, "" // else the public address is the router itself, seen from inside
	if hairpin {
		from, back = "", "ip saddr 10.77.0.0/24 ip daddr 10.77.0.0/24 masquerade"
	}
	rules := filepath.Join(l.t.TempDir(), "rules")
	must(l.t, os.WriteFile(rules, fmt.Appendf(nil, `table ip nat {
	chain in {
		type nat hook prerouting priority -100;
		%s ip daddr %s tcp dport 7420 dnat to %s
	}
	chain out {
		type nat hook postrouting priority 100;
		oifname "wan0" masquerade
		%s
	}
}
`, from, natPublic, l.hosts[0].v4, back), 0o600))
	l.run("ip", "netns", "exec", l.name, "nft", "-f", rules)
	return out
}

// N09: through a real NAT, with a ticket that has the public address and the one
// inside. From outside and, where the router leads back in, from inside the public
// one works; where it does not, it alone is named with its reason, and holds nothing
// up beside the other.
func TestN09NAT(t *testing.T) {
	t.Parallel()
	const public = natPublic + ":7420"
	for _, hairpin := range []bool{true, false} {
		t.Run(fmt.Sprintf("hairpin %v", hairpin), func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			seed, inside := l.host("200mbit", "200mbit"), l.host("200mbit", "200mbit")
			outside := l.nat(hairpin)
			data, _ := shareFile(t, seed.dir, 4<<20)
			e := seed.start("share", "--json", "--quiet", "--no-lan", "--listen", ":7420", "--advertise", public, "--advertise", seed.v4+":7420", filepath.Join(seed.dir, "data")).wait("ticket")
			if e == nil {
				t.Fatal("share ended")
			}
			for _, h := range []*host{outside, inside} {
				began := time.Now()
				if e := h.get("--no-lan", e["ticket"].(string), h.dir); e != nil {
					holds(t, filepath.Join(h.dir, "data"), data)
				}
				if d := time.Since(began); d > 5*time.Second {
					t.Errorf("%s took %v", h.v4, d)
				}
			}
			cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", inside.ns, "shoal", "get", filepath.Join(seed.dir, "data.shoal"), t.TempDir(), "-q", "--no-lan", "--peer", public, "--timeout", "3s")
			cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(t.TempDir(), ".home"))
			out, err := cmd.CombinedOutput()
			if hairpin && err != nil {
				t.Errorf("through the router and back: %v, %s", err, out)
			}
			if !hairpin && (cmd.ProcessState.ExitCode() != codeNoPeer || !strings.Contains(string(out), public+": connection refused") || strings.Count(string(out), "\n") != 1) {
				t.Errorf("code %d, %q", cmd.ProcessState.ExitCode(), out)
			}
		})
	}
}

// A peer inside learns of one outside by a hint, and reaches it through the NAT.
func TestHintThroughNAT(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, inside := l.host("20mbit", "200mbit"), l.host("200mbit", "200mbit")
	outside := l.nat(false)
	data, _ := shareFile(t, seed.dir, 8<<20)
	e := seed.start("share", "--json", "--quiet", "--no-lan", "--listen", ":7420", "--advertise", natPublic+":7420", "--advertise", seed.v4+":7420", filepath.Join(seed.dir, "data")).wait("ticket")
	if e == nil {
		t.Fatal("share ended")
	}
	ticket := e["ticket"].(string)
	if outside.get("--no-lan", "--seed", "--listen", ":7421", ticket, outside.dir) == nil {
		t.Fatal("nothing got out")
	}
	e = inside.get("--no-lan", ticket, inside.dir)
	if e == nil {
		return
	}
	holds(t, filepath.Join(inside.dir, "data"), data)
	for _, p := range e["peers"].([]any) {
		if p := p.(map[string]any); p["addr"] == natOutside+":7421" && p["used"].(float64) > 1<<20 {
			return
		}
	}
	t.Errorf("nothing came from outside: %v", e["peers"])
}

// IPv6 works as IPv4 does.
func TestNetworkIPv6(t *testing.T) {
	l := newLAN(t)
	seed, leech := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	data, _ := shareFile(t, seed.dir, 4<<20)
	seed.share(filepath.Join(seed.dir, "data"))
	if e := leech.get(filepath.Join(seed.dir, "data.shoal"), leech.dir, "--peer", "["+seed.v6+"]:7420"); e != nil {
		holds(t, filepath.Join(leech.dir, "data"), data)
	}
}
