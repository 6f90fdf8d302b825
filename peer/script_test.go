package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rawPeer is a peer made of crypto/tls and this page alone, to speak with a Node.
type rawPeer struct {
	t        testing.TB
	tc       *tls.Conn
	lr       *lineReader
	dialler  bool
	ours     ID
	theirs   ID
	exporter []byte
	secrets  secrets
	keyLog   bytes.Buffer
}

func newRawPeer(t testing.TB, nc net.Conn, dialler bool, key [32]byte) *rawPeer {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{id.cert}, NextProtos: []string{"shoal/1"},
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	}
	p := &rawPeer{t: t, dialler: dialler, ours: id.ID(), secrets: newSecrets(key)}
	cfg.KeyLogWriter = &p.keyLog
	if p.tc = tls.Server(nc, cfg); dialler {
		p.tc = tls.Client(nc, cfg)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	if err := p.tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	cs := p.tc.ConnectionState()
	pub, err := peerKey(&cs)
	if err != nil {
		t.Fatal(err)
	}
	p.theirs = idOf(pub)
	if p.exporter, err = cs.ExportKeyingMaterial("EXPORTER-shoal-1", nil, 32); err != nil {
		t.Fatal(err)
	}
	p.lr = newLineReader(p.tc)
	return p
}

// proof returns the proof of one of the two roles, in hex.
func (p *rawPeer) proof(role string) string {
	d, l := p.ours, p.theirs
	if !p.dialler {
		d, l = l, d
	}
	proof := p.secrets.prove(p.exporter, d, l, role)
	return hex.EncodeToString(proof[:])
}

func (p *rawPeer) name() string { return hex.EncodeToString(p.secrets.name[:]) }

func (p *rawPeer) admit() {
	p.t.Helper()
	fmt.Fprintf(p.tc, "hello shoal/1.0 raw\njoin %s %s\n", p.name(), p.proof("dialler"))
	for _, want := range []string{"hello ", "join "} {
		if b, err := p.lr.next(); err != nil || !strings.HasPrefix(string(b), want) {
			p.t.Fatalf("admission: %q, %v", b, err)
		}
	}
}

var byteText = regexp.MustCompile(`^\{(bytes|raw) (".*")\}$`)

// play plays a script: "> line" sends, "< line" expects.
//
//	{name}                 the share's name
//	{proof} {other proof}  the proof of the side whose line it is, and of the other side
//	{long N}               N letters x
//	> {raw "..."}          these bytes, a Go string
//	< {bytes "..."}        these bytes, as a body
//	< {end}                the end of the connection
func (p *rawPeer) play(script string) {
	p.t.Helper()
	us, them := roleDialler, roleListener
	if !p.dialler {
		us, them = them, us
	}
	long := regexp.MustCompile(`\{long (\d+)\}`)
	for i, l := range strings.Split(script, "\n") {
		mark, text, _ := strings.Cut(l, " ")
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		mine, other := us, them
		if mark == "<" {
			mine, other = them, us
		}
		if strings.Contains(text, "{proof}") || strings.Contains(text, "{other proof}") || strings.Contains(text, "{name}") {
			text = strings.NewReplacer("{name}", p.name(), "{proof}", p.proof(mine), "{other proof}", p.proof(other)).Replace(text)
		}
		text = long.ReplaceAllStringFunc(text, func(s string) string {
			n, _ := strconv.Atoi(long.FindStringSubmatch(s)[1])
			return strings.Repeat("x", n)
		})
		var raw string
		if m := byteText.FindStringSubmatch(text); m != nil {
			var err error
			if raw, err = strconv.Unquote(m[2]); err != nil {
				p.t.Fatalf("line %d: %v", i+1, err)
			}
		}
		switch {
		case mark == ">" && raw != "":
			io.WriteString(p.tc, raw)
		case mark == ">":
			io.WriteString(p.tc, text+"\n")
		case mark == "<" && text == "{end}":
			if b, err := p.lr.next(); err != io.EOF {
				p.t.Fatalf("line %d: instead of the end: %q, %v", i+1, b, err)
			}
		case mark == "<" && raw != "":
			b := make([]byte, len(raw))
			if err := p.lr.body(b); err != nil || string(b) != raw {
				p.t.Fatalf("line %d: got %q, %v, want %q", i+1, b, err, raw)
			}
		case mark == "<":
			if b, err := p.lr.next(); err != nil || string(b) != text {
				p.t.Fatalf("line %d: got %q, %v, want %q", i+1, b, err, text)
			}
		default:
			p.t.Fatalf("line %d: %q", i+1, l)
		}
	}
}

