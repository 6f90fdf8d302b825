//go:build !linux

package peer

import "net"

func tuneSocket(*net.TCPConn, bool) {}
