package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer/lan"
)

// The hosts of these tests may find each other, which elsewhere is turned off.

// startLAN runs shoal on the host, with the LAN.
func (h *host) startLAN(args ...string) *process {
	h.l.t.Helper()
	return h.start(append(args, "--no-lan=false")...)
}

// shareLAN serves a file on the host and returns a ticket that has no address.
func (h *host) shareLAN(file string, args ...string) (ticket string) {
	h.l.t.Helper()
	e := h.startLAN(append([]string{"share", "--json", "--quiet", file}, args...)...).wait("ticket")
	if e == nil {
		h.l.t.Fatal("share ended")
	}
	t, err := manifest.ParseTicket(e["ticket"].(string))
	must(h.l.t, err)
	return manifest.Ticket{Root: t.Root}.String()
}

// getLAN fetches to the host and returns how long it took until a peer was there,
// and that peer.
func (h *host) getLAN(args ...string) (found time.Duration, from string) {
	h.l.t.Helper()
	began := time.Now()
	p := h.startLAN(append([]string{"get", "--json", "--quiet", "--timeout", "60s"}, args...)...)
	e := p.wait("peer_up")
	if e == nil {
		h.l.t.Fatalf("get on %s found nobody", h.v4)
	}
	found = time.Since(began)
	if p.wait("finished") == nil {
		h.l.t.Fatalf("get on %s ended", h.v4)
	}
	h.l.t.Logf("%s found %v after %v", h.ns, e["addr"], found.Round(time.Millisecond))
	return found, e["addr"].(string)
}

// soon is what a peer on the LAN may take to be found. It takes two seconds at
// most; the rest is for a machine that has much else to do.
const soon = 6 * time.Second

