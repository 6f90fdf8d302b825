package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestN09DialErrors: what a command line has to explain.
func TestN09DialErrors(t *testing.T) {
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
