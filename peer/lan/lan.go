// Package lan finds the peers of a share on the local network, without an
// address or a server: with multicast DNS (RFC 6762) and the records of DNS
// service discovery (RFC 6763). peer/SPEC.md, "On a LAN", says what is sent.
//
// What it finds are hints that anybody on the network can make up. They are
// bounded in number and in rate, and it is for the admission to find out whether
// there is a peer of the share.
package lan

import (
	"context"
	"encoding/base32"
	"net/netip"
	"time"

	"github.com/zeebo/blake3"
)

// A Config says what Run does. The methods of the node that is behind it call
// Found and Debugf one at a time, from one goroutine; neither may block.
type Config struct {
	Key  [32]byte // the key of the share: its root
	Port int      // where we accept connections; 0: we do not, and are not announced

	// Addr is the address at which we accept them; the zero Addr and unspecified
	// ones stand for all. Loopback is not announced.
	Addr netip.Addr

	// Found is told where there may be a peer of the share, as host:port. An
	// address comes again when it is heard of again, some seconds later. nil: look
	// for nobody.
	Found func(addr string)

	// Debugf is told why the network cannot be used, and which parts of it are;
	// nil: nobody is.
	Debugf func(format string, args ...any)
}

// Run announces a share, and looks for others that do, on all networks that this
// machine is on or comes to, until ctx ends. That the network cannot be used is no
// error: it may be at the next look.
func Run(ctx context.Context, c Config) {
	if c.Debugf == nil {
		c.Debugf = func(string, ...any) {}
	}
	if c.Addr.Unmap().IsLoopback() {
		c.Port = 0
	}
	if c.Port == 0 && c.Found == nil {
		return
	}
	w := openWire(ctx, c.Debugf)
	defer w.close()
	n := newNode(c, w.send)
	w.start(ctx, n.talk)
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	n.see(time.Now(), w.look())
	for {
		timer.Reset(time.Until(n.tick(time.Now())))
		for again := false; !again; {
			select {
			case <-ctx.Done():
				n.leave()
				return
			case <-look.C:
				n.see(time.Now(), w.look())
				again = true
			case h := <-w.heard:
				again = n.hear(time.Now(), h)
			case <-timer.C:
				again = true
			}
		}
	}
}

// lookInterval is how often to look which networks there are.
const lookInterval = 3 * time.Second

const nameContext = "shoal 1 share name on a LAN"

var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Name returns what a share is called on a LAN. Nobody can tell the key from it,
// nor the name that the share has on a connection.
func Name(key [32]byte) string {
	var sum [20]byte
	blake3.DeriveKey(nameContext, key[:], sum[:])
	return nameEncoding.EncodeToString(sum[:])
}
