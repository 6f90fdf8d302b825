package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check what could keep shoal from working, and say how to mend it",
		ArgsUsage: "[TICKET|HOST:PORT]",
		Description: "Looks at the state folder, the disk of the current folder, the clock, the network and the\n" +
			"port; with a ticket or an address also at the way to that peer. Exits with 1 if there is a\n" +
			"problem.\n\n" +
			"shoal doctor\n" +
			"shoal doctor 192.0.2.7:7420\n" +
			"shoal doctor shoal:...",
		Flags:  []cli.Flag{boolFlag("json", "print JSON lines")},
		Action: a.doctor,
	}
}

// A checkup is what doctor has found out about one thing.
type checkup struct {
	name string
	bad  bool
	text string
	fix  string // what to do about it, or a hint
}

func (a *app) doctor(cc *cli.Context) error {
	args, err := arguments(cc, 0, 1)
	if err != nil {
		return err
	}
	var addrs []string
	var key [32]byte
	ticket := false
	if len(args) == 1 {
		if args[0], err = ticketText(args[0]); err != nil {
			return err
		}
		if isTicket(args[0]) {
			src, err := parseSource(args[0])
			if err != nil {
				return err
			}
			addrs, key, ticket = src.addrs, src.root, true
		} else if addrs, err = parsePeers("peer", args); err != nil {
			return usagef("%q is neither a ticket (shoal:...) nor HOST:PORT", args[0])
		}
	}
	if !ticket {
		_, _ = rand.Read(key[:]) // never fails
	}
	found := []checkup{checkVersion(), checkState(home()), checkClock("."), checkFlush("."), checkSpace("."), checkNet(), checkPort(), checkFirewall()}
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	found = append(found, checkHandshake(cc.Context, n))
	for _, addr := range addrs {
		found = append(found, checkPeer(cc.Context, n, addr, key, ticket))
	}
	if ticket && len(addrs) == 0 {
		found = append(found, checkup{"peer", true, "the ticket names no address", "ask for one that does, or add --peer HOST:PORT to get"})
	}
	bad := 0
	for _, c := range found {
		if c.bad {
			bad++
		}
		if err := a.showCheckup(c, cc.Bool("json")); err != nil {
			return err
		}
	}
	if bad > 0 {
		return refuse(codeOther, "the lines above say how to mend each", "%s", count(bad, "problem"))
	}
	return nil
}

func (a *app) showCheckup(c checkup, asJSON bool) error {
	if asJSON {
		return a.event("check", map[string]any{"name": c.name, "ok": !c.bad, "text": c.text, "fix": c.fix})
	}
	state := "ok"
	if c.bad {
		state = "PROBLEM"
	}
	s := fmt.Sprintf("%-8s %-9s %s", state, c.name, c.text)
	if c.fix != "" {
		s += "; " + c.fix
	}
	_, err := fmt.Fprintln(a.stdout, escape(s))
	return err
}

