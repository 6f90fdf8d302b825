package peer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// makeCert returns a self-signed certificate that f may change first.
func makeCert(t testing.TB, key crypto.Signer, f func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	if f != nil {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// strangers returns TLS configurations that are refused on either side, and
// some odd ones that are not.
func strangers(t testing.TB) map[string]struct {
	cfg *tls.Config
	ok  bool
} {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key crypto.Signer, certs ...[]byte) *tls.Config {
		cfg := &tls.Config{
			NextProtos: []string{"shoal/1"}, InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert,
			SessionTicketsDisabled: true,
		}
		if len(certs) > 0 {
			cfg.Certificates = []tls.Certificate{{Certificate: certs, PrivateKey: key}}
		}
		return cfg
	}
	edCert := makeCert(t, ed, nil)
	tls12 := with(ed, edCert)
	tls12.MaxVersion = tls.VersionTLS12
	noALPN := with(ed, edCert)
	noALPN.NextProtos = nil
	otherALPN := with(ed, edCert)
	otherALPN.NextProtos = []string{"h2", "http/1.1", "shoal/2"}
	type s = struct {
		cfg *tls.Config
		ok  bool
	}
	return map[string]s{
		"good": {with(ed, edCert), true},
		"expired": {with(ed, makeCert(t, ed, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Unix(1, 0)
		})), true},
		"TLS 1.2":    {tls12, false},
		"no ALPN":    {noALPN, false},
		"other ALPN": {otherALPN, false},
		"RSA":        {with(rs, makeCert(t, rs, nil)), false},
		"ECDSA":      {with(ec, makeCert(t, ec, nil)), false},
		"no cert":    {with(nil), false},
		"two certs":  {with(ed, edCert, edCert), false},
		"large cert": {with(ed, makeCert(t, ed, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: strings.Repeat("x", maxCertLen)}
		})), false},
		"huge chain": {with(ed, edCert, makeCert(t, ed, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: strings.Repeat("x", 100_000)}
		})), false},
	}
}

func TestStrangeDialler(t *testing.T) {
	n := newTestNode(t, Config{})
	addr := serveTest(t, n)
	for name, s := range strangers(t) {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(10 * time.Second))
			tc := tls.Client(nc, s.cfg)
			io.WriteString(tc, "hello shoal/1.0 x\njoin "+hex0+" "+hexAF+"\n")
			b, err := io.ReadAll(tc)
			if got := string(b) == "error share no such share\n"; got != s.ok {
				t.Errorf("heard %q, %v", b, err)
			}
			if !s.ok && len(b) > 0 {
				t.Errorf("a stranger heard %q", b)
			}
		})
	}
}

func TestStrangeListener(t *testing.T) {
	n := newTestNode(t, Config{AdmitTimeout: 5 * time.Second})
	for name, s := range strangers(t) {
		if name == "no cert" {
			continue // a server has one
		}
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			heard := make(chan string, 1)
			go func() {
				tc := tls.Server(b, s.cfg)
				p := make([]byte, 1000)
				m, _ := tc.Read(p)
				tc.Close()
				heard <- string(p[:m])
			}()
			_, err := n.Join(t.Context(), a, testKey)
			if got := strings.HasPrefix(<-heard, "hello shoal/1.0 "); got != s.ok {
				t.Errorf("said hello: %v", got)
			}
			if want := ErrNotShoal; s.ok && !errors.Is(err, ErrLost) || !s.ok && !errors.Is(err, want) {
				t.Errorf("Join: %v", err)
			}
		})
	}
}

