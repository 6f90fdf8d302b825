package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKey = [32]byte{1, 2, 3}

func newTestNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := NewNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// testContent is what a testSeed serves: three chunks and a manifest.
var testContent = []string{"first chunk", "second", "the third"}

const testManifest = "not really a manifest\n"

// A testSeed is a handler that serves testContent, and a log of its calls.
type testSeed struct {
	c *Conn

	mu       sync.Mutex
	log      []string
	buf      []byte
	unwanted bool // refuse all data
}

func (s *testSeed) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *testSeed) calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *testSeed) HaveAll() error                { s.note("have all"); return nil }
func (s *testSeed) Have(rs []chunk.Range) error   { s.note("have %v", rs); return nil }
func (s *testSeed) Cancel(rs []chunk.Range) error { s.note("cancel %v", rs); return nil }
func (s *testSeed) Gone(rs []chunk.Range) error   { s.note("gone %v", rs); return nil }
func (s *testSeed) Peers(addrs []string) error    { s.note("peers %v", addrs); return nil }
func (s *testSeed) Listening(port int) error      { s.note("listen %d", port); return nil }
func (s *testSeed) Manifest(size int64) error     { s.note("manifest %d", size); return nil }

func (s *testSeed) Want(rs []chunk.Range) error {
	s.note("want %v", rs)
	for _, r := range rs {
		for i := r.First; i < r.First+r.N; i++ {
			if i >= len(testContent) {
				return protocolErrorf(codeLimit, "there is no chunk %d", i)
			}
			if err := s.c.SendData(i, 0, []byte(testContent[i])); err != nil {
				return err
			}
		}
	}
	return s.c.Flush()
}

func (s *testSeed) WantManifest() error {
	s.note("want manifest")
	s.c.SendManifest(int64(len(testManifest)))
	s.c.SendData(-1, 0, []byte(testManifest))
	return s.c.Flush()
}

func (s *testSeed) Segment(i, off, n int) ([]byte, error) {
	if s.unwanted {
		return nil, protocolErrorf(codeUnwanted, "chunk %d was not asked for", i)
	}
	s.buf = make([]byte, n)
	return s.buf, nil
}

func (s *testSeed) Received(i, off, n int) error {
	s.note("data %d %d %q", i, off, s.buf[:min(n, 40)])
	return nil
}

// serveTest lets n serve testContent under testKey and returns its address.
func serveTest(t testing.TB, n *Node) string {
	t.Helper()
	n.Accept(testKey, func(c *Conn) {
		c.SendHaveAll()
		c.Flush()
		c.Run(context.Background(), &testSeed{c: c, unwanted: true})
	})
	addr, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return addr.String()
}

func TestSession(t *testing.T) {
	seed := newTestNode(t, Config{Agent: "seed 1"})
	addr := serveTest(t, seed)
	leech := newTestNode(t, Config{Agent: "leech 1"})
	c, err := leech.Dial(t.Context(), addr, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID() != [32]byte(seed.ID()) || c.Agent() != "seed 1" || !c.Dialled() || c.RemoteAddr() != addr {
		t.Errorf("ID %v, agent %q, dialled %v, addr %s", ID(c.ID()), c.Agent(), c.Dialled(), c.RemoteAddr())
	}
	if rtt := c.RTT(); rtt <= 0 || rtt > 5*time.Second {
		t.Errorf("RTT %v", rtt)
	}
	h := &testSeed{c: c}
	done := make(chan error)
	go func() { done <- c.Run(t.Context(), h) }()
	c.SendWantManifest()
	c.SendWant([]chunk.Range{{First: 2, N: 1}, {First: 0, N: 1}, {First: 1, N: 1}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"have all", "manifest 22", `data -1 0 "not really a manifest\n"`,
		`data 2 0 "the third"`, `data 0 0 "first chunk"`, `data 1 0 "second"`,
	}
	waitFor(t, func() bool { return len(h.calls()) >= len(want) })
	if got := strings.Join(h.calls(), "|"); got != strings.Join(want, "|") {
		t.Errorf("calls\n%s\nwant\n%s", got, strings.Join(want, "|"))
	}
	if payload, total := c.Received(); payload != 22+26 || total <= payload {
		t.Errorf("received %d, %d", payload, total)
	}
	c.Close(nil)
	c.Close(errors.New("again"))
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := c.SendHaveAll(); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen in 10 s")
		}
	}
}

