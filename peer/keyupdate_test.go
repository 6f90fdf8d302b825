package peer

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A recordWriter writes where the crypto/tls of a rawPeer leaves off: records with
// key updates, which crypto/tls never begins by itself (RFC 8446, 4.6.3, 5.2, 7.2).
type recordWriter struct {
	w      io.Writer
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64 // of the next record under this key
}

// records takes the writing over from p.tc, which has written num records since the
// handshake, and is only read from now on.
func (p *rawPeer) records(num int) *recordWriter {
	p.t.Helper()
	if s := p.tc.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
		skip(p.t, "no AES in hardware: the records are those of %s", tls.CipherSuiteName(s))
	}
	side := "CLIENT"
	if !p.dialler {
		side = "SERVER"
	}
	m := regexp.MustCompile(side + `_TRAFFIC_SECRET_0 [0-9a-f]+ ([0-9a-f]+)\n`).FindStringSubmatch(p.keyLog.String())
	if m == nil {
		p.t.Fatalf("no secret in %q", &p.keyLog)
	}
	secret, err := hex.DecodeString(m[1])
	if err != nil {
		p.t.Fatal(err)
	}
	w := &recordWriter{w: p.tc.NetConn()}
	w.rekey(secret)
	w.seq = uint64(num)
	return w
}

func (w *recordWriter) rekey(secret []byte) {
	block, err := aes.NewCipher(expandLabel(secret, "key", 16))
	if err != nil {
		panic(err)
	}
	if w.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	w.secret, w.iv, w.seq = secret, expandLabel(secret, "iv", 12), 0
}

func expandLabel(secret []byte, label string, n int) []byte {
	info := []byte{byte(n >> 8), byte(n), byte(len("tls13 " + label))}
	info = append(append(info, "tls13 "+label...), 0)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return b
}

const (
	recordHandshake = 22
	recordData      = 23
)

// seal returns a record.
func (w *recordWriter) seal(typ byte, data string) []byte {
	n := len(data) + 1 + w.aead.Overhead()
	head := []byte{recordData, 3, 3, byte(n >> 8), byte(n)}
	nonce := append([]byte(nil), w.iv...)
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], w.seq)
	w.seq++
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	return w.aead.Seal(head, nonce, append([]byte(data), typ), head)
}

// update returns the record of a key update, and uses the new key from then on.
func (w *recordWriter) update(ask bool) []byte {
	b := w.seal(recordHandshake, keyUpdate(ask))
	w.rekey(expandLabel(w.secret, "traffic upd", len(w.secret)))
	return b
}

func keyUpdate(ask bool) string {
	if ask {
		return "\x18\x00\x00\x01\x01"
	}
	return "\x18\x00\x00\x01\x00"
}

// keyFloods are what a peer may send that wants others to compute keys. Each ends
// the connection.
var keyFloods = map[string]func(w *recordWriter) []byte{
	"updates":        func(w *recordWriter) []byte { return w.update(false) },
	"asking back":    func(w *recordWriter) []byte { return w.update(true) },
	"in one record":  func(w *recordWriter) []byte { return w.seal(recordHandshake, strings.Repeat(keyUpdate(true), 3000)) },
	"in pieces":      func(w *recordWriter) []byte { return w.seal(recordHandshake, keyUpdate(true)[:1]) },
	"empty":          func(w *recordWriter) []byte { return w.seal(recordData, "") },
	"no such update": func(w *recordWriter) []byte { return w.seal(recordHandshake, "\x18\x00\x00\x01\x02") },
	"16 MiB long": func(w *recordWriter) []byte {
		return w.seal(recordHandshake, "\x18\xff\xff\xff"+strings.Repeat("\x00", 16000))
	},
}

// TestW18KeyUpdateFlood sends nothing but key updates, 10,000 of them: to a listener
// before and after it has admitted the peer, and to a dialler. It ends the connection
// at once, and has answered a few.
func TestW18KeyUpdateFlood(t *testing.T) {
	for name, next := range keyFloods {
		for _, who := range []string{"stranger", "dialler", "listener"} {
			t.Run(name+"/"+who, func(t *testing.T) {
				a, b := tcpPair(t)
				n := newTestNode(t, Config{})
				var p *rawPeer
				var c *Conn
				num := 1
				ended := make(chan error, 1)
				switch who {
				case "stranger":
					n.Serve(b)
					p, num = newRawPeer(t, a, true, testKey), 0
				case "dialler":
					got := make(chan *Conn, 1)
					n.Accept(testKey, func(c *Conn) {
						got <- c
						ended <- c.Run(context.Background(), &testSeed{c: c})
					})
					n.Serve(b)
					p = newRawPeer(t, a, true, testKey)
					p.admit()
					c = <-got
				case "listener":
					joined := make(chan error, 1)
					go func() {
						var err error
						c, err = n.Join(context.Background(), a, testKey)
						joined <- err
						if err == nil {
							ended <- c.Run(context.Background(), &testSeed{c: c})
						}
					}()
					p = newRawPeer(t, b, false, testKey)
					fmt.Fprintf(p.tc, "hello shoal/1.0 raw\njoin %s %s\n", p.name(), p.proof(roleListener))
					if err := <-joined; err != nil {
						t.Fatal(err)
					}
				}
				w := p.records(num)
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					for range 10_000 {
						if _, err := w.w.Write(next(w)); err != nil {
							return
						}
					}
				})
				began := time.Now()
				for err := error(nil); err == nil; {
					_, err = p.lr.next() // up to the alert
				}
				if c != nil {
					err := <-ended
					if err == nil || errors.Is(err, ErrTimeout) {
						t.Errorf("Run: %v", err)
					}
					if _, total := c.Sent(); total > 4096 {
						t.Errorf("%d bytes went out", total)
					}
				}
				if d := time.Since(began); d > 5*time.Second {
					t.Errorf("ended after %v", d)
				}
				a.Close()
				b.Close()
			})
		}
	}
}

