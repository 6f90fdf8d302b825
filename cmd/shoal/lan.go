package main

import (
	"context"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/peer/lan"
)

func noLANFlag() cli.Flag {
	return boolFlag("no-lan", "neither announce the share on the local network nor look for it there")
}

// announce tells the local network that a share is served at at, until ctx ends.
func (a *app) announce(ctx context.Context, root [32]byte, at netip.AddrPort) {
	lan.Run(ctx, lan.Config{Key: root, Port: int(at.Port()), Addr: at.Addr(), Debugf: a.debugf})
}

// discoverer returns what looks for a share on the local network, and announces
// it there if it is served at at; or nil if the user does not want that.
func (a *app) discoverer(cc *cli.Context, root [32]byte, at netip.AddrPort) func(context.Context, func(string)) {
	if cc.Bool("no-lan") {
		return nil
	}
	return func(ctx context.Context, found func(addr string)) {
		lan.Run(ctx, lan.Config{Key: root, Port: int(at.Port()), Addr: at.Addr(), Debugf: a.debugf, Found: func(addr string) {
			a.debugf("LAN: there may be a peer at %s", addr)
			found(addr)
		}})
	}
}
