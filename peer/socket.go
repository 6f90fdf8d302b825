package peer

import "net"

// tune sets what we want of a carrier that is a TCP socket. Go has set
// TCP_NODELAY. The buffers' sizes are the system's business: setting them would
// turn its tuning off.
func tune(nc net.Conn) {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	near := false
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok {
		near = a.IP.IsLoopback() || a.IP.IsPrivate() || a.IP.IsLinkLocalUnicast()
	}
	tuneSocket(tc, near)
}
