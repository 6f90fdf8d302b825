package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// Where a peer can be, as people are told.
const (
	onLAN      = "LAN"
	direct     = "direct" // somewhere else, without anything in between
	hereItself = "this machine"
)

// whereIs says where the peer at addr is, given the addresses of this machine's
// interfaces; "" for what is no host and port, such as the address of a web server.
func whereIs(addr string, local []net.Addr) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ""
	}
	ip := ap.Addr().Unmap().WithZone("")
	where := direct
	if ip.IsLinkLocalUnicast() {
		where = onLAN
	}
	for _, a := range local {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		switch own, _ := netip.AddrFromSlice(n.IP); {
		case own.Unmap() == ip:
			return hereItself
		case n.Contains(ip.AsSlice()):
			where = onLAN
		}
	}
	if ip.IsLoopback() {
		return hereItself
	}
	return where
}

// whereNow is whereIs with the interfaces that there are now.
func whereNow(addr string) string {
	local, err := net.InterfaceAddrs()
	if err != nil {
		local = nil // then everything is direct
	}
	return whereIs(addr, local)
}

// present counts who is connected, and where.
type present struct{ by map[[32]byte]*presentPeer }

type presentPeer struct {
	lines int
	where string
}

func (p *present) up(id [32]byte, addr string) {
	if p.by == nil {
		p.by = make(map[[32]byte]*presentPeer)
	}
	if p.by[id] == nil {
		p.by[id] = &presentPeer{where: whereNow(addr)}
	}
	p.by[id].lines++
}

func (p *present) down(id [32]byte) {
	if x := p.by[id]; x != nil {
		if x.lines--; x.lines == 0 {
			delete(p.by, id)
		}
	}
}

// text returns "2 peers (LAN)", "3 peers: 2 LAN + 1 direct"; num is their number if p is empty.
func (p *present) text(num int) string {
	if len(p.by) == 0 {
		return count(num, "peer")
	}
	num = len(p.by)
	at := map[string]int{}
	for _, x := range p.by {
		at[x.where]++
	}
	var parts []string
	for _, where := range slices.Sorted(maps.Keys(at)) {
		if at[where] == num {
			return count(num, "peer") + inBrackets(where)
		}
		parts = append(parts, fmt.Sprintf("%d %s", at[where], where))
	}
	return count(num, "peer") + ": " + strings.Join(parts, " + ")
}

// fromLine returns the line of a summary that is about one peer: what came from
// it, where it is, and how fast it was.
func fromLine(p transfer.PeerStats) string {
	s := fmt.Sprintf("  %9s from %s", bytesText(p.Used), p.Addr)
	where := whereNow(p.Addr)
	switch rate := speedText(p.Used, p.Time); {
	case where != "" && rate != "":
		s += " (" + where + ", " + rate + ")"
	case where != "":
		s += " (" + where + ")"
	}
	if p.Banned {
		s += ", which sent wrong bytes"
	}
	return s
}

// speedText returns n bytes in a time as people read it, or "" for no time.
func speedText(n int64, d time.Duration) string {
	if d < time.Millisecond {
		return ""
	}
	return bytesText(int64(float64(n)/d.Seconds())) + "/s"
}

// freeText says how much space there is where a get writes to, or "".
func freeText(o *transfer.GetOptions) string {
	if o.Output == toStdout {
		return ""
	}
	dir := o.Dir
	if o.Output != "" {
		dir = filepath.Dir(o.Output)
	}
	dir, err := filepath.Abs(dir)
	for ; err == nil; dir = filepath.Dir(dir) { // it may be made only later
		d, derr := store.OpenDisk(dir)
		if derr == nil {
			defer d.Close()
			size, _ := d.Free()
			return "; " + bytesText(size) + " free"
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return ""
}

// waitings says what a get waits for: each reason once, and not more of them than
// anybody reads.
type waitings struct {
	said map[string]bool
}

// mostWaitings is how many reasons are told in one wait.
const mostWaitings = 16

// text returns what is to be said of a wait, or "" if all was said. connected is
// how many peers there are, and known whether an address was given.
func (w *waitings) text(reasons []string, connected int, known bool) string {
	if w.said == nil {
		w.said = map[string]bool{}
	}
	if len(reasons) == 0 {
		switch {
		case connected > 0:
			reasons = []string{"nothing comes"}
		case known:
			reasons = []string{"nobody was found yet"}
		default:
			reasons = []string{"nobody was found yet on the local network; --peer HOST:PORT names one"}
		}
	}
	var fresh []string
	for _, r := range reasons {
		key := plainReason(r)
		if !w.said[key] && len(w.said) < mostWaitings {
			w.said[key] = true
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return ""
	}
	what := "waiting for a peer: "
	if connected > 0 {
		what = "waiting for something new: "
	}
	return what + strings.Join(fresh, "; ")
}

// plainReason returns a reason without the figures in it, which change all the
// time; those of the address stay.
func plainReason(r string) string {
	addr, why, ok := strings.Cut(r, ": ")
	if !ok {
		return r
	}
	why = strings.ReplaceAll(why, "chunks", "chunk") // their number is a figure, too
	return addr + ": " + strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, why)
}
