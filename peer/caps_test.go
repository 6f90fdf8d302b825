package peer

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// listOf returns a list of chunks that is n bytes long, at least 8.
func listOf(n int) string {
	var list []string
	n++ // the space that the first does not have
	for _, i := range [][]int{{}, {0, 2, 4, 6}, {0}, {10}, {0, 2}, {0, 10}, {0, 2, 4}}[n%7] {
		list = append(list, fmt.Sprint(i))
		n -= len(list[len(list)-1]) + 1
	}
	for i := range n / 7 {
		list = append(list, fmt.Sprint(100_000+2*i))
	}
	return strings.Join(list, " ")
}

// readLine reads and parses one line, with its LF, as a Conn does.
func readLine(s string) error {
	b, err := newLineReader(strings.NewReader(s + "\nbye\n")).next()
	if err == nil {
		err = new(line).parse(b)
	}
	return err
}

// TestW15EachCap holds each cap of SPEC.md on lines and admission to its number: one below and exactly at
// it all is well, one above is refused.
func TestW15EachCap(t *testing.T) {
	number := func(form string) func(*testing.T, int64) error {
		return func(_ *testing.T, n int64) error { return readLine(fmt.Sprintf(form, n)) }
	}
	letters := func(form string) func(*testing.T, int64) error {
		return func(_ *testing.T, n int64) error { return readLine(fmt.Sprintf(form, strings.Repeat("x", int(n)))) }
	}
	list := func(verb string) func(*testing.T, int64) error {
		return func(t *testing.T, n int64) error {
			s := verb + " " + listOf(int(n)-len(verb)-2)
			if len(s)+1 != int(n) {
				t.Fatalf("the line has %d bytes, not %d", len(s)+1, n)
			}
			return readLine(s)
		}
	}
	for _, tt := range []struct {
		name string
		most int64
		try  func(t *testing.T, n int64) error // does so with n
	}{
		{"bytes of a line", 1024, func(_ *testing.T, n int64) error { return readLine("newer " + strings.Repeat("x", int(n)-7)) }},
		{"bytes of a have line", 8192, list("have")},
		{"bytes of a want line", 8192, list("want")},
		{"bytes of a cancel line", 8192, list("cancel")},
		{"bytes of a gone line", 8192, list("gone")},
		{"letters of a verb", 16, letters("%s 1")},
		{"bytes of a version", 16, func(_ *testing.T, n int64) error {
			return readLine("hello shoal/1." + strings.Repeat("1", int(n)-8) + " x")
		}},
		{"bytes of an agent", 64, letters("hello shoal/1.0 %s")},
		{"bytes of a code", 32, letters("error %s")},
		{"bytes of an error's text", 200, letters("error internal %s")},
		{"addresses of a peer line", 64, func(_ *testing.T, n int64) error {
			return readLine("peer" + strings.Repeat(" [2001:db8::1]:65535", int(n)))
		}},
		{"index, have", chunk.MaxNum - 1, number("have %d")},
		{"index, want", chunk.MaxNum - 1, number("want %d")},
		{"index, cancel", chunk.MaxNum - 1, number("cancel %d")},
		{"index, gone", chunk.MaxNum - 1, number("gone %d")},
		{"index, data", chunk.MaxNum - 1, number("data %d 0 1")},
		{"end of a range", chunk.MaxNum - 1, number("have 7-%d")},
		{"end of a bitfield", chunk.MaxNum / 8, func(_ *testing.T, n int64) error {
			return readLine(fmt.Sprintf("bits %d %s", chunk.MaxNum-80, bitsEncoding.EncodeToString([]byte("0123456789abc")[:n-chunk.MaxNum/8+10])))
		}},
		{"size of a manifest", 64 << 20, number("manifest %d")},
		{"offset in a chunk", 16<<20 - 1, number("data 0 %d 1")},
		{"end of data of a chunk", 16 << 20, func(_ *testing.T, n int64) error { return readLine(fmt.Sprintf("data 0 %d 1000", n-1000)) }},
		{"offset in a manifest", 64<<20 - 1, number("data manifest %d 1")},
		{"end of data of a manifest", 64 << 20, func(_ *testing.T, n int64) error { return readLine(fmt.Sprintf("data manifest %d 1000", n-1000)) }},
		{"bytes of a segment", 256 << 10, number("data 0 0 %d")},
		{"bytes of a segment of a manifest", 256 << 10, number("data manifest 0 %d")},
		{"port", 65535, number("listen %d")},
		{"port of an address", 65535, number("peer 192.0.2.1:%d")},
		{"bytes of a handshake", 64 << 10, handshakeOf},
		{"bytes of a certificate", 1024, certificateOf},
		{"certificates", 1, func(t *testing.T, n int64) error { return strangerWith(t, 300, int(n)) }},
		{"pending connections", 32, pendingOf},
		{"connections of an address", 8, fromOneAddress},
		{"connections of an IPv6 /64", 8, fromOneNetwork},
		{"seconds until admission", 10, admittedAfter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := tt.most - 1; n <= tt.most+1; n++ {
				if err := tt.try(t, n); (err == nil) != (n <= tt.most) {
					if n == 0 { // none are too few
						continue
					}
					t.Errorf("%d where %d are allowed: %v", n, tt.most, err)
				}
			}
		})
	}
	// The largest number of all has none above it but in text.
	for n, ok := range map[string]bool{fmt.Sprint(math.MaxInt64 - 1): true, fmt.Sprint(math.MaxInt64): true, "9223372036854775808": false} {
		for _, v := range []string{"ping ", "pong "} {
			if err := readLine(v + n); (err == nil) != ok {
				t.Errorf("%s%s: %v", v, n, err)
			}
		}
	}
}

