package peer

import (
	"net"

	"golang.org/x/sys/unix"
)

// notSentLimit bounds what waits in the socket before it is sent, so that a
// control line never waits behind more.
const notSentLimit = 256 << 10

// tuneSocket ignores errors: each setting is one that we can do without.
func tuneSocket(tc *net.TCPConn, near bool) {
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLimit)
		if !near {
			return
		}
		// bbr measures what a short path gives and then paces to it, which costs
		// a third of the rate where there is nothing to measure.
		if cc, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil && cc == "bbr" {
			unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
		}
	})
}