// dialRaw connects a rawPeer to a node that serves testContent.
func dialRaw(t testing.TB, agent string) *rawPeer {
	t.Helper()
	n := newTestNode(t, Config{Agent: agent})
	nc, err := net.Dial("tcp", serveTest(t, n))
	if err != nil {
		t.Fatal(err)
	}
	return newRawPeer(t, nc, true, testKey)
}

// TestE14Scripts plays testdata/*.txt. In those whose name begins with "listener"
// the node dials.
func TestE14Scripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts: ", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(script), "\r\n", "\n")
			if !strings.HasPrefix(filepath.Base(name), "listener") {
				dialRaw(t, "seed/1").play(text)
				return
			}
			a, b := tcpPair(t)
			n := newTestNode(t, Config{Agent: "leech/1"})
			done := make(chan error, 1)
			go func() {
				c, err := n.Join(context.Background(), a, testKey)
				if err == nil {
					err = c.Run(context.Background(), &testSeed{c: c, unwanted: true})
				}
				done <- err
			}()
			newRawPeer(t, b, false, testKey).play(text)
			want, _, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
			if got := fmt.Sprint(<-done); got != want {
				t.Errorf("the node says %s, want %s", got, want)
			}
		})
	}
}

// specBlock returns the text of the one fenced block of SPEC.md with this tag.
func specBlock(t *testing.T, tag string) string {
	t.Helper()
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(strings.ReplaceAll(string(spec), "\r\n", "\n"), "```"+tag+"\n")
	block, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("SPEC.md has no " + tag)
	}
	return block
}

// TestSpecSession parses the session of SPEC.md and plays it.
func TestSpecSession(t *testing.T) {
	session := specBlock(t, "session")
	seen := map[verb]bool{}
	for _, s := range strings.Split(strings.TrimSpace(session), "\n") {
		_, text, _ := strings.Cut(s, " ")
		if strings.HasPrefix(text, "{") {
			continue
		}
		text = strings.NewReplacer("{name}", hex0, "{proof}", hexAF).Replace(text)
		var l line
		if err := l.parse([]byte(text)); err != nil || string(l.append(nil)) != text+"\n" {
			t.Errorf("%q: %v", s, err)
		}
		seen[l.verb] = true
	}
	for _, v := range []verb{verbHello, verbJoin, verbHave, verbWant, verbManifest, verbData, verbPeer, verbListen, verbPing, verbPong, verbBye} {
		if !seen[v] {
			t.Errorf("no %s line", v)
		}
	}
	dialRaw(t, "seed/1").play(session)
}

// TestSpecVector checks the derivations of SPEC.md.
func TestSpecVector(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(i)
	}
	s := newSecrets(key)
	var d, l ID
	copy(d[:], bytes.Repeat([]byte{0xbb}, 32))
	copy(l[:], bytes.Repeat([]byte{0xcc}, 32))
	exporter := bytes.Repeat([]byte{0xaa}, 32)
	want := fmt.Sprintf("    name            %x\n    proof(dialler)  %x\n    proof(listener) %x\n",
		s.name, s.prove(exporter, d, l, roleDialler), s.prove(exporter, d, l, roleListener))
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.ReplaceAll(string(spec), "\r\n", "\n"), want) {
		t.Errorf("SPEC.md does not say\n%s", want)
	}
}

// TestSpecLimits finds the limits of the code in SPEC.md.
func TestSpecLimits(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("%d connections that are not admitted, and %d from one address", DefaultMaxPending, DefaultMaxPerAddr),
		fmt.Sprintf("admission together may take %.0f s", DefaultAdmitTimeout.Seconds()),
		fmt.Sprintf("within %.0f s after", idleLimit.Seconds()),
		fmt.Sprintf("nothing for %.0f s sends a `ping`", pingAfter.Seconds()),
		fmt.Sprintf("%d KiB in %.0f s at least", minProgress>>10, idleLimit.Seconds()),
		fmt.Sprintf("At most %d KiB are read of a handshake", maxHandshakeLen>>10),
	} {
		if !strings.Contains(string(spec), want) {
			t.Errorf("SPEC.md does not say %q", want)
		}
	}
}