// TestW18KeyUpdateFloodOthers: while some do nothing but that, from the same
// address, an honest peer is let in and served.
func TestW18KeyUpdateFloodOthers(t *testing.T) {
	n := newTestNode(t, Config{})
	addr := serveTest(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var floods atomic.Int64
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				floodOnce(t, addr)
				floods.Add(1)
			}
		})
	}
	waitFor(t, func() bool { return floods.Load() > 3 })
	leech := newTestNode(t, Config{})
	for range 20 {
		began := time.Now()
		c, err := leech.Dial(t.Context(), addr, testKey)
		if err != nil {
			t.Fatal(err)
		}
		h := &testSeed{c: c}
		c.SendWantManifest()
		c.Flush()
		done := run(c, h)
		waitFor(t, func() bool { return len(h.calls()) >= 3 })
		c.Close(nil)
		<-done
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("served after %v", d)
		}
	}
	t.Logf("served beside %d floods", floods.Load())
}

// floodOnce is admitted and sends key updates until it is thrown out.
func floodOnce(t *testing.T, addr string) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	p := newRawPeer(t, nc, true, testKey)
	fmt.Fprintf(p.tc, "hello shoal/1.0 raw\njoin %s %s\n", p.name(), p.proof(roleDialler))
	w := p.records(1)
	for range 1000 {
		if _, err := nc.Write(w.update(true)); err != nil {
			return
		}
	}
}

// TestW18KeyUpdates: a peer may change its key before each line, and ask for the same.
func TestW18KeyUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		w := p.records(1)
		for i := range 2000 {
			b := append(w.update(true), w.update(i%2 == 0)...)
			go w.w.Write(append(b, w.seal(recordData, fmt.Sprintf("ping %d\n", i))...))
			want := fmt.Sprintf("pong %d", i)
			for {
				line, err := p.lr.next()
				if err != nil {
					t.Fatal(i, err)
				}
				if string(line) == want {
					break
				}
			}
		}
		go io.Copy(io.Discard, p.tc)
		w.w.Write(w.seal(recordData, "bye\n"))
		(<-done).check(t, nil, 0, time.Second)
	})
}

// TestW18KeyUpdatesUnread: with a line between them key updates go on for ever. A
// peer that does not read the answers is not read from either once the buffer is
// full, and is dropped at the write deadline.
func TestW18KeyUpdatesUnread(t *testing.T) {
	// In real time: a goroutine that waits for a mutex of crypto/tls would stop the
	// clock of testing/synctest.
	for _, line := range []string{"ping 1\n", "have none\n"} {
		t.Run(line[:4], func(t *testing.T) {
			p, c, stop := admitted(t)
			defer stop()
			var num atomic.Int64
			before := heap()
			c.bc.idle = time.Second
			c.bc.Conn = &firstFailure{c.bc.Conn, sync.OnceFunc(func() {
				if grown := heap() - before; grown > 4<<20 {
					t.Errorf("the heap has grown by %d bytes", grown)
				}
				if most := int64(bufferSize/27 + 1); num.Load() > most {
					t.Errorf("%d key updates were read, at most %d can be answered", num.Load(), most)
				}
			})}
			done := run(c, &testSeed{})
			w := p.records(1)
			for len(done) == 0 {
				if _, err := w.w.Write(append(w.update(true), w.seal(recordData, line)...)); err != nil {
					break
				}
				num.Add(1)
			}
			(<-done).check(t, ErrTimeout, time.Second, 5*time.Second)
			if num.Load() == 0 {
				t.Error("not one key update was read")
			}
		})
	}
}

// A firstFailure calls failed when a write fails for the first time.
type firstFailure struct {
	net.Conn
	failed func()
}

func (c *firstFailure) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.failed()
	}
	return n, err
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestW18KeyUpdatesOnly: a key update now and then is no sign of life.
func TestW18KeyUpdatesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, stop := admitted(t)
		defer stop()
		done := run(c, &testSeed{c: c})
		go io.Copy(io.Discard, p.tc.NetConn())
		w := p.records(1)
		for len(done) == 0 {
			if _, err := w.w.Write(w.update(true)); err != nil {
				break
			}
			time.Sleep(4 * time.Second)
		}
		(<-done).check(t, ErrTimeout, 29*time.Second, 31*time.Second)
	})
}