func checkVersion() checkup {
	return checkup{name: "version", text: fmt.Sprintf("shoal %s, %s, %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)}
}

func checkState(dir string) checkup {
	c := checkup{name: "state", text: dir + " can be written to"}
	if text := homeless(); text != "" {
		c.bad, c.text, c.fix = true, text, homeFix
		return c
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		_, err = probe(dir, 0)
	}
	if err != nil {
		c.bad, c.text, c.fix = true, oneLine(err), "check who owns it, or set SHOAL_HOME to a folder of yours"
	}
	return c
}

// probe makes a file of n bytes in dir, flushes it, and removes it. It returns what
// the file system says of it.
func probe(dir string, n int) (fi os.FileInfo, err error) {
	f, err := os.CreateTemp(dir, ".shoal-doctor-*")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(make([]byte, n))
	if err == nil && n > 0 {
		err = f.Sync()
	}
	if err == nil {
		fi, err = f.Stat()
	}
	return fi, errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// A clock may be off by so much from that of the file system before it is a problem.
const clockSkew = 2 * time.Second

func checkClock(dir string) checkup {
	now := time.Now()
	c := checkup{name: "clock", text: now.UTC().Format(time.RFC3339)}
	if y := now.UTC().Year(); y < 2026 || y > 2100 {
		c.bad, c.text, c.fix = true, c.text+" is not the time of today", "set the clock: times of files and their hashes in the cache depend on it"
		return c
	}
	if fi, err := probe(dir, 1); err == nil {
		if d := fi.ModTime().Sub(now); d > clockSkew+time.Since(now) || d < -clockSkew {
			c.bad, c.text, c.fix = true, fmt.Sprintf("the file system's clock is %s off", d.Round(time.Second)), "set the clocks of this machine and of its file server by NTP"
		}
	}
	return c
}

// slowFlush is when a flush is worth a note: a get does one every two seconds.
const slowFlush = 500 * time.Millisecond

func checkFlush(dir string) checkup {
	best := time.Hour
	for range 3 {
		began := time.Now()
		if _, err := probe(dir, 1<<20); err != nil {
			return checkup{"disk", true, oneLine(err), "choose another folder, or check who owns this one and its mode"}
		}
		best = min(best, time.Since(began))
	}
	c := checkup{name: "disk", text: fmt.Sprintf("a megabyte is flushed in %.1f ms here", float64(best.Microseconds())/1000)}
	if best > slowFlush {
		c.fix = "that is slow: fetch to another disk, or when this one is less busy"
	}
	return c
}

// littleSpace is when free space is worth a note.
const littleSpace = 100 << 20

func checkSpace(dir string) checkup {
	d, err := store.OpenDisk(dir)
	if err != nil {
		return checkup{"space", true, oneLine(err), "choose another folder"}
	}
	defer d.Close()
	size, files := d.Free()
	c := checkup{name: "space", text: bytesText(size) + " are free here"}
	switch {
	case size < 0:
		c.text = "this file system does not say how much is free"
	case size < littleSpace:
		c.bad, c.fix = true, "free some, or fetch to another disk"
	case files >= 0 && files < 100:
		c.bad, c.text, c.fix = true, fmt.Sprintf("only %s can be made here (inodes)", count(int(files), "more file")), "remove some files, or fetch to another disk"
	}
	return c
}

func checkNet() checkup {
	c := checkup{name: "network"}
	var shown []string
	for _, addr := range ticketAddrs(netip.AddrPortFrom(netip.IPv6Unspecified(), DefaultPort), "") {
		host, _, err := net.SplitHostPort(addr)
		if ip, perr := netip.ParseAddr(host); err == nil && perr == nil && !ip.IsLoopback() {
			shown = append(shown, host)
		}
	}
	if c.text = "this machine is " + strings.Join(shown, " and "); len(shown) == 0 {
		c.text, c.fix = "no network interface is up but the machine's own", "connect it to a network to reach others"
	}
	return c
}

func checkPort() checkup {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(DefaultPort))
	switch {
	case err == nil:
		_ = l.Close() // nobody came
		return checkup{name: "port", text: fmt.Sprintf("%d is free for share", DefaultPort)}
	case errors.Is(err, syscall.EADDRINUSE):
		return checkup{name: "port", text: fmt.Sprintf("%d is in use; share takes another one, or the one that --listen names", DefaultPort), fix: "shoal why shows whether it is a share of yours"}
	}
	return checkup{"port", true, oneLine(err), "allow shoal to listen, or name a port with --listen"}
}

// checkFirewall can only give hints: no system tells an ordinary user its rules.
func checkFirewall() checkup {
	c := checkup{name: "firewall", text: "none was noticed"}
	allow := ""
	switch {
	case runtime.GOOS == "windows":
		allow = "allow shoal when Windows asks, or in the settings of Windows Defender Firewall"
	case runtime.GOOS == "darwin":
		allow = "allow shoal in System Settings, Network, Firewall, if that is on"
	case fileSays("/etc/ufw/ufw.conf", "ENABLED=yes"):
		allow = fmt.Sprintf("ufw is on; to be reached: ufw allow %d/tcp", DefaultPort)
	case fileSays("/run/firewalld.pid", ""):
		allow = fmt.Sprintf("firewalld is on; to be reached: firewall-cmd --add-port=%d/tcp", DefaultPort)
	}
	if allow != "" {
		c.text, c.fix = "there may be one", allow
	}
	return c
}

func fileSays(name, text string) bool {
	s, err := head(name, 4096)
	return err == nil && strings.Contains(s, text)
}

// checkHandshake makes two peers of this process shake hands.
func checkHandshake(ctx context.Context, n network) checkup {
	ctx, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	bad := func(err error) checkup {
		return checkup{"tls", true, "two peers on this machine cannot talk: " + oneLine(err), "look for a program that filters connections, also those of the machine to itself"}
	}
	other, err := newNetwork()
	if err != nil {
		return bad(err)
	}
	defer other.Close()
	at, _, err := other.listen("127.0.0.1:0")
	if err != nil {
		return bad(err)
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	stop := other.Accept(key, func(c transfer.Conn) { _ = c.Close(nil) })
	defer stop()
	began := time.Now()
	c, err := n.Dial(ctx, at.String(), key)
	if err != nil {
		return bad(err)
	}
	_ = c.Close(nil) // it was only to see
	return checkup{name: "tls", text: fmt.Sprintf("two peers on this machine shake hands in %.1f ms", float64(time.Since(began).Microseconds())/1000)}
}

// checkPeer looks at the way to a peer, step by step.
func checkPeer(ctx context.Context, n network, addr string, key [32]byte, ticket bool) checkup {
	ctx, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	c := checkup{name: "peer"}
	fail := func(text, fix string) checkup {
		return checkup{"peer", true, addr + " " + text, fix}
	}
	began := time.Now()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fail("is no name that is known here", "check the spelling, or use the number of the other machine")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail("refuses: the machine is there, and nothing listens at that port", "check that share runs there and which port it says")
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fail("cannot be reached: there is no way to it", "check that both machines are on the same network, or a VPN")
	case err != nil && ctx.Err() != nil:
		return fail("does not answer", "a firewall there, or on the way, drops it: open the port for TCP, or share from this side")
	case err != nil:
		return fail("cannot be reached: "+oneLine(err), "check the address")
	}
	rtt := time.Since(began)
	_ = nc.Close() // it was only to see
	conn, err := n.Dial(ctx, addr, key)
	switch {
	case err == nil:
		_ = conn.Close(nil) // it was only to see
		c.text = fmt.Sprintf("%s has this share, round trip %.1f ms", addr, float64(rtt.Microseconds())/1000)
	case errors.Is(err, peer.ErrNoShare) && !ticket:
		c.text = fmt.Sprintf("%s is a shoal that can be reached, round trip %.1f ms", addr, float64(rtt.Microseconds())/1000)
	case errors.Is(err, peer.ErrNoShare):
		return fail("is a shoal, and does not have this share", "check that it still runs there, or ask for a new ticket")
	case errors.Is(err, manifest.ErrVersion), errors.Is(err, peer.ErrVersion):
		return fail("speaks another version: "+oneLine(err), "install the same version on both sides")
	default:
		return fail("takes the connection, and then: "+oneLine(err), "check that it is shoal that listens there, and that nothing between changes what is sent")
	}
	return c
}