// TestDialErrors: what a command line has to explain.
func TestDialErrors(t *testing.T) {
	answer := func(f func(net.Conn)) string {
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
				f(nc)
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
		return l.Addr().String()
	}
	say := func(s string) string {
		return answer(func(nc net.Conn) {
			io.WriteString(nc, s)
			nc.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, nc)
			nc.Close()
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	hold := make(chan struct{})
	defer close(hold)

	n := newTestNode(t, Config{AdmitTimeout: 300 * time.Millisecond})
	self := serveTest(t, n)
	other := serveTest(t, newTestNode(t, Config{}))
	for _, tt := range []struct {
		name, addr string
		key        [32]byte
		is         error
		text       string
	}{
		{"other share", other, [32]byte{9}, ErrNoShare, "no such share"},
		{"self", self, testKey, ErrSelf, "ourselves"},
		{"refused", dead, testKey, syscall.ECONNREFUSED, "refused"},
		{"HTTP", say("HTTP/1.1 400 Bad Request\r\n\r\n"), testKey, ErrNotShoal, "an HTTP server answered"},
		{"SSH", say("SSH-2.0-OpenSSH_9.9\r\n"), testKey, ErrNotShoal, "an SSH server answered"},
		{"binary", say("\x00\x1b[31m\xff\xfe...."), testKey, ErrNotShoal, `the answer begins with "\x00\x1b[31"`},
		{"closed", answer(func(nc net.Conn) { nc.Close() }), testKey, ErrLost, "too many connections"},
		{"silent", answer(func(nc net.Conn) { io.Copy(io.Discard, nc); nc.Close() }), testKey, ErrTimeout, "no answer"},
		{"no port", "127.0.0.1", testKey, nil, "missing port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			c, err := n.Dial(t.Context(), tt.addr, tt.key)
			if err == nil {
				c.Close(nil)
				t.Fatal("no error")
			}
			if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.is, tt.text)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := newTestNode(t, Config{})
		time.AfterFunc(50*time.Millisecond, cancel)
		addr := answer(func(nc net.Conn) { io.Copy(io.Discard, nc); nc.Close() })
		if _, err := n.Dial(ctx, addr, testKey); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestReplay sends what an admitted peer has sent.
func TestReplay(t *testing.T) {
	n := newTestNode(t, Config{})
	addr := serveTest(t, n)
	var hello string
	for i := range 2 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		p := newRawPeer(t, nc, true, testKey)
		if i == 0 {
			hello = fmt.Sprintf("hello shoal/1.0 x\njoin %s %s\n", p.name(), p.proof(roleDialler))
		}
		io.WriteString(p.tc, hello)
		b, err := p.lr.next()
		if want := []string{"hello shoal/1.0 shoal", "error share no such share"}[i]; string(b) != want {
			t.Errorf("heard %q, %v, want %q", b, err, want)
		}
	}
}

// TestManInTheMiddle puts somebody with keys of his own between two peers, who
// passes on every line. Neither lets him in.
func TestManInTheMiddle(t *testing.T) {
	seed := newTestNode(t, Config{})
	var admitted atomic.Int32
	seed.Accept(testKey, func(c *Conn) { admitted.Add(1) })
	addr, err := seed.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		id, err := NewIdentity()
		if err != nil {
			t.Error(err)
			return
		}
		left := tls.Server(b, id.tlsConfig())
		up, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Error(err)
			return
		}
		right := tls.Client(up, id.tlsConfig())
		defer up.Close()
		defer b.Close()
		if left.Handshake() != nil || right.Handshake() != nil {
			t.Error("no handshake with the man in the middle")
		}
		wg.Go(func() { io.Copy(right, left); up.Close() })
		io.Copy(left, right)
	})
	leech := newTestNode(t, Config{})
	if _, err := leech.Join(t.Context(), a, testKey); !errors.Is(err, ErrNoShare) {
		t.Errorf("Join: %v", err)
	}
	if admitted.Load() != 0 {
		t.Error("the listener let him in")
	}
}

// TestProofs: each input of a proof counts.
func TestProofs(t *testing.T) {
	s, other := newSecrets(testKey), newSecrets([32]byte{9})
	x, y := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	seen := map[[32]byte]string{s.name: "name", s.proof: "key"}
	for name, p := range map[string][32]byte{
		"first":    s.prove(x, ID{1}, ID{2}, roleDialler),
		"role":     s.prove(x, ID{1}, ID{2}, roleListener),
		"exporter": s.prove(y, ID{1}, ID{2}, roleDialler),
		"dialler":  s.prove(x, ID{3}, ID{2}, roleDialler),
		"listener": s.prove(x, ID{1}, ID{3}, roleDialler),
		"swapped":  s.prove(x, ID{2}, ID{1}, roleDialler),
		"key":      other.prove(x, ID{1}, ID{2}, roleDialler),
	} {
		if o, ok := seen[p]; ok {
			t.Errorf("%s is equal to %s", name, o)
		}
		seen[p] = name
	}
}

