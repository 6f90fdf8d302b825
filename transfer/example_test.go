package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/peer"
	"github.com/shoal-p2p/shoal/transfer"
)

// A network lets transfers reach peers over TCP and TLS. Package peer does not
// import package transfer, so the two are joined where they are used.
type network struct{ *peer.Node }

func (n network) Dial(ctx context.Context, addr string, key [32]byte) (transfer.Conn, error) {
	c, err := n.Node.Dial(ctx, addr, key)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n network) Accept(key [32]byte, f func(transfer.Conn)) (stop func()) {
	return n.Node.Accept(key, func(c *peer.Conn) { f(c) })
}

func (n network) ID() [32]byte           { return n.Node.ID() }
func (network) IsSelf(err error) bool    { return errors.Is(err, peer.ErrSelf) }
func (network) IsNoShare(err error) bool { return errors.Is(err, peer.ErrNoShare) }

// One part of a program shares a file, another fetches it. In two programs, the
// root and the address travel in a ticket (manifest.Ticket).
func Example() {
	dir, err := os.MkdirTemp("", "shoal-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "hello.txt")
	if err := os.WriteFile(file, []byte("hello, swarm\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// Share it, at any free port of the loopback address.
	here, err := peer.NewNode(peer.Config{Agent: "example"})
	if err != nil {
		log.Fatal(err)
	}
	defer here.Close()
	at, err := here.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	share, err := transfer.NewShare(ctx, transfer.ShareOptions{
		Paths: []string{file}, Network: network{here}, Port: int(netip.MustParseAddrPort(at.String()).Port()),
	})
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- share.Serve(ctx) }()

	// Fetch it. The same call, made again after whatever has stopped it, goes on.
	there, err := peer.NewNode(peer.Config{Agent: "example"})
	if err != nil {
		log.Fatal(err)
	}
	defer there.Close()
	res, err := transfer.Get(ctx, transfer.GetOptions{
		Root: share.Manifest().Root(), Addrs: []string{at.String()}, Dir: filepath.Join(dir, "copies"),
		Timeout: time.Minute, Network: network{there},
		Events: func(e transfer.Event) {
			if f, ok := e.(transfer.Found); ok {
				fmt.Println("found", f.Manifest.Name())
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes at %s\n", res.Size, filepath.Base(res.Path))
	cancel()
	<-served

	// Output:
	// found hello.txt
	// 13 bytes at hello.txt
}
