package peer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// steps are where a session may break off, in order, and how the peer of a node
// comes there.
var steps = []struct {
	name     string
	admitted bool
	reach    func(t *testing.T, nc net.Conn, dialler bool)
}{
	{"connected", false, func(*testing.T, net.Conn, bool) {}},
	{"half of the handshake", false, func(t *testing.T, nc net.Conn, dialler bool) {
		if dialler {
			nc.Write(clientHello(t)[:100])
			return
		}
		nc.Read(make([]byte, 10_000))
		nc.Write([]byte{22, 3, 3, 0, 122, 2, 0})
	}},
	{"handshake", false, func(t *testing.T, nc net.Conn, dialler bool) { handshaken(t, nc, dialler) }},
	{"hello", false, func(t *testing.T, nc net.Conn, dialler bool) {
		io.WriteString(handshaken(t, nc, dialler).tc, "hello shoal/1.0 x\n")
	}},
	{"proofs", true, func(t *testing.T, nc net.Conn, dialler bool) { joined(t, nc, dialler) }},
	{"want", true, func(t *testing.T, nc net.Conn, dialler bool) { wanted(t, nc, dialler) }},
	{"half of the data", true, func(t *testing.T, nc net.Conn, dialler bool) {
		io.WriteString(wanted(t, nc, dialler).tc, "data 0 0 100000\n"+strings.Repeat("x", 50_000))
	}},
}

func handshaken(t *testing.T, nc net.Conn, dialler bool) *rawPeer {
	t.Helper()
	p := newRawPeer(t, nc, dialler, testKey)
	nc.SetDeadline(time.Time{})
	return p
}

func joined(t *testing.T, nc net.Conn, dialler bool) *rawPeer {
	t.Helper()
	p := handshaken(t, nc, dialler)
	if dialler {
		p.admit()
	} else {
		p.play("< hello shoal/1.0 shoal\n< join {name} {proof}\n> hello shoal/1.0 raw\n> join {name} {proof}")
	}
	return p
}

// wanted returns when the node has asked for chunk 0.
func wanted(t *testing.T, nc net.Conn, dialler bool) *rawPeer {
	t.Helper()
	p := joined(t, nc, dialler)
	for {
		b, err := p.lr.next()
		if err != nil {
			t.Fatal(err)
		}
		if string(b) == "want 0" {
			return p
		}
	}
}

// A lineChan is a log that can be waited for.
type lineChan chan string

func (c lineChan) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}

// endOf runs a node over nc, which asks for chunk 0 once it is admitted, and
// returns where it will be said why that has ended.
func endOf(t *testing.T, nc net.Conn, dials bool) <-chan string {
	t.Helper()
	ended := make(lineChan, 10)
	n := newTestNode(t, Config{Logger: slog.New(slog.NewTextHandler(ended, nil))})
	ask := func(c *Conn) {
		c.SendWant([]chunk.Range{{First: 0, N: 1}})
		c.Flush()
		ended <- fmt.Sprint(c.Run(context.Background(), &testSeed{c: c}))
	}
	if !dials {
		n.Accept(testKey, ask)
		n.Serve(nc)
		return ended
	}
	go func() {
		c, err := n.Join(context.Background(), nc, testKey)
		if err != nil {
			ended <- err.Error()
			return
		}
		ask(c)
	}()
	return ended
}

// TestN01EachStep ends the connection at each step, with a RST and with a FIN that
// no goodbye came before: the node notices, and says that it was lost.
func TestN01EachStep(t *testing.T) {
	for _, step := range steps {
		for _, dialler := range []bool{true, false} {
			for _, reset := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, the peer dials %v, RST %v", step.name, dialler, reset), func(t *testing.T) {
					a, b := tcpPair(t)
					ended := endOf(t, b, !dialler)
					step.reach(t, a, dialler)
					if reset {
						a.(*net.TCPConn).SetLinger(0)
						a.Close()
					} else {
						a.(*net.TCPConn).CloseWrite()
						go io.Copy(io.Discard, a)
					}
					select {
					case err := <-ended:
						if !strings.Contains(err, ErrLost.Error()) {
							t.Error(err)
						}
					case <-time.After(time.Minute):
						t.Error("it waits for somebody who is gone")
					}
				})
			}
		}
	}
}

// TestN01BlackHole: from each step on nothing comes any more. Before admission is
// complete that is borne for 10 s, later for 30 s, with data that had begun once
// more, and the node says that it took too long.
func TestN01BlackHole(t *testing.T) {
	for _, step := range steps {
		for _, dialler := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the peer dials %v", step.name, dialler), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := net.Pipe()
					began := time.Now()
					ended := endOf(t, b, !dialler)
					step.reach(t, a, dialler)
					go io.Copy(io.Discard, a)
					err := <-ended
					took := time.Since(began)
					if !strings.Contains(err, ErrTimeout.Error()) {
						t.Error(err)
					}
					least, most := DefaultAdmitTimeout, DefaultAdmitTimeout+time.Second
					if step.admitted {
						least, most = idleLimit, 2*idleLimit+time.Second
					}
					if took < least-time.Second || took > most {
						t.Errorf("after %v", took)
					}
				})
			})
		}
	}
}

// TestN03Swapped: behind the address of each of two shares is the other one's
// server. Each side refuses as it refuses a share that nobody has, and who runs the
// shares learns nothing of it.
func TestN03Swapped(t *testing.T) {
	keys := [2][32]byte{{1}, {2}}
	var addrs [2]string
	for i := range keys {
		n := newTestNode(t, Config{})
		n.Accept(keys[i], func(*Conn) { t.Errorf("share %d took in who asked for the other", i) })
		addr, err := n.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[i] = addr.String()
	}
	said := map[string]bool{}
	for i := range keys {
		_, err := newTestNode(t, Config{}).Dial(t.Context(), addrs[1-i], keys[i])
		if want := "join at " + addrs[1-i] + `: peer: closed by the peer: share: "no such share"`; err == nil || err.Error() != want {
			t.Errorf("share %d: %v, want %s", i, err, want)
		}
		// The name of one share with the proof of the other is no better, nor is
		// an answer to a share that there is none of.
		for _, ask := range [][2][32]byte{{keys[i], keys[i]}, {keys[1-i], keys[i]}, {keys[i], keys[1-i]}, {{3}, {3}}} {
			nc, err := net.Dial("tcp", addrs[1-i])
			if err != nil {
				t.Fatal(err)
			}
			p := newRawPeer(t, nc, true, ask[1])
			name := newSecrets(ask[0]).name
			fmt.Fprintf(p.tc, "hello shoal/1.0 x\njoin %x %s\n", name, p.proof(roleDialler))
			b, err := io.ReadAll(p.tc)
			said[fmt.Sprintf("%q, %v", b, err)] = true
		}
	}
	if len(said) != 1 || !said[`"error share no such share\n", <nil>`] {
		t.Errorf("the answers were %v", said)
	}
}