// TestGarbage: a listener outlives everything that is no handshake.
func TestGarbage(t *testing.T) {
	var log syncBuffer
	n := newTestNode(t, Config{
		Logger: slog.New(slog.NewTextHandler(&log, nil)), AdmitTimeout: 500 * time.Millisecond,
	})
	addr := serveTest(t, n)
	rnd := mrand.NewChaCha8([32]byte{})
	noise := make([]byte, 100_000)
	rnd.Read(noise)
	record := append([]byte{22, 3, 1, 0x40, 0}, noise[:10_000]...)
	for name, b := range map[string][]byte{
		"HTTP":          []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":           []byte("SSH-2.0-OpenSSH_9.9\r\n"),
		"noise":         noise,
		"one byte":      {22},
		"half a record": record,
		"a record":      append(record, noise[:10_000]...),
		"nothing":       nil,
		"our lines":     []byte("hello shoal/1.0 x\n"),
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			began := time.Now()
			nc.Write(b)
			nc.SetDeadline(time.Now().Add(5 * time.Second))
			got, err := io.ReadAll(nc)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 7 { // an alert
				t.Errorf("%d bytes, %v after %v", len(got), err, time.Since(began))
			}
		})
	}
	c, err := newTestNode(t, Config{}).Dial(t.Context(), addr, testKey)
	if err != nil {
		t.Fatal(err)
	}
	c.Close(nil)
	n.Close()
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > 12 {
		t.Errorf("%d lines in the log:\n%s", lines, log.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestLogFlood: a flood of errors does not become a flood of log lines.
func TestLogFlood(t *testing.T) {
	var log syncBuffer
	n := newTestNode(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 100_000 {
		n.log(slog.LevelInfo, "not admitted", "err", "x\ny")
	}
	n.limiter.SetBurst(1000)
	n.limiter.SetLimit(1e9)
	time.Sleep(time.Millisecond)
	n.log(slog.LevelInfo, "last")
	if lines := strings.Count(log.String(), "\n"); lines > 20 || !strings.Contains(log.String(), "msg=last dropped=9") {
		t.Errorf("%d lines\n%s", lines, log.String())
	}
}

// TestFloodOfLine: an admitted peer sends a gigabyte without a LF.
func TestFloodOfLine(t *testing.T) {
	p := dialRaw(t, "x")
	p.admit()
	a := bytes.Repeat([]byte{'a'}, 16<<10)
	sent := 0
	for range 1 << 16 {
		m, err := p.tc.Write(a)
		sent += m
		if err != nil {
			break
		}
	}
	if sent > 64<<20 {
		t.Errorf("could send %d bytes", sent)
	}
}

// TestWrongLengths: the handler is asked for exactly what the line says, and
// before the body is read.
func TestCutBody(t *testing.T) {
	for _, cut := range []int{0, 1, 100, 262143} {
		a, b := tcpPair(t)
		n := newTestNode(t, Config{})
		done := make(chan error, 1)
		h := &testSeed{}
		n.Accept(testKey, func(c *Conn) { h.c = c; done <- c.Run(context.Background(), h) })
		n.Serve(b)
		p := newRawPeer(t, a, true, testKey)
		p.admit()
		fmt.Fprintf(p.tc, "data 0 0 262144\n")
		p.tc.Write(make([]byte, cut))
		a.Close()
		if err := <-done; !errors.Is(err, ErrLost) {
			t.Errorf("cut after %d: %v", cut, err)
		}
		if calls := h.calls(); len(calls) != 0 {
			t.Errorf("calls %q", calls)
		}
	}
}

// TestFlood (R01): silent connections and half handshakes, from the honest
// peer's own address and faster than they time out, do not keep it out.
func TestFlood(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			n := newTestNode(t, Config{})
			addr := serveTest(t, n)
			var hello []byte
			if half {
				hello = clientHello(t)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() {
				var open []net.Conn
				for ctx.Err() == nil {
					nc, err := net.Dial("tcp", addr)
					if err == nil {
						nc.Write(hello)
						open = append(open, nc)
					}
					if len(open) > 500 {
						open[0].Close()
						open = open[1:]
					}
					time.Sleep(time.Millisecond)
				}
				for _, nc := range open {
					nc.Close()
				}
			})
			time.Sleep(300 * time.Millisecond)
			began := time.Now()
			honest := newTestNode(t, Config{})
			tries := 0
			for {
				tries++
				c, err := honest.Dial(t.Context(), addr, testKey)
				if err == nil {
					c.Close(nil)
					break
				}
				if time.Since(began) > 5*time.Second {
					t.Fatalf("not in after %d tries: %v", tries, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("in after %v and %d tries", time.Since(began), tries)
			n.gate.mu.Lock()
			if len(n.pending) > DefaultMaxPending {
				t.Errorf("%d pending", len(n.pending))
			}
			n.gate.mu.Unlock()
		})
	}
}

// clientHello returns the first flight of a handshake.
func clientHello(t testing.TB) []byte {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	go func() {
		tls.Client(a, id.tlsConfig()).Handshake()
	}()
	p := make([]byte, 10_000)
	m, err := b.Read(p)
	a.Close()
	b.Close()
	if err != nil {
		t.Fatal(err)
	}
	return p[:m]
}

// TestManyConnects (R08): connections of all kinds leave nothing behind.
func TestManyConnects(t *testing.T) {
	num := 10_000
	if testing.Short() {
		num = 300
	}
	n := newTestNode(t, Config{AdmitTimeout: 2 * time.Second})
	addr := serveTest(t, n)
	leech := newTestNode(t, Config{})
	before, fds := runtime.NumGoroutine(), numFDs()
	for i := range num {
		if i%10 == 0 {
			c, err := leech.Dial(t.Context(), addr, testKey)
			if err != nil {
				continue // the slots of our address may all be taken
			}
			if i%20 == 0 {
				go c.Close(nil)
				c.Run(t.Context(), &testSeed{c: c})
			} else {
				c.Close(nil)
			}
			continue
		}
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			io.WriteString(nc, "GET / HTTP/1.1\r\n")
		}
		nc.Close()
	}
	waitFor(t, func() bool {
		n.gate.mu.Lock()
		defer n.gate.mu.Unlock()
		n.nmu.Lock()
		defer n.nmu.Unlock()
		return len(n.pending)+len(n.perAddr)+len(n.waiting)+len(n.conns)+len(n.halfway) == 0
	})
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+1 && numFDs() <= fds+1 })
}