// handshakeOf reads n bytes before the handshake is over.
func handshakeOf(_ *testing.T, n int64) error {
	bc := newBufConn(&readerConn{r: io.LimitReader(&endless{}, n)}, time.Second)
	_, err := io.Copy(io.Discard, onlyReader{bc})
	return err
}

type readerConn struct {
	net.Conn
	r io.Reader
}

func (c *readerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

type onlyReader struct{ io.Reader }

// certificateOf shows a node a certificate of n bytes.
func certificateOf(t *testing.T, n int64) error { return strangerWith(t, int(n), 1) }

// strangerWith shows a node so many certificates of n bytes, and returns an error
// unless the node then listens.
func strangerWith(t *testing.T, n, num int) error {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var der []byte
	for fill := 1; len(der) != n; fill += n - len(der) {
		der = makeCert(t, ed, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, fill)}}
		})
	}
	cfg := &tls.Config{NextProtos: []string{alpn}, InsecureSkipVerify: true}
	if num > 0 {
		cfg.Certificates = []tls.Certificate{{Certificate: slices.Repeat([][]byte{der}, num), PrivateKey: ed}}
	}
	a, b := tcpPair(t)
	newTestNode(t, Config{}).Serve(b)
	if heard, err := askAs(a, cfg); heard != "error share no such share\n" {
		return fmt.Errorf("heard %q, %w", heard, cmp.Or(err, io.EOF))
	}
	return nil
}

// askAs does the handshake with cfg, asks for a share that is not there, and
// returns what it hears.
func askAs(nc net.Conn, cfg *tls.Config) (string, error) {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	tc := tls.Client(nc, cfg)
	io.WriteString(tc, "hello shoal/1.0 x\njoin "+hex0+" "+hexAF+"\n")
	b, err := io.ReadAll(tc)
	return string(b), err
}

// comeFrom lets connections of these addresses come to a gate with the default
// limits, each admitted at once if in says so. It fails if one finds no place, or
// another has to go for it.
func comeFrom(n int64, in bool, addr func(i int) string) error {
	g := newGate(DefaultMaxPending, DefaultMaxPerAddr)
	var all []*visit
	for i := range int(n) {
		v := g.enter(newBufConn(&addrConn{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr(i)))}, time.Second))
		if v == nil {
			return fmt.Errorf("number %d found no place", i)
		}
		if in {
			g.admit(v)
		}
		all = append(all, v)
	}
	for i, v := range all {
		if v.gone {
			return fmt.Errorf("number %d had to go", i)
		}
	}
	return nil
}

func pendingOf(_ *testing.T, n int64) error {
	return comeFrom(n, false, func(i int) string { return fmt.Sprintf("192.0.2.%d:1", i+1) })
}

func fromOneNetwork(_ *testing.T, n int64) error {
	return errors.Join(
		comeFrom(n, true, func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i+1) }),
		comeFrom(n, false, func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i+1) }),
	)
}

// fromOneAddress joins n times from one address, over sockets.
func fromOneAddress(t *testing.T, n int64) error {
	seed, leech := newTestNode(t, Config{}), newTestNode(t, Config{})
	addr := serveTest(t, seed)
	for i := range int(n) {
		c, err := leech.Dial(t.Context(), addr, testKey)
		if err != nil {
			return err
		}
		defer c.Close(nil)
		waitFor(t, func() bool { // until then the next one may take its place
			seed.nmu.Lock()
			defer seed.nmu.Unlock()
			return len(seed.conns) > i
		})
	}
	return nil
}

// admittedAfter joins a node n seconds after the connection was made, or a
// millisecond before: who comes at the last moment does not know what he gets.
func admittedAfter(t *testing.T, n int64) (err error) {
	synctest.Test(t, func(t *testing.T) {
		node := newTestNode(t, Config{})
		admitted := make(chan *Conn, 1)
		node.Accept(testKey, func(c *Conn) { admitted <- c })
		a, b := net.Pipe()
		defer a.Close()
		node.Serve(b)
		p := newRawPeer(t, a, true, testKey)
		a.SetDeadline(time.Time{})
		time.Sleep(time.Duration(n)*time.Second - time.Millisecond)
		go io.Copy(io.Discard, p.tc)
		_, err = fmt.Fprintf(p.tc, "hello shoal/1.0 x\njoin %s %s\n", p.name(), p.proof(roleDialler))
		synctest.Wait()
		if err == nil && len(admitted) == 0 {
			err = ErrTimeout
		}
		node.Close()
	})
	return err
}
