package lan

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/shoal-p2p/shoal/chunk/crew"
)

// The groups of multicast DNS.
var (
	group4 = netip.MustParseAddrPort("224.0.0.251:5353")
	group6 = netip.MustParseAddrPort("[ff02::fb]:5353")
)

// maxNetworks is how many interfaces are used: a machine may have hundreds, for
// its containers.
const maxNetworks = 32

// A wire is the sockets, one for each family.
type wire struct {
	debugf  func(string, ...any)
	socks   []*socket
	heard   chan heard // what is more than is taken is dropped
	said    map[key]bool
	readers crew.Crew
}

// A socket hides what differs between the families.
type socket struct {
	v6     bool
	conn   *net.UDPConn
	p4     *ipv4.PacketConn
	p6     *ipv6.PacketConn
	group  *net.UDPAddr
	ifaces map[int]net.Interface // that joined the group
}

// openWire opens the port of multicast DNS, together with others that do, or any
// port if it may not: from there it can ask and be answered, and announce, but
// does not hear what others announce.
func openWire(ctx context.Context, debugf func(string, ...any)) *wire {
	w := &wire{debugf: debugf, heard: make(chan heard, 256), said: make(map[key]bool)}
	for _, v6 := range []bool{false, true} {
		s, err := openSocket(ctx, v6, int(group4.Port()))
		if err != nil {
			debugf("LAN: %v", err)
			if s, err = openSocket(ctx, v6, 0); err != nil {
				debugf("LAN: %v", err)
				continue
			}
		}
		w.socks = append(w.socks, s)
	}
	return w
}

func openSocket(ctx context.Context, v6 bool, port int) (*socket, error) {
	s := &socket{v6: v6, group: net.UDPAddrFromAddrPort(group4), ifaces: make(map[int]net.Interface)}
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port))
	name := "udp4"
	if v6 {
		s.group = net.UDPAddrFromAddrPort(group6)
		at = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port))
		name = "udp6"
	}
	lc := net.ListenConfig{Control: reuse}
	pc, err := lc.ListenPacket(ctx, name, at.String())
	if err != nil {
		return nil, err
	}
	s.conn = pc.(*net.UDPConn)
	// Not every system says which interface something came in by: node.hear goes by
	// the address then. The rest is the default of most systems.
	if v6 {
		s.p6 = ipv6.NewPacketConn(s.conn)
		_ = s.p6.SetControlMessage(ipv6.FlagInterface, true)
		_ = s.p6.SetMulticastHopLimit(255)
		_ = s.p6.SetMulticastLoopback(true)
	} else {
		s.p4 = ipv4.NewPacketConn(s.conn)
		_ = s.p4.SetControlMessage(ipv4.FlagInterface, true)
		_ = s.p4.SetMulticastTTL(255)
		_ = s.p4.SetMulticastLoopback(true)
	}
	return s, nil
}

func (w *wire) close() {
	for _, s := range w.socks {
		s.conn.Close()
	}
	w.readers.Wait()
}

// start reads from the sockets until close.
func (w *wire) start(ctx context.Context, t *talk) {
	for _, s := range w.socks {
		w.readers.Go(func() { w.read(ctx, s, t) })
	}
}

func (w *wire) read(ctx context.Context, s *socket, t *talk) {
	b := make([]byte, maxLen)
	wait := time.Millisecond
	for {
		n, index, from, err := s.receive(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// What was sent before may come back as an error, or the network is down.
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, time.Second)
			continue
		}
		wait = time.Millisecond
		h := heard{from: origin{net: key{index, s.v6}, addr: from}}
		if !t.read(b[:n], &h) {
			continue
		}
		select {
		case w.heard <- h:
		default:
		}
	}
}

// receive returns the next datagram, and the interface that it came in by, if the
// system says so.
func (s *socket) receive(b []byte) (n, index int, from netip.AddrPort, err error) {
	var src net.Addr
	if s.v6 {
		var cm *ipv6.ControlMessage
		if n, cm, src, err = s.p6.ReadFrom(b); cm != nil {
			index = cm.IfIndex
		}
	} else {
		var cm *ipv4.ControlMessage
		if n, cm, src, err = s.p4.ReadFrom(b); cm != nil {
			index = cm.IfIndex
		}
	}
	if a, ok := src.(*net.UDPAddr); ok {
		from = a.AddrPort()
	}
	return n, index, from, err
}