func numFDs() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(d)
}

// TestNodeClose: everything ends, in about a second, even if peers do nothing.
func TestNodeClose(t *testing.T) {
	n := newTestNode(t, Config{})
	hold := make(chan struct{})
	n.Accept(testKey, func(c *Conn) {
		close(hold)
		for c.SendData(0, 0, make([]byte, MaxSegment)) == nil { // until nothing more fits
		}
		if err := c.Run(context.Background(), &testSeed{c: c}); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	addr, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	p := newRawPeer(t, nc, true, testKey)
	p.admit()
	half, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	<-hold
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	n.Close()
	if d := time.Since(began); d > 1500*time.Millisecond {
		t.Errorf("took %v", d)
	}
	if _, err := n.Listen("127.0.0.1:0"); err == nil {
		t.Error("listens after Close")
	}
}

func TestStop(t *testing.T) {
	n, leech := newTestNode(t, Config{}), newTestNode(t, Config{})
	running := make(chan *Conn, 1)
	stop := n.Accept(testKey, func(c *Conn) {
		running <- c
		c.Run(context.Background(), &testSeed{c: c})
	})
	addr, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := leech.Dial(t.Context(), addr.String(), testKey)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(nil)
	theirs := <-running
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	waitFor(t, func() bool {
		d, err := leech.Dial(t.Context(), addr.String(), testKey)
		if err == nil {
			d.Close(nil)
		}
		return errors.Is(err, ErrNoShare)
	})
	select {
	case <-stopped:
		t.Error("stop did not wait")
	default:
	}
	theirs.Close(nil)
	<-stopped
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Agent: "a\nb"},
		{Agent: strings.Repeat("x", maxAgent+1)},
		{Agent: " x"},
		{MaxPending: -1},
		{MaxPerAddr: -1},
		{AdmitTimeout: -1},
	} {
		if n, err := NewNode(cfg); err == nil {
			n.Close()
			t.Errorf("%+v accepted", cfg)
		}
	}
}
