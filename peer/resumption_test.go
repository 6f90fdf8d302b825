package peer

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An oneSession is the session cache of a client that offers the same to everybody.
type oneSession struct {
	s   *tls.ClientSessionState
	num atomic.Int32 // tickets that came
}

func (c *oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.s, c.s != nil }

func (c *oneSession) Put(_ string, s *tls.ClientSessionState) {
	if s == nil {
		return // it was of no use
	}
	c.num.Add(1)
	if c.s == nil {
		c.s = s
	}
}

// TestW18Resumption: a listener hands out no session tickets, and resumes none, not
// even if it could read it: nobody gets in with another key than that of the session.
func TestW18Resumption(t *testing.T) {
	n := newTestNode(t, Config{})
	addr := serveTest(t, n)
	client := func(cache tls.ClientSessionCache) *tls.Config {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{makeCert(t, key, nil)}, PrivateKey: key}},
			NextProtos:   []string{alpn}, ServerName: "x", InsecureSkipVerify: true, ClientSessionCache: cache,
		}
	}
	ask := func(nc net.Conn, cfg *tls.Config) (resumed bool) {
		t.Helper()
		tc := tls.Client(nc, cfg)
		defer tc.Close()
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tc, "hello shoal/1.0 x\njoin "+strings.Repeat("0", 64)+" "+strings.Repeat("0", 64)+"\n")
		got, _ := io.ReadAll(tc) // a ticket would come before
		if string(got) != "error share no such share\n" {
			t.Errorf("heard %q", got)
		}
		return tc.ConnectionState().DidResume
	}
	share := func(cfg *tls.Config) bool {
		t.Helper()
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return ask(nc, cfg)
	}

	var cache oneSession
	if share(client(&cache)) || cache.num.Load() != 0 {
		t.Errorf("the share handed out %d tickets", cache.num.Load())
	}

	// A twin of the share that has the same keys for tickets, and uses them.
	keys := [][32]byte{{1}}
	n.tls.SetSessionTicketKeys(keys)
	twin := n.tls.Clone()
	twin.SetSessionTicketKeys(keys)
	twin.SessionTicketsDisabled, twin.VerifyConnection = false, nil
	askTwin := func(cfg *tls.Config) bool {
		t.Helper()
		a, b := tcpPair(t)
		go func() {
			tc := tls.Server(b, twin)
			defer tc.Close()
			line := make([]byte, 100)
			tc.Read(line)
			io.WriteString(tc, "error share no such share\n")
		}()
		return ask(a, cfg)
	}
	if askTwin(client(&cache)) || cache.num.Load() != 1 {
		t.Fatalf("the twin handed out %d tickets", cache.num.Load())
	}
	if !askTwin(client(&cache)) {
		t.Fatal("the twin does not resume")
	}
	if share(client(&cache)) {
		t.Error("the share has resumed a session")
	}
}

// TestW18ResumptionDialler: a dialler offers no session, though the listener has
// given it tickets, and each of its handshakes shows its certificate.
func TestW18ResumptionDialler(t *testing.T) {
	n := newTestNode(t, Config{})
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	cfg := id.tlsConfig()
	cfg.SessionTicketsDisabled, cfg.VerifyConnection = false, nil
	var tickets atomic.Int32
	cfg.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		tickets.Add(1)
		return cfg.EncryptTicket(cs, s)
	}
	cfg.UnwrapSession = func(b []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		t.Error("the dialler offers a session")
		return cfg.DecryptTicket(b, cs)
	}
	for range 3 {
		a, b := tcpPair(t)
		done := make(chan tls.ConnectionState, 1)
		go func() {
			tc := tls.Server(b, cfg)
			defer tc.Close()
			io.ReadFull(tc, make([]byte, len("hello ")))
			done <- tc.ConnectionState()
		}()
		if _, err := n.Join(t.Context(), a, testKey); err == nil {
			t.Error("joined")
		}
		if cs := <-done; cs.DidResume || len(cs.PeerCertificates) != 1 {
			t.Errorf("resumed: %v, %d certificates", cs.DidResume, len(cs.PeerCertificates))
		}
	}
	if tickets.Load() != 0 {
		t.Error("the dialler asks for tickets")
	}
}