// runPair joins two nodes over a carrier and runs both ends.
func pair(t testing.TB, a, b net.Conn) (dialled, accepted *Conn) {
	t.Helper()
	n1, n2 := newTestNode(t, Config{}), newTestNode(t, Config{})
	got := make(chan *Conn)
	hold := make(chan struct{})
	n2.Accept(testKey, func(c *Conn) { got <- c; <-hold })
	t.Cleanup(func() { close(hold) })
	n2.Serve(b)
	c, err := n1.Join(context.Background(), a, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return c, <-got
}

func TestErrorsReachThePeer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		reason error
		is     error
		text   string
	}{
		{"bye", nil, nil, ""},
		{"told", protocolErrorf(codeBusy, "64 peers"), ErrBusy, `peer: closed by the peer: busy: "64 peers"`},
		{"private", fmt.Errorf("open /home/me/secret: %w", io.ErrUnexpectedEOF), nil, "peer: closed by the peer: internal"},
		{
			"escaped", protocolErrorf("odd", "a\nb\x1b[31m\u202e%s", strings.Repeat("x", 1000)), nil,
			`peer: closed by the peer: odd: "a?b?[31m?` + strings.Repeat("x", 191) + `"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPair(t)
			c1, c2 := pair(t, a, b)
			go c1.Run(t.Context(), &testSeed{c: c1})
			go c1.Close(tt.reason)
			err := c2.Run(t.Context(), &testSeed{c: c2})
			if tt.reason == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var remote *RemoteError
			if !errors.As(err, &remote) || tt.is != nil && !errors.Is(err, tt.is) || err.Error() != tt.text {
				t.Errorf("got %v, want %s", err, tt.text)
			}
		})
	}
}

// tcpPair returns the two ends of a TCP connection over loopback.
func tcpPair(t testing.TB) (dialler, listener net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestSendHaves(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
		has  func(i int) bool
		verb string
	}{
		{"none", 100, func(int) bool { return false }, "have"},
		{"all", 100, func(int) bool { return true }, "have"},
		{"one run", 1000, func(i int) bool { return i > 10 && i < 900 }, "have"},
		{"every second", 200_001, func(i int) bool { return i%2 == 0 }, "bits"},
		{"end of the largest", chunk.MaxNum, func(i int) bool { return i > chunk.MaxNum-1000 && i%3 != 0 || i == 77 }, "have"},
		{"dense parts", chunk.MaxNum, func(i int) bool { return i%100_000 < 70_000 && i%5 != 0 }, "bits"},
		{"many words", 5000, func(i int) bool { return i%320 != 0 && i%7 != 3 || i >= 1024 && i < 1024+256 }, "bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have := chunk.NewBitfield(tt.n)
			for i := range tt.n {
				if tt.has(i) {
					have.Set(i)
				}
			}
			a, b := tcpPair(t)
			c1, c2 := pair(t, a, b)
			go func() {
				c1.SendHaves(have)
				c1.Close(nil)
			}()
			got := chunk.NewBitfield(tt.n)
			h := &haveHandler{testSeed: testSeed{c: c2}, got: got}
			if err := c2.Run(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			for i := range tt.n {
				if got.Has(i) != have.Has(i) {
					t.Fatalf("chunk %d: has %v, told %v", i, have.Has(i), got.Has(i))
				}
			}
			if v := c2.in.verb; v != verbBye {
				t.Errorf("last line %v", v)
			}
			_, total := c1.Sent()
			if most := int64(tt.n/6+10_000) + 2000; total > most {
				t.Errorf("%d bytes for %d chunks", total, tt.n)
			}
		})
	}
}

type haveHandler struct {
	testSeed
	got *chunk.Bitfield
}

func (h *haveHandler) HaveAll() error { h.got.Fill(); return nil }
func (h *haveHandler) Have(rs []chunk.Range) error {
	for _, r := range rs {
		h.got.SetRange(r.First, r.N)
	}
	return nil
}

// TestManyRanges sends lists in any order that need many lines.
func TestManyRanges(t *testing.T) {
	var rs []chunk.Range
	var want bytes.Buffer
	for i := range 20_000 {
		r := chunk.Range{First: (i * 7919) % 1_000_000, N: 1 + i%3}
		rs = append(rs, r)
		for j := range r.N {
			fmt.Fprintln(&want, r.First+j)
		}
	}
	rs = append(rs, chunk.Range{First: chunk.MaxNum - 1, N: 1})
	fmt.Fprintln(&want, chunk.MaxNum-1)
	a, b := tcpPair(t)
	c1, c2 := pair(t, a, b)
	go func() {
		c1.SendWant(rs)
		c1.SendWant(nil)
		c1.Close(nil)
	}()
	h := &wantHandler{testSeed: testSeed{c: c2}}
	if err := c2.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if h.got.String() != want.String() {
		t.Error("wants came in another order")
	}
}

type wantHandler struct {
	testSeed
	got bytes.Buffer
}

func (h *wantHandler) Want(rs []chunk.Range) error {
	for _, r := range rs {
		for j := range r.N {
			fmt.Fprintln(&h.got, r.First+j)
		}
	}
	return nil
}

func TestSendPeers(t *testing.T) {
	a, b := tcpPair(t)
	c1, c2 := pair(t, a, b)
	var addrs, want []string
	for i := range 200 {
		addrs = append(addrs, fmt.Sprintf("[2001:db8:1111:2222:3333:4444:5555:%x]:65535", i+0x1000))
	}
	want = append(want, addrs...)
	addrs = append(addrs, "example.org:80", "0.0.0.0:1", "1.2.3.4:0", "224.0.0.1:5", "01.2.3.4:5", "[::1%lo]:2", "")
	go func() {
		c1.SendPeers(addrs)
		c1.SendListen(4711)
		c1.Close(nil)
	}()
	h := &testSeed{c: c2}
	if err := c2.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	calls := h.calls()
	if len(calls) != 5 || calls[4] != "listen 4711" || calls[3] != fmt.Sprintf("peers %v", want[192:]) {
		t.Errorf("calls %q", calls)
	}
}
