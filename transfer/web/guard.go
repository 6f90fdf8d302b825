package web

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// A PrivateError reports that a source that began at a public address, or that a
// manifest names, leads to a private one: somebody else could reach into ours.
type PrivateError struct{ Addr netip.Addr }

func (e *PrivateError) Error() string {
	return fmt.Sprintf("leads to %s, an address within this network or machine, where whoever named it must not reach; it is not followed", e.Addr)
}

// A guard looks at the addresses to which one source leads. The first one that
// is dialled says whether it is a private affair.
type guard struct {
	far bool // never to this machine

	mu     sync.Mutex
	public bool // led to a public address before
}

func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil // not an address of the internet
		}
		return g.check(at.Addr())
	}}
	return d.DialContext(ctx, network, addr)
}

// cgnat are the addresses that providers, and networks laid over others, share out
// within themselves (RFC 6598).
var cgnat = netip.MustParsePrefix("100.64.0.0/10")

func (g *guard) check(ip netip.Addr) error {
	ip = ip.Unmap()
	private := cgnat.Contains(ip) || ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()
	if g.far && private && !ip.IsPrivate() && !cgnat.Contains(ip) {
		return &PrivateError{ip}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if private && g.public {
		return &PrivateError{ip}
	}
	g.public = g.public || !private
	return nil
}