// TestW18OpenSSL does the same, and more, with a client that is not ours: it gets no
// session, its own is not resumed, early data is refused, it may change keys now and
// then, and when it does nothing else it is thrown out.
func TestW18OpenSSL(t *testing.T) {
	openssl := findOpenSSL(t)
	addr := serveTest(t, newTestNode(t, Config{}))
	dir := t.TempDir()
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		cmd.WaitDelay = time.Second
		return cmd
	}
	if out, err := command("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "k.pem", "-out", "c.pem", "-subj", "/", "-days", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// client runs s_client, and gives it lines: each once all that is to be heard
	// before has been heard. It returns all that was heard.
	type say struct{ after, line string }
	client := func(addr string, says []say, args ...string) string {
		t.Helper()
		cmd := command(append([]string{"s_client", "-connect", addr, "-tls1_3", "-alpn", alpn, "-cert", "c.pem", "-key", "k.pem"}, args...)...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		defer time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() }).Stop()
		var heard bytes.Buffer
		seen, b := 0, make([]byte, 4096)
		for {
			for len(says) > 0 && bytes.Contains(heard.Bytes()[seen:], []byte(says[0].after)) {
				seen += bytes.Index(heard.Bytes()[seen:], []byte(says[0].after)) + len(says[0].after)
				io.WriteString(stdin, says[0].line)
				says = says[1:]
			}
			n, err := r.Read(b)
			heard.Write(b[:n])
			if err != nil {
				break
			}
		}
		stdin.Close()
		cmd.Wait()
		if len(says) > 0 {
			t.Errorf("%d lines were not said, the next after %q", len(says), says[0].after)
		}
		return heard.String()
	}
	const hello = "hello shoal/1.0 x\njoin 0000000000000000000000000000000000000000000000000000000000000000 0000000000000000000000000000000000000000000000000000000000000000\n"
	const ready, ticket = "Verify return code", "New Session Ticket"

	got := client(addr, []say{{ready, hello}}, "-sess_out", "ours")
	if _, err := os.Stat(filepath.Join(dir, "ours")); err == nil || strings.Contains(got, ticket) || !strings.Contains(got, "error share") {
		t.Errorf("the share handed out a session: %v\n%s", err, got)
	}

	// A session of somebody else.
	if out, err := command("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "sk.pem", "-out", "sc.pem", "-subj", "/", "-days", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := command("s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-alpn", alpn, "-cert", "sc.pem", "-key", "sk.pem", "-Verify", "1", "-early_data", "-naccept", "1")
	held, err := server.StdinPipe() // or it would end
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	other, said := "", bufio.NewReader(stdout)
	for other == "" {
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		other, _ = strings.CutPrefix(strings.TrimSpace(line), "ACCEPT ")
		if !strings.HasPrefix(line, "ACCEPT ") {
			other = ""
		}
	}
	go io.Copy(io.Discard, said)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if fi, err := os.Stat(filepath.Join(dir, "theirs")); err == nil && fi.Size() > 0 {
				break
			}
		}
		server.Process.Kill() // the client ends too
	}()
	got = client(other, nil, "-sess_out", "theirs")
	<-stop
	if _, err := os.Stat(filepath.Join(dir, "theirs")); err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	got = client(addr, []say{{ready, hello}}, "-sess_in", "theirs")
	if !strings.Contains(got, "New, TLSv1.3") || strings.Contains(got, "Reused") || !strings.Contains(got, "error share") {
		t.Errorf("a session of somebody else:\n%s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "early"), []byte(hello), 0o600); err != nil {
		t.Fatal(err)
	}
	got = client(addr, nil, "-sess_in", "theirs", "-early_data", "early")
	if strings.Contains(got, "Early data was accepted") || strings.Contains(got, "error share") || !strings.Contains(got, "alert") {
		t.Errorf("early data:\n%s", got)
	}

	// A few key updates, then lines; then key updates alone.
	const changed = "KEYUPDATE"
	got = client(addr, []say{{ready, "K\n"}, {changed, "k\n"}, {changed, "K\n"}, {changed, hello}})
	if !strings.Contains(got, "error share no such share") {
		t.Errorf("after three key updates:\n%s", got)
	}
	flood := []say{{ready, "K\n"}}
	for range 16 {
		flood = append(flood, say{changed, "K\n"})
	}
	began := time.Now()
	got = client(addr, flood)
	if d := time.Since(began); !strings.Contains(got, "unexpected message") || d > 8*time.Second {
		t.Errorf("nothing but key updates, for %v:\n%s", d, got)
	}
}

// findOpenSSL returns the path of an OpenSSL 3.
func findOpenSSL(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		skip(t, "no openssl")
	}
	if v, err := exec.Command(path, "version").Output(); err != nil || !strings.HasPrefix(string(v), "OpenSSL 3") {
		skip(t, "not OpenSSL 3: %q", v)
	}
	return path
}

// skip skips the test, which in CI is a failure.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("SHOAL_CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
