package peer

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
)

// maxAnswers is how many of a name's addresses one Dial tries: who answers for a name
// would otherwise decide whom we knock at, and how often.
const maxAnswers = 16

// dialFew returns what makes TCP connections and looks names up with r; nil is the
// system's resolver. As net.Dialer it tries addresses of both families side by side.
func dialFew(r *net.Resolver) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Resolver: r, ControlContext: fewTries()}
		return d.DialContext(ctx, network, addr)
	}
}

// fewTries returns what a net.Dialer calls before each address that it tries.
func fewTries() func(context.Context, string, string, syscall.RawConn) error {
	var tried atomic.Int32
	return func(context.Context, string, string, syscall.RawConn) error {
		if tried.Add(1) > maxAnswers {
			return fmt.Errorf("the first %d addresses of the name do not answer; more are not tried", maxAnswers)
		}
		return nil
	}
}
