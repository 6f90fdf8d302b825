package peer

import (
	"bytes"
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
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
		"not yet valid": {with(ed, makeCert(t, ed, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(100, 0, 0), time.Now().AddDate(101, 0, 0)
		})), true},
		"RSA of 16,384 bits": {with(hugeRSA{}, hugeRSACert(t, ed)), false},
		"chain of 1 MB":      {with(ed, slices.Repeat([][]byte{edCert}, 1<<20/len(edCert))...), false},
		"chain of 1 MB in one": {with(ed, makeCert(t, ed, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: strings.Repeat("x", 1<<19)}
		})), false},
		"huge chain": {with(ed, edCert, makeCert(t, ed, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: strings.Repeat("x", 100_000)}
		})), false},
	}
}

// hugeRSA is a key of 16,384 bits that nobody has made: it signs with anything, as
// nobody is to compute with such a key.
type hugeRSA struct{}

func (hugeRSA) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 16384)
	return &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}
}

func (hugeRSA) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 16384/8), nil
}

// hugeRSACert returns a certificate of hugeRSA that another key has signed.
func hugeRSACert(t testing.TB, signer crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, hugeRSA{}.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestW18StrangeDialler(t *testing.T) {
	n := newTestNode(t, Config{})
	for name, s := range strangers(t) {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			counted := &countedConn{TCPConn: b.(*net.TCPConn)}
			n.Serve(counted)
			heard, err := askAs(a, s.cfg)
			if got := heard == "error share no such share\n"; got != s.ok {
				t.Errorf("heard %q, %v", heard, err)
			}
			if !s.ok && heard != "" {
				t.Errorf("a stranger heard %q", heard)
			}
			// The last read may go beyond the limit by a record.
			if got := counted.n.Load(); got > maxHandshakeLen+32<<10 {
				t.Errorf("%d bytes were read of a handshake", got)
			}
		})
	}
}

// A countedConn counts the bytes that are read from it.
type countedConn struct {
	*net.TCPConn
	n atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestW18StrangeListener(t *testing.T) {
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

// TestN03Replay sends what an admitted peer has sent.
func TestN03Replay(t *testing.T) {
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

// TestN03ManInTheMiddle puts somebody with keys of his own between two peers, who
// passes on every line. Neither lets him in.
func TestN03ManInTheMiddle(t *testing.T) {
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

// TestN03Proofs: each input of a proof counts.
func TestN03Proofs(t *testing.T) {
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
