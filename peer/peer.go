// Package peer carries one connection between two peers and the text protocol
// spoken on it; SPEC.md beside this file describes every byte.
//
// A [Node] has a key of its own, dials and listens. Both sides of a connection
// prove that they know the 32-byte key of a share before either says anything
// about it; what comes out is a [Conn]. The package knows chunk numbers, never
// files.
package peer

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// MaxSegment is the most bytes that one data line carries.
const MaxSegment = 256 << 10

// MaxManifestSize is the size of the largest manifest that may be announced.
const MaxManifestSize = 64 << 20

type Config struct {
	Identity *Identity // nil: a fresh one
	Agent    string    // program and version, said to admitted peers; "" is "shoal"
	Logger   *slog.Logger

	MaxPending     int // connections not yet admitted; 0 is 32
	MaxPerAddr     int // connections from one address, admitted or not; 0 is 8
	DialContext    func(ctx context.Context, network, addr string) (net.Conn, error)
	HandshakeLimit time.Duration // 0 is 10 s
}

type Node struct{}

func NewNode(cfg Config) (*Node, error) { panic("skeleton") }

func (n *Node) ID() ID { panic("skeleton") }

func (n *Node) Dial(ctx context.Context, addr string, key [32]byte) (*Conn, error) {
	panic("skeleton")
}

// Join speaks as the dialler on nc, Serve as the listener.
func (n *Node) Join(ctx context.Context, nc net.Conn, key [32]byte) (*Conn, error) {
	panic("skeleton")
}
func (n *Node) Serve(nc net.Conn)                                { panic("skeleton") }
func (n *Node) Listen(addr string) (net.Addr, error)             { panic("skeleton") }
func (n *Node) Accept(key [32]byte, f func(*Conn)) (stop func()) { panic("skeleton") }
func (n *Node) Close() error                                     { panic("skeleton") }

type Conn struct{}

func (c *Conn) ID() [32]byte                             { panic("skeleton") }
func (c *Conn) RemoteAddr() string                       { panic("skeleton") }
func (c *Conn) Agent() string                            { panic("skeleton") }
func (c *Conn) Dialled() bool                            { panic("skeleton") }
func (c *Conn) RTT() time.Duration                       { panic("skeleton") }
func (c *Conn) Sent() (payload, total int64)             { panic("skeleton") }
func (c *Conn) Received() (payload, total int64)         { panic("skeleton") }
func (c *Conn) Run(ctx context.Context, h Handler) error { panic("skeleton") }
func (c *Conn) SendHaveAll() error                       { panic("skeleton") }
func (c *Conn) SendHaves(b *chunk.Bitfield) error        { panic("skeleton") }
func (c *Conn) SendHave(rs []chunk.Range) error          { panic("skeleton") }
func (c *Conn) SendWant(rs []chunk.Range) error          { panic("skeleton") }
func (c *Conn) SendCancel(rs []chunk.Range) error        { panic("skeleton") }
func (c *Conn) SendGone(rs []chunk.Range) error          { panic("skeleton") }
func (c *Conn) SendWantManifest() error                  { panic("skeleton") }
func (c *Conn) SendManifest(size int64) error            { panic("skeleton") }
func (c *Conn) SendData(i, off int, p []byte) error      { panic("skeleton") }
func (c *Conn) SendPeers(addrs []string) error           { panic("skeleton") }
func (c *Conn) SendListen(port int) error                { panic("skeleton") }
func (c *Conn) Flush() error                             { panic("skeleton") }
func (c *Conn) Close(reason error) error                 { panic("skeleton") }

type Handler = interface {
	HaveAll() error
	Have(rs []chunk.Range) error
	Want(rs []chunk.Range) error
	Cancel(rs []chunk.Range) error
	Gone(rs []chunk.Range) error
	WantManifest() error
	Manifest(size int64) error
	Segment(i, off, n int) ([]byte, error)
	Received(i, off, n int) error
	Peers(addrs []string) error
	Listening(port int) error
}