// A ticket without any address is enough on a LAN, in IPv4 as in IPv6.
func TestLANFinds(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed := l.host("1gbit", "1gbit")
	data, _ := shareFile(t, seed.dir, 1<<20)
	ticket := seed.shareLAN(filepath.Join(seed.dir, "data"))
	for _, family := range []string{"both", "IPv4", "IPv6"} {
		h := l.host("1gbit", "1gbit")
		switch family {
		case "IPv4":
			l.run("ip", "netns", "exec", h.ns, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
		case "IPv6":
			l.run("ip", "-n", h.ns, "addr", "del", h.v4+"/24", "dev", "eth0")
		}
		took, from := h.getLAN(ticket, h.dir)
		holds(t, filepath.Join(h.dir, "data"), data)
		if took > soon {
			t.Errorf("%s: found after %v", family, took)
		}
		if v6 := strings.HasPrefix(from, "["); family != "both" && v6 != (family == "IPv6") {
			t.Errorf("%s: found %s", family, from)
		}
	}
}

// The seed is gone, but a leech that has a part is there: another one finds it, in
// whichever order they came.
func TestLANLeechesFindEachOther(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	a, b := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	_, m := shareFile(t, a.dir, 1<<20)
	ticket := manifest.Ticket{Root: m.Root()}.String()
	first := a.startLAN("get", "--json", "--quiet", filepath.Join(a.dir, "data.shoal"), filepath.Join(a.dir, "to"))
	if first.wait("waiting") == nil {
		t.Fatal("the first leech ended")
	}
	began := time.Now()
	second := b.startLAN("get", "--json", "--quiet", ticket, filepath.Join(b.dir, "to"))
	up := second.wait("peer_up")
	if up == nil {
		t.Fatal("the second leech ended")
	}
	if d := time.Since(began); d > soon {
		t.Errorf("found after %v", d)
	}
	if second.wait("found") == nil { // it has the manifest from the other one
		t.Fatal("the second leech ended")
	}
	if first.wait("peer_up") == nil {
		t.Fatal("the first leech ended")
	}
}

// A host that is on two networks is found on both, also if one of them comes later.
func TestLANTwoInterfaces(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, here, there := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	shareFile(t, seed.dir, 1<<20)
	// Another network: a bridge of its own, with the third host on it.
	l.run("ip", "-n", l.name, "link", "add", "name", "bridge1", "type", "bridge")
	l.run("ip", "-n", l.name, "link", "set", "bridge1", "up")
	l.run("ip", "-n", l.name, "link", "set", there.port, "master", "bridge1")
	l.run("ip", "-n", there.ns, "addr", "flush", "dev", "eth0")
	l.run("ip", "-n", there.ns, "addr", "add", "10.78.0.3/24", "dev", "eth0")
	l.run("ip", "-n", there.ns, "addr", "add", "fd78::3/64", "dev", "eth0", "nodad")

	ticket := seed.shareLAN(filepath.Join(seed.dir, "data"))
	if took, _ := here.getLAN(ticket, here.dir); took > soon {
		t.Errorf("on the first network after %v", took)
	}
	p := there.startLAN("get", "--json", "--quiet", ticket, there.dir)
	if p.wait("waiting") == nil {
		t.Fatal("get ended")
	}
	l.run("ip", "-n", l.name, "link", "add", "name", "second", "type", "veth", "peer", "name", "eth1", "netns", seed.ns)
	l.run("ip", "-n", l.name, "link", "set", "second", "master", "bridge1", "up")
	l.run("ip", "-n", seed.ns, "addr", "add", "10.78.0.1/24", "dev", "eth1")
	l.run("ip", "-n", seed.ns, "link", "set", "eth1", "up")
	began := time.Now()
	if p.wait("peer_up") == nil || p.wait("finished") == nil {
		t.Fatal("get ended")
	}
	t.Logf("on the network that came later after %v", time.Since(began).Round(time.Millisecond))
}

// With --no-lan nobody is found, nothing is sent, and a ticket without an address
// is of no use.
func TestNoLAN(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, leech := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	sniff := leech.sniff()
	_, m := shareFile(t, seed.dir, 1<<20)
	if seed.start("share", "--json", "--quiet", "--no-lan", filepath.Join(seed.dir, "data")).wait("ticket") == nil {
		t.Fatal("share ended")
	}
	ticket := manifest.Ticket{Root: m.Root()}.String()
	bare := exec.CommandContext(t.Context(), "ip", "netns", "exec", leech.ns, "shoal", "get", "--no-lan", ticket)
	bare.Dir, bare.Env = leech.dir, append(os.Environ(), "SHOAL_HOME="+filepath.Join(leech.dir, ".home"))
	if out, err := bare.CombinedOutput(); bare.ProcessState.ExitCode() != codeUsage || !strings.Contains(string(out), "leave out --no-lan") {
		t.Errorf("with no address: %v, %s", err, out)
	}
	// One side alone is not enough either.
	for _, args := range [][]string{{"--no-lan"}, {"--no-lan=false"}} {
		args = append([]string{"get", "--json", "--quiet", "--listen", "127.0.0.1:0", "--timeout", "4s", ticket, leech.dir}, args...)
		p := leech.start(args...)
		if p.wait("peer_up") != nil {
			t.Errorf("%q: found somebody", args)
		}
	}
	for _, m := range sniff() {
		if m.from == seed.v4 {
			t.Errorf("the seed has sent %v", m)
		}
	}
}

// What goes over the line, at a share and at gets, is the derived name, a port and
// a version; of names, sizes, the root, tickets and IDs there is nothing.
func TestLANSaysLittle(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, leech, ear := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	sniff := ear.sniff()
	_, m := shareFile(t, seed.dir, 1<<20)
	ticket := seed.shareLAN(filepath.Join(seed.dir, "data"))
	leech.getLAN(ticket, leech.dir)
	root := m.Root()
	name := lan.Name(root)
	asked, told := map[string]bool{}, map[string]bool{}
	for _, p := range sniff() {
		for what, text := range map[string]string{
			"the root": string(root[:]), "the root in hex": hex.EncodeToString(root[:8]), "the ticket": ticket[6:16], "a file's name": "data",
		} {
			if strings.Contains(strings.ToLower(string(p.data)), strings.ToLower(text)) {
				t.Errorf("%s is in a packet from %s: %q", what, p.from, p.data)
			}
		}
		var msg dnsmessage.Message
		if err := msg.Unpack(p.data); err != nil {
			t.Errorf("%s has sent what is no message: %v", p.from, err)
			continue
		}
		for _, q := range msg.Questions {
			if q.Name.String() != name+"._shoal._tcp.local." {
				t.Errorf("%s has asked for %v", p.from, q)
			}
			asked[p.from] = true
		}
		for _, r := range slices.Concat(msg.Answers, msg.Authorities, msg.Additionals) {
			switch b := r.Body.(type) {
			case *dnsmessage.PTRResource:
				if r.Header.Name.String() != "_shoal._tcp.local." || b.PTR.String() != name+"._shoal._tcp.local." {
					t.Errorf("%s says %v", p.from, r)
				}
				continue
			case *dnsmessage.SRVResource:
				if b.Port == 0 || b.Target.String() != name+".local." {
					t.Errorf("%s says %v", p.from, r)
				}
				told[p.from] = true
			case *dnsmessage.TXTResource:
				if fmt.Sprint(b.TXT) != "[v=1]" {
					t.Errorf("%s says %v", p.from, r)
				}
			default:
				t.Errorf("%s says %v", p.from, r)
			}
			if r.Header.Name.String() != name+"._shoal._tcp.local." || r.Header.Class != dnsmessage.ClassINET {
				t.Errorf("%s says %v", p.from, r)
			}
		}
	}
	if !told[seed.v4] || !asked[leech.v4] || asked[seed.v4] {
		t.Errorf("asked: %v, told: %v", asked, told)
	}
}

// The port of multicast DNS may be taken, by one who shares it, and by one who
// does not.
func TestLANPortTaken(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, leech, other := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	shareFile(t, seed.dir, 1<<20)
	seed.take(true)
	leech.take(true)
	other.take(false)
	ticket := seed.shareLAN(filepath.Join(seed.dir, "data"))
	for _, h := range []*host{leech, other} {
		if took, _ := h.getLAN(ticket, h.dir); took > soon {
			t.Errorf("found after %v", took)
		}
	}
}

// There is no network at all, and nothing is said of that.
func TestLANOff(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	h := l.host("1gbit", "1gbit")
	_, m := shareFile(t, h.dir, 1<<20)
	l.run("ip", "-n", h.ns, "link", "set", "eth0", "down")
	get := func(args ...string) string {
		args = append([]string{"netns", "exec", h.ns, "shoal", "get", "--no-lan=false", "--timeout", "4s", manifest.Ticket{Root: m.Root()}.String()}, args...)
		cmd := exec.CommandContext(t.Context(), "ip", args...)
		cmd.Dir, cmd.Env = h.dir, append(os.Environ(), "SHOAL_HOME="+filepath.Join(h.dir, ".home"))
		out, _ := cmd.CombinedOutput() // the exit code is what counts
		if code := cmd.ProcessState.ExitCode(); code != codeNoPeer {
			t.Errorf("exit code %d: %s", code, out)
		}
		return string(out)
	}
	if out := get("-q"); strings.Count(out, "\n") != 1 {
		t.Errorf("it said %q", out)
	}
	if out := get(); strings.Contains(out, "LAN") {
		t.Errorf("it said %q", out)
	}
}

// A host floods the network with forged answers, 10,000 a second: those of other
// shares, those of our key at all addresses, those that name ourselves. The get
// takes little for it, shows nothing of it, and finds the seed.
func TestN10Flood(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed, leech, liar := l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit"), l.host("1gbit", "1gbit")
	data, m := shareFile(t, seed.dir, 1<<20)
	for k := range 200 { // the liar has many addresses
		l.run("ip", "-n", liar.ns, "addr", "add", fmt.Sprintf("10.77.0.%d/24", 50+k), "dev", "eth0")
	}
	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan int, 1)
	go func() { flooded <- liar.flood(ctx, lan.Name(m.Root())) }()
	ticket := manifest.Ticket{Root: m.Root()}.String()

	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", leech.ns, "shoal", "get", "--no-lan=false", "--timeout", "60s", ticket, leech.dir)
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(leech.dir, ".home"))
	stderr, err := os.Create(filepath.Join(leech.dir, "stderr"))
	must(t, err)
	defer stderr.Close()
	cmd.Stderr = stderr
	said := func() string {
		b, err := os.ReadFile(stderr.Name())
		must(t, err)
		return string(b)
	}
	must(t, cmd.Start())
	peak := peakMemory(cmd.Process.Pid)
	began := time.Now()
	for deadline := began.Add(time.Minute); !strings.Contains(said(), "waiting"); {
		if time.Now().After(deadline) {
			t.Fatal("it does not say that it waits")
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Five seconds of the flood, and then a seed comes.
	time.Sleep(5 * time.Second)
	seed.shareLAN(filepath.Join(seed.dir, "data"), "--listen", ":7420")
	must(t, cmd.Wait())
	cancel()
	n := <-flooded
	holds(t, filepath.Join(leech.dir, "data"), data)
	rss := <-peak
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	wall := time.Since(began)
	t.Logf("%d forged answers in %v, %.0f a second; the get took %v of CPU and %d MB", n, wall.Round(time.Millisecond), float64(n)/wall.Seconds(), cpu, rss>>20)
	if lines := strings.Count(said(), "\n"); lines > 8 {
		t.Errorf("it said %d lines:\n%s", lines, said())
	}
	if rss > 100<<20 {
		t.Errorf("%d bytes of memory", rss)
	}
}

// inside runs f with the calling thread in the host's network.
func (h *host) inside(f func() error) error {
	runtime.LockOSThread() // never unlocked: the thread is of no more use to others
	fd, err := unix.Open("/run/netns/"+h.ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	return f()
}

// socket makes a datagram socket on the host.
func (h *host) socket(network, addr string, control func(fd int) error) *net.UDPConn {
	h.l.t.Helper()
	type made struct {
		conn net.PacketConn
		err  error
	}
	c := make(chan made)
	go func() {
		var m made
		m.err = h.inside(func() (err error) {
			lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
				var cerr error
				err := raw.Control(func(fd uintptr) { cerr = control(int(fd)) })
				if err != nil {
					return err
				}
				return cerr
			}}
			m.conn, err = lc.ListenPacket(context.Background(), network, addr)
			return err
		})
		c <- m
	}()
	m := <-c
	must(h.l.t, m.err)
	h.l.t.Cleanup(func() { _ = m.conn.Close() })
	return m.conn.(*net.UDPConn)
}

