package peer

import (
	"context"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
)

// sink takes all data into one buffer.
type sink struct {
	testSeed
	p    []byte
	left int
	done chan struct{}
}

func (s *sink) Segment(i, off, n int) ([]byte, error) { return s.p[:n], nil }
func (s *sink) Have([]chunk.Range) error              { return nil }
func (s *sink) Want([]chunk.Range) error              { return nil }
func (s *sink) Received(i, off, n int) error {
	if s.left -= n; s.left == 0 {
		close(s.done)
	}
	return nil
}

// BenchmarkConn moves segments of 256 KiB over TLS and TCP on loopback, both
// ends in this process.
func BenchmarkConn(b *testing.B) {
	seed, leech := newTestNode(b, Config{}), newTestNode(b, Config{})
	p := make([]byte, MaxSegment)
	start := make(chan struct{})
	seed.Accept(testKey, func(c *Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			<-start
			have := []chunk.Range{{First: 3, N: 2}}
			for i := range b.N {
				if err := c.SendData(i%1000, 0, p); err != nil {
					b.Error(err)
					return
				}
				have[0].First = i % 500
				if err := c.SendHave(have); err != nil {
					b.Error(err)
				}
			}
			c.Flush()
		}()
		c.Run(context.Background(), &testSeed{c: c})
		<-done
	})
	addr, err := seed.Listen("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c, err := leech.Dial(b.Context(), addr.String(), testKey)
	if err != nil {
		b.Fatal(err)
	}
	s := &sink{p: make([]byte, MaxSegment), left: b.N * MaxSegment, done: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background(), s) }()
	b.SetBytes(MaxSegment)
	b.ReportAllocs()
	b.ResetTimer()
	close(start)
	<-s.done
	b.StopTimer()
	c.Close(nil)
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLine parses and writes the lines that a transfer consists of.
func BenchmarkLine(b *testing.B) {
	for _, text := range []string{
		"data 12345 262144 262144",
		"have 12345",
		"want 0-99 105 200-300 4000 4100-4200 70000-70001 123456",
	} {
		b.Run(text[:4], func(b *testing.B) {
			var l line
			in := []byte(text)
			out := make([]byte, 0, maxLine)
			b.SetBytes(int64(len(text)) + 1)
			b.ReportAllocs()
			for b.Loop() {
				if err := l.parse(in); err != nil {
					b.Fatal(err)
				}
				out = l.append(out[:0])
			}
			if string(out) != text+"\n" {
				b.Fatalf("%q", out)
			}
		})
	}
}
