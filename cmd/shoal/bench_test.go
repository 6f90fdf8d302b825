package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/shoal-p2p/shoal/transfer"
)

// The bare pipeline is what a transfer cannot do without: two processes, a file
// that goes over two TLS connections with large buffers, is hashed chunk by
// chunk, and is written into a file that has its size from the start. It has no
// manifest, no journal, no flush and no checks. BenchmarkTransfer runs it beside
// shoal, so that what shoal adds can be measured at any time.
const (
	bareLines  = 2
	bareChunk  = 1 << 20
	bareBuffer = 256 << 10
)

// bare is the program: "bare send FILE" prints its address and serves one
// transfer, "bare receive ADDR SIZE FILE" fetches it.
func bare() {
	var err error
	switch args := os.Args[1:]; args[0] {
	case "send":
		err = bareSend(args[1])
	case "receive":
		var size int64
		if size, err = strconv.ParseInt(args[2], 10, 64); err == nil {
			err = bareReceive(args[1], size, args[3])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

// A bufferedConn reads from its connection in large pieces, and collects what is
// written once w is set: TLS itself reads and writes record by record.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer // nil during the handshake
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *bufferedConn) Write(p []byte) (int, error) {
	if c.w == nil {
		return c.Conn.Write(p)
	}
	return c.w.Write(p)
}

func buffered(c net.Conn) *bufferedConn {
	return &bufferedConn{Conn: c, r: bufio.NewReaderSize(c, bareBuffer)}
}

func bareSend(file string) error {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, pub, key)
	if err != nil {
		return err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	return bareEach(func(k int) error {
		raw, err := l.Accept()
		if err != nil {
			return err
		}
		b := buffered(raw)
		c := tls.Server(b, conf)
		var which [1]byte
		if err := c.Handshake(); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, which[:]); err != nil {
			return err
		}
		b.w = bufio.NewWriterSize(raw, bareBuffer)
		from, to := bareHalf(fi.Size(), int(which[0]))
		buf := make([]byte, bareBuffer)
		for from < to {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
			if err != nil {
				return err
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
			from += int64(n)
		}
		return errors.Join(b.w.Flush(), raw.Close())
	})
}

func bareReceive(addr string, size int64, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := preallocate(f, size); err != nil {
		return err
	}
	err = bareEach(func(k int) error {
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer raw.Close()
		b := buffered(raw)
		// It measures TLS and trusts nobody with anything.
		c := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec
		if _, err := c.Write([]byte{byte(k)}); err != nil {
			return err
		}
		from, to := bareHalf(size, k)
		buf := make([]byte, bareChunk)
		for h := blake3.New(); from < to; h.Reset() {
			p := buf[:min(int64(len(buf)), to-from)]
			if _, err := io.ReadFull(c, p); err != nil {
				return err
			}
			if _, err := h.Write(p); err != nil {
				return err
			}
			_ = h.Sum(nil) // there is nothing to compare it with
			if _, err := f.WriteAt(p, from); err != nil {
				return err
			}
			from += int64(len(p))
		}
		return nil
	})
	return errors.Join(err, f.Close())
}

// bareHalf returns which bytes go over connection k.
func bareHalf(size int64, k int) (from, to int64) {
	return size * int64(k) / bareLines, size * int64(k+1) / bareLines
}

func bareEach(do func(k int) error) error {
	errs := make([]error, bareLines)
	var wg sync.WaitGroup
	for k := range errs {
		wg.Go(func() { errs[k] = do(k) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// BenchmarkTransfer moves a file from one process to another over loopback, from
// the start of the receiving one until its end: by the bare pipeline, by shoal
// from one peer, and by shoal from four.
func BenchmarkTransfer(b *testing.B) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	dir := b.TempDir()
	file := filepath.Join(dir, "file")
	f, err := os.Create(file)
	must(b, err)
	_, err = io.CopyN(f, rand.Reader, size)
	must(b, err)
	must(b, f.Close())
	exe, err := os.Executable()
	must(b, err)
	out := filepath.Join(dir, "out")

	b.Run("bare", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs() // of the process that starts the others; see BenchmarkPipeline
		for b.Loop() {
			b.StopTimer()
			must(b, os.RemoveAll(out))
			send := exec.Command(exe, "send", file)
			send.Args[0], send.Stderr = "bare", os.Stderr
			r, err := send.StdoutPipe()
			must(b, err)
			must(b, send.Start())
			addr, err := bufio.NewReader(r).ReadString('\n')
			must(b, err)
			b.StartTimer()
			receive := exec.Command(exe, "receive", strings.TrimSpace(addr), strconv.FormatInt(size, 10), out)
			receive.Args[0], receive.Stderr = "bare", os.Stderr
			must(b, receive.Run())
			b.StopTimer()
			must(b, send.Wait())
			b.StartTimer()
		}
	})
	for _, peers := range []int{1, 4} {
		b.Run(fmt.Sprintf("shoal/peers=%d", peers), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			line := []string{"get", "--json", "--quiet", "--listen", "127.0.0.1:0", "-o", out}
			var ticket string
			for range peers {
				s := start(b, filepath.Join(dir, "home"), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", file)
				e := s.wait("ticket")
				ticket = e["ticket"].(string)
				line = append(line, "--peer", e["listen"].(string))
			}
			line = append(line, ticket)
			for b.Loop() {
				b.StopTimer()
				must(b, os.RemoveAll(out))
				b.StartTimer()
				get := exec.Command(exe, line...)
				get.Args[0], get.Stderr = "shoal", os.Stderr
				get.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, "gets"))
				events, err := get.Output()
				must(b, err)
				b.StopTimer()
				var last map[string]any
				for e := range strings.Lines(string(events)) {
					must(b, json.Unmarshal([]byte(e), &last))
				}
				if r, ok := last["received"].(float64); ok {
					b.ReportMetric(r/float64(size), "received/size")
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkPipeline is a share and a get in one process, with sockets and disk in
// between, so that what both allocate can be seen.
func BenchmarkPipeline(b *testing.B) {
	size := int64(256 << 20)
	if testing.Short() {
		size = 32 << 20
	}
	dir := b.TempDir()
	file := filepath.Join(dir, "file")
	f, err := os.Create(file)
	must(b, err)
	_, err = io.CopyN(f, rand.Reader, size)
	must(b, err)
	must(b, f.Close())

	here, there := benchNetwork(b), benchNetwork(b)
	at, _, err := here.listen("127.0.0.1:0")
	must(b, err)
	s, err := transfer.NewShare(b.Context(), transfer.ShareOptions{Paths: []string{file}, Network: here, Port: int(at.Port())})
	must(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()

	b.SetBytes(size)
	b.ReportAllocs()
	out := filepath.Join(dir, "out")
	for b.Loop() {
		_, err := transfer.Get(b.Context(), transfer.GetOptions{
			Root: s.Manifest().Root(), Addrs: []string{at.String()}, Output: out, Network: there, Timeout: time.Minute,
		})
		must(b, err)
		b.StopTimer()
		must(b, os.RemoveAll(out))
		b.StartTimer()
	}
	cancel()
	must(b, <-served)
}

func benchNetwork(b *testing.B) network {
	n, err := newNetwork()
	must(b, err)
	b.Cleanup(func() { must(b, n.Close()) })
	return n
}
