package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A villain is a hostile peer. It speaks the protocol of peer/SPEC.md by hand,
// from crypto/tls up, so that nothing of our own code keeps it from anything.
type villain struct {
	behaviour
	m    *manifest.Manifest
	data []byte
	ctx  context.Context // ends with the test
	wg   sync.WaitGroup
	host string // its address,
	at   string // and where it listens

	served atomic.Int64 // chunks that it answered for, in all its connections
	came   atomic.Int64 // connections
	once   sync.Once
}

// A behaviour is what a villain does with a connection, whoever has dialled it.
type behaviour struct {
	id, name string
	raw      func(*badConn) // instead of a handshake
	hello    func(*badConn) // instead of the greeting, after the handshake
	run      func(*badConn) // when it is admitted
	helps    bool           // right chunks may come from it
	lies     bool           // it sends wrong bytes
}

// A badConn is one connection of a villain.
type badConn struct {
	v       *villain
	nc      net.Conn
	tc      *tls.Conn
	r       *bufio.Reader
	dialler bool
	port    string // where the other side listens, once it has said so
	began   time.Time
	rnd     *mrand.Rand
}

// newVillain starts a villain for one file. It ends with the test.
func newVillain(t testing.TB, b behaviour, m *manifest.Manifest, data []byte) *villain {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &villain{behaviour: b, m: m, data: data, ctx: ctx, host: "127.0.0.1"}
	if runtime.GOOS == "linux" { // all of 127/8 is there; limits count by address
		k := numVillains.Add(1) % 60_000
		v.host = fmt.Sprintf("127.1.%d.%d", k/250, 1+k%250)
	}
	l, err := net.Listen("tcp", v.host+":0")
	must(t, err)
	v.at = l.Addr().String()
	v.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			v.wg.Go(func() { v.meet(nc, false) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); v.wg.Wait() })
	return v
}

var numVillains atomic.Int64

// dial connects to addr from the villain's own address.
func (v *villain) dial(addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(v.host), 0)), Timeout: 5 * time.Second}
	return d.DialContext(v.ctx, "tcp", addr)
}

// attack dials addr again and again until the test ends, on several connections
// at once.
func (v *villain) attack(addr string, conns int) {
	for range conns {
		v.wg.Go(func() {
			for v.ctx.Err() == nil {
				if nc, err := v.dial(addr); err == nil {
					v.meet(nc, true)
				}
				v.sleep(20 * time.Millisecond)
			}
		})
	}
}

func (v *villain) sleep(d time.Duration) {
	select {
	case <-v.ctx.Done():
	case <-time.After(d):
	}
}

// meet does with one connection what the behaviour says.
func (v *villain) meet(nc net.Conn, dialler bool) {
	defer nc.Close()
	stop := context.AfterFunc(v.ctx, func() { nc.Close() })
	defer stop()
	n := v.came.Add(1)
	c := &badConn{v: v, nc: nc, dialler: dialler, began: time.Now(), rnd: mrand.New(mrand.NewPCG(uint64(n), 1))}
	if v.raw != nil {
		v.raw(c)
		return
	}
	name, ours, theirs, err := c.handshake()
	if err != nil {
		return
	}
	if v.hello != nil {
		v.hello(c)
		return
	}
	c.sayf("hello shoal/1.0 friendly/1\njoin %s %s\n", name, ours)
	hello, join := c.line(), c.line()
	if !strings.HasPrefix(hello, "hello shoal/1.") || join != "join "+name+" "+theirs {
		return
	}
	v.run(c)
}

// handshake returns the share's name and both proofs (peer/SPEC.md, "Admission").
func (c *badConn) handshake() (name, ours, theirs string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, pub, priv)
	if err != nil {
		return "", "", "", err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: priv}},
		NextProtos:   []string{"shoal/1"}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // a villain talks to anybody
	}
	if c.tc = tls.Server(c.nc, cfg); c.dialler {
		c.tc = tls.Client(c.nc, cfg)
	}
	if err := c.tc.HandshakeContext(c.v.ctx); err != nil {
		return "", "", "", err
	}
	c.r = bufio.NewReaderSize(c.tc, 64<<10)
	cs := c.tc.ConnectionState()
	exporter, err := cs.ExportKeyingMaterial("EXPORTER-shoal-1", nil, 32)
	if err != nil || len(cs.PeerCertificates) == 0 {
		return "", "", "", errors.Join(err, errors.New("no key"))
	}
	peerKey, _ := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	d, l := blake3.Sum256(pub), blake3.Sum256(peerKey)
	roles := [2]string{"dialler", "listener"}
	if !c.dialler {
		d, l = l, d
		roles[0], roles[1] = roles[1], roles[0]
	}
	root := c.v.m.Root()
	var n, proofKey [32]byte
	blake3.DeriveKey("shoal 1 share name", root[:], n[:])
	blake3.DeriveKey("shoal 1 share proof", root[:], proofKey[:])
	prove := func(role string) string {
		h, err := blake3.NewKeyed(proofKey[:])
		if err != nil {
			panic(err)
		}
		h.Write(exporter)
		h.Write(d[:])
		h.Write(l[:])
		h.WriteString(role)
		return hex.EncodeToString(h.Sum(nil))
	}
	return hex.EncodeToString(n[:]), prove(roles[0]), prove(roles[1]), nil
}

