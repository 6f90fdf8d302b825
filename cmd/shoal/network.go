package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer"
	"github.com/shoal-p2p/shoal/transfer"
)

// DefaultPort is where share listens unless told otherwise.
const DefaultPort = 7420

// A network makes a peer.Node a transfer.Network.
type network struct{ *peer.Node }

var (
	_ transfer.Network = network{}
	_ transfer.Conn    = (*peer.Conn)(nil)
)

func (n network) Dial(ctx context.Context, addr string, key [32]byte) (transfer.Conn, error) {
	c, err := n.Node.Dial(ctx, addr, key)
	if err != nil {
		return nil, err // not a nil *peer.Conn in a Conn
	}
	return c, nil
}

func (n network) Accept(key [32]byte, f func(transfer.Conn)) (stop func()) {
	return n.Node.Accept(key, func(c *peer.Conn) { f(c) })
}

func (n network) ID() [32]byte { return n.Node.ID() }

func (network) IsSelf(err error) bool    { return errors.Is(err, peer.ErrSelf) }
func (network) IsNoShare(err error) bool { return errors.Is(err, peer.ErrNoShare) }

// newNetwork returns a network that does not listen yet.
func newNetwork() (network, error) {
	n, err := peer.NewNode(peer.Config{Agent: "shoal/" + version})
	return network{n}, err
}

// listen makes n listen at addr, as parseListen returns it. If addr is "", it
// tries the default port, and then any; fellBack says so.
func (n network) listen(addr string) (at netip.AddrPort, fellBack bool, err error) {
	tries := []string{addr}
	if addr == "" {
		tries = []string{":" + strconv.Itoa(DefaultPort), ":0"}
	}
	for i, try := range tries {
		var a net.Addr
		if a, err = n.Node.Listen(try); err == nil {
			at, err = netip.ParseAddrPort(a.String())
			return at, i > 0, err
		}
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			break
		}
	}
	return at, false, fmt.Errorf("listen at %s: %w", tries[0], err)
}

// parseListen checks the value of --listen: HOST:PORT, :PORT or PORT. A host
// is returned apart.
func parseListen(s string) (addr, host string, err error) {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", "", usagef("--listen %q is not HOST:PORT, :PORT or PORT", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", usagef("--listen %q: the port is a number from 0 to 65535", s)
	}
	return s, host, nil
}

// parsePeers checks the values of a flag that names peers. One value may name
// several, with commas between them. The port may be left out.
func parsePeers(flag string, values []string) ([]string, error) {
	return parseAddrs(flag, values, DefaultPort)
}

// parseAdvertise checks the values of --advertise. One without a port gets that at
// which share listens.
func parseAdvertise(values []string, port uint16) ([]string, error) {
	addrs, err := parseAddrs("advertise", values, port)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if at, err := netip.ParseAddrPort(addr); err == nil && at.Addr().Unmap().IsUnspecified() {
			return nil, usagef("--advertise %q: nobody can connect to that; name the address at which others reach this machine", addr)
		}
	}
	if len(addrs) > manifest.MaxAddrs {
		return nil, usagef("--advertise: a ticket holds at most %d addresses, not %d", manifest.MaxAddrs, len(addrs))
	}
	return addrs, nil
}

// parseAddrs is parsePeers with another port for those that are given without one.
func parseAddrs(flag string, values []string, port uint16) ([]string, error) {
	var addrs []string
	for _, v := range values {
		for s := range strings.SplitSeq(v, ",") {
			addr := strings.TrimSpace(s)
			if addr == "" {
				return nil, usagef("--%s %q names no peer", flag, v)
			}
			if ip, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
				addr = netip.AddrPortFrom(ip, port).String()
			} else if !strings.Contains(addr, ":") {
				addr = net.JoinHostPort(addr, strconv.Itoa(int(port)))
			}
			if err := manifest.CheckAddr(addr); err != nil {
				return nil, usagef("--%s %q is not HOST:PORT: %v", flag, s, err)
			}
			if !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, nil
}

// maxTicketAddrs keeps a ticket short enough for a chat line and a QR code.
const maxTicketAddrs = 4

// ticketAddrs returns the addresses at which others can reach a listener at
// at. host is what the user asked to listen at, "" for everywhere.
func ticketAddrs(at netip.AddrPort, host string) []string {
	port := strconv.Itoa(int(at.Port()))
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return []string{net.JoinHostPort(host, port)}
	}
	only4 := at.Addr().Is4()
	var ips []netip.Addr
	ifaces, err := net.Interfaces()
	if err != nil {
		return []string{net.JoinHostPort("127.0.0.1", port)}
	}
	for _, ifc := range ifaces {
		if ifc.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifc.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				if ip = ip.Unmap(); !virtual(ifc.Name) || ip.IsLoopback() {
					ips = append(ips, ip)
				}
			}
		}
	}
	var out []string
	for _, ip := range rank(ips, only4) {
		out = append(out, netip.AddrPortFrom(ip, at.Port()).String())
	}
	return out
}

// virtual reports whether an interface leads to this machine's own containers.
func virtual(name string) bool {
	for _, p := range []string{"docker", "br-", "veth", "virbr", "cni", "flannel", "vmnet"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// rank returns the few addresses of ips that are of use to others, the best
// first: IPv4, then global IPv6, and loopback if there is nothing else.
func rank(ips []netip.Addr, only4 bool) []netip.Addr {
	class := func(ip netip.Addr) int {
		switch {
		case ip.IsLoopback():
			return 4
		case !ip.IsGlobalUnicast(): // link-local needs a zone, which means nothing elsewhere
			return -1
		case ip.Is4():
			return 1
		case only4:
			return -1
		case ip.IsPrivate():
			return 3
		}
		return 2
	}
	var out []netip.Addr
	for want := 1; want <= 4; want++ {
		if want == 4 && len(out) > 0 {
			break
		}
		for _, ip := range ips {
			if class(ip) == want && !slices.Contains(out, ip) {
				out = append(out, ip)
			}
		}
	}
	if len(out) > 0 && out[0].IsLoopback() {
		return out[:1]
	}
	return out[:min(len(out), maxTicketAddrs)]
}
