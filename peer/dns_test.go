package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fakeDNS returns a resolver that asks answer for the IPv4 addresses of each name. No
// addresses is NXDOMAIN.
func fakeDNS(t testing.TB, answer func(name string) []netip.Addr) *net.Resolver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				for answerOne(nc, answer) == nil {
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}
}

// answerOne answers one question on a TCP connection (RFC 1035, 4.2.2).
func answerOne(nc net.Conn, answer func(name string) []netip.Addr) error {
	var n [2]byte
	if _, err := io.ReadFull(nc, n[:]); err != nil {
		return err
	}
	q := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(nc, q); err != nil {
		return err
	}
	var labels []string
	at := 12
	for q[at] != 0 {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	kind := binary.BigEndian.Uint16(q[at+1:])
	var addrs []netip.Addr
	found := answer(strings.Join(labels, "."))
	if kind == 1 { // A
		addrs = found
	}
	msg := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:at+5]...)
	binary.BigEndian.PutUint16(msg[6:], uint16(len(addrs)))
	if len(found) == 0 {
		msg[3] |= 3 // NXDOMAIN
	}
	for _, a := range addrs {
		msg = append(msg, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		msg = append(msg, a.AsSlice()...)
	}
	_, err := nc.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

// What a name server says, or does not, costs a bounded time and few dials, and
// another answer is used the next time.
func TestN08DNS(t *testing.T) {
	real := serveTest(t, newTestNode(t, Config{}))
	_, port, err := net.SplitHostPort(real)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	var many []netip.Addr
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{127, 0, byte(i / 250), byte(1 + i%250)}))
	}
	asked := make(chan string, 1000)
	release := make(chan struct{})
	defer close(release)
	moved := false
	r := fakeDNS(t, func(name string) []netip.Addr {
		asked <- name
		switch name {
		case "slow.test":
			<-release
		case "many.test":
			return many
		case "loop.test":
			return many[:1]
		case "moves.test":
			if moved {
				return many[:1]
			}
			return []netip.Addr{netip.MustParseAddr("127.255.255.254")}
		}
		return nil
	})
	try := fewTries()
	for k := range 1000 {
		if err := try(t.Context(), "tcp4", "", nil); (err == nil) != (k < maxAnswers) {
			t.Fatalf("try %d: %v", k+1, err)
		}
	}
	n := newTestNode(t, Config{AdmitTimeout: 3 * time.Second, DialContext: dialFew(r)})
	dial := func(addr string) error {
		c, err := n.Dial(t.Context(), addr, testKey)
		if err == nil {
			c.Close(nil)
		}
		return err
	}
	var dns *net.DNSError
	if err := dial("gone.test.:" + port); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("NXDOMAIN: %v", err)
	}
	if err := dial("slow.test.:" + port); !errors.Is(err, ErrTimeout) {
		t.Errorf("slow: %v", err)
	}
	if err := dial("many.test.:" + dead); err == nil || len(asked) > 20 {
		t.Errorf("1,000 answers: %v; %d questions", err, len(asked))
	}
	if err := dial("loop.test.:" + port); err != nil {
		t.Errorf("loopback: %v", err)
	}
	if err := dial("moves.test.:" + dead); err == nil {
		t.Error("connected to a dead port")
	}
	moved = true
	if err := dial("moves.test.:" + port); err != nil {
		t.Errorf("after another answer: %v", err)
	}
}