// send sends to an address on a network, or to the group.
func (w *wire) send(k key, to netip.AddrPort, b []byte) {
	for _, s := range w.socks {
		if s.v6 != k.v6 {
			continue
		}
		ifc, ok := s.ifaces[k.index]
		if !ok {
			return
		}
		err := s.send(&ifc, to, b)
		if err != nil && !w.said[k] { // as long as an IPv6 address is new it cannot be used
			w.debugf("LAN: send on %s: %v", ifc.Name, err)
		}
		w.said[k] = err != nil
	}
}

func (s *socket) send(ifc *net.Interface, to netip.AddrPort, b []byte) error {
	dst := *s.group
	if s.v6 {
		dst.Zone = ifc.Name
	}
	if to.IsValid() {
		dst = *net.UDPAddrFromAddrPort(to)
	}
	// There is always room, unless a network is stuck; nothing may wait for that.
	_ = s.conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	if s.v6 {
		if err = s.p6.SetMulticastInterface(ifc); err == nil {
			_, err = s.p6.WriteTo(b, nil, &dst)
		}
	} else {
		if err = s.p4.SetMulticastInterface(ifc); err == nil {
			_, err = s.p4.WriteTo(b, nil, &dst)
		}
	}
	return err
}

// look returns the networks that there are now, and joins the group on each.
func (w *wire) look() []network {
	ifaces, err := net.Interfaces()
	if err != nil {
		w.debugf("LAN: %v", err)
		return nil
	}
	var out []network
	for _, s := range w.socks {
		there := make(map[int]bool)
		for _, ifc := range ifaces {
			if len(there) == maxNetworks {
				break
			}
			n := network{key: key{ifc.Index, s.v6}, name: ifc.Name}
			if !usable(ifc) || !n.addresses(ifc) {
				continue
			}
			there[ifc.Index] = true
			out = append(out, n)
			if _, ok := s.ifaces[ifc.Index]; !ok {
				if err := s.join(&ifc); err != nil {
					w.debugf("LAN: join the group on %s: %v", ifc.Name, err)
				}
			}
			s.ifaces[ifc.Index] = ifc
		}
		for index := range s.ifaces {
			if !there[index] {
				s.leave(index)
			}
		}
	}
	return out
}

// usable leaves out what others are not on. A tunnel leads to one machine, or says
// so and has no group.
func usable(ifc net.Interface) bool {
	const want = net.FlagUp | net.FlagRunning | net.FlagMulticast
	return ifc.Flags&want == want && ifc.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
}

// addresses fills in those of n's family, and reports whether there are any.
func (n *network) addresses(ifc net.Interface) bool {
	addrs, err := ifc.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		ipn, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(ipn.IP)
		ip = ip.Unmap()
		if !ok || ip.Is6() != n.v6 {
			continue
		}
		ones, _ := ipn.Mask.Size()
		n.own = append(n.own, ip)
		n.prefixes = append(n.prefixes, netip.PrefixFrom(ip, ones).Masked())
	}
	return len(n.own) > 0
}

func (s *socket) join(ifc *net.Interface) error {
	if s.v6 {
		return s.p6.JoinGroup(ifc, &net.UDPAddr{IP: s.group.IP})
	}
	return s.p4.JoinGroup(ifc, &net.UDPAddr{IP: s.group.IP})
}

// leave forgets an interface. If it is gone the system has left the group already.
func (s *socket) leave(index int) {
	ifc := s.ifaces[index]
	delete(s.ifaces, index)
	if s.v6 {
		_ = s.p6.LeaveGroup(&ifc, &net.UDPAddr{IP: s.group.IP})
	} else {
		_ = s.p4.LeaveGroup(&ifc, &net.UDPAddr{IP: s.group.IP})
	}
}