func (c *badConn) sayf(format string, args ...any) bool {
	_, err := fmt.Fprintf(c.tc, format, args...)
	return err == nil
}

// line returns the next line, or "" at the end of the connection.
func (c *badConn) line() string {
	s, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(s, "\n")
}

// each calls f with each line that comes, until it returns false or the
// connection ends. Bodies are thrown away, and pings answered.
func (c *badConn) each(f func(verb, rest string) bool) {
	for {
		s := c.line()
		if s == "" {
			return
		}
		verb, rest, _ := strings.Cut(s, " ")
		switch verb {
		case "data":
			n, err := strconv.Atoi(rest[strings.LastIndexByte(rest, ' ')+1:])
			if err != nil {
				return
			}
			if _, err := c.r.Discard(n); err != nil {
				return
			}
		case "ping":
			if !c.sayf("pong %s\n", rest) {
				return
			}
		case "listen":
			host, _, err := net.SplitHostPort(c.nc.RemoteAddr().String())
			if err == nil {
				c.port = net.JoinHostPort(host, rest)
			}
		}
		if !f(verb, rest) {
			return
		}
	}
}

// wants calls f with each chunk that is asked for, until it returns false; the
// manifest is -1.
func (c *badConn) wants(f func(i int) bool) {
	c.each(func(verb, rest string) bool {
		if verb != "want" {
			return true
		}
		if rest == "manifest" {
			return f(-1)
		}
		rs, err := chunk.AppendParsedRanges(nil, rest, chunk.MaxNum)
		if err != nil {
			return false
		}
		for _, r := range rs {
			for i := r.First; i < r.End(); i++ {
				if !f(i) {
					return false
				}
			}
		}
		return true
	})
}

// bytes returns a copy of chunk i; -1 is the manifest.
func (c *badConn) bytes(i int) []byte {
	if i < 0 {
		return []byte(c.v.m.Text())
	}
	return bytes.Clone(c.v.data[c.v.m.ChunkOffset(i):c.v.m.ChunkOffset(i+1)])
}

// send sends p as chunk i, or as the manifest.
func (c *badConn) send(i int, p []byte) bool {
	c.v.served.Add(1)
	what := strconv.Itoa(i)
	if i < 0 {
		what = "manifest"
		if !c.sayf("manifest %d\n", len(p)) {
			return false
		}
	}
	for off := 0; off < len(p); off += 256 << 10 {
		q := p[off:min(len(p), off+256<<10)]
		if !c.sayf("data %s %d %d\n", what, off, len(q)) {
			return false
		}
		if _, err := c.tc.Write(q); err != nil {
			return false
		}
	}
	return true
}

// right answers a want as it should be.
func (c *badConn) right(i int) bool { return c.send(i, c.bytes(i)) }

// hang keeps the connection and reads it until it ends.
func (c *badConn) hang() { c.each(func(string, string) bool { return true }) }

// hold keeps the connection and reads nothing, until the other side has had enough.
func (c *badConn) hold() {
	for c.v.ctx.Err() == nil {
		c.v.sleep(50 * time.Millisecond)
		if _, err := c.tc.Write(nil); err != nil {
			return
		}
	}
}

// drip writes p one byte a second.
func (c *badConn) drip(w io.Writer, p []byte) bool {
	for i := range p {
		if _, err := w.Write(p[i : i+1]); err != nil || c.v.ctx.Err() != nil {
			return false
		}
		c.v.sleep(time.Second)
	}
	return true
}

// reset ends the connection with a RST.
func (c *badConn) reset() {
	if tcp, ok := c.nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.nc.Close()
}