func reusable(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

// take has the port of multicast DNS taken by somebody else, who lets others have
// it too, or does not.
func (h *host) take(shared bool) {
	h.l.t.Helper()
	for _, network := range []string{"udp4", "udp6"} {
		h.socket(network, ":5353", func(fd int) error {
			if !shared {
				return nil
			}
			return reusable(fd)
		})
	}
}

type packet struct {
	from string
	data []byte
}

// sniff listens to the group from now on; the function it returns gives what came.
func (h *host) sniff() func() []packet {
	h.l.t.Helper()
	conn := h.socket("udp4", ":5353", reusable)
	raw, err := conn.SyscallConn()
	must(h.l.t, err)
	must(h.l.t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: [4]byte{224, 0, 0, 251}, Ifindex: h.index()})
	}))
	must(h.l.t, err)
	got := make(chan []packet, 1)
	go func() {
		var all []packet
		b := make([]byte, 9000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				got <- all
				return
			}
			all = append(all, packet{from.Addr().Unmap().String(), slices.Clone(b[:n])})
		}
	}()
	return func() []packet {
		must(h.l.t, conn.Close())
		return <-got
	}
}

// index returns the number of the host's interface.
func (h *host) index() int32 {
	h.l.t.Helper()
	var n int32
	_, err := fmt.Sscan(h.l.run("ip", "netns", "exec", h.ns, "cat", "/sys/class/net/eth0/ifindex"), &n)
	must(h.l.t, err)
	return n
}

// flood sends forged answers from all addresses of the host, 10,000 a second, until
// ctx ends. It returns how many.
func (h *host) flood(ctx context.Context, name string) (n int) {
	var socks []*net.UDPConn
	for k := range 200 {
		socks = append(socks, h.socket("udp4", fmt.Sprintf("10.77.0.%d:5353", 50+k), reusable))
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	answer := func(name string, port int) []byte {
		inst := dnsmessage.MustNewName(name + "._shoal._tcp.local.")
		m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: inst, Class: dnsmessage.ClassINET, TTL: 120},
			Body:   &dnsmessage.SRVResource{Port: uint16(port), Target: dnsmessage.MustNewName("\x1b]0;x.local.")},
		}}}
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return b
	}
	other := answer(strings.Repeat("a", 32), 7420)
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return n
		case <-t.C:
		}
		for range 50 {
			_, _ = socks[n%len(socks)].WriteToUDP(other, group) // some may get lost
			_, _ = socks[n%len(socks)].WriteToUDP(answer(name, 1+n%65535), group)
			n += 2
		}
	}
}
