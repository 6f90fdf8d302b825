package transfer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serveFile shares a file of n bytes from each of several seeds.
func serveFile(t *testing.T, net *memNet, n, seeds int) (data []byte, s []*seed) {
	t.Helper()
	data = noise(uint64(n), n)
	file := filepath.Join(t.TempDir(), "data.bin")
	must(t, os.WriteFile(file, data, 0o644))
	for range seeds {
		s = append(s, serveTree(t, net, file))
	}
	return data, s
}

// A stream is the file, from all seeds, and leaves nothing on the disk.
func TestStream(t *testing.T) {
	for _, size := range []int{0, 1, 128 << 10, 20<<20 + 5} {
		n := newMemNet()
		data, seeds := serveFile(t, n, size, 3)
		for _, s := range seeds {
			s.node.up.rate = 30e6 // slow enough that all three are needed
		}
		dir := t.TempDir()
		var out bytes.Buffer
		res, err := Stream(t.Context(), options(n, dir, seeds...), &out)
		must(t, err)
		if !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d bytes came, of %d, or others", out.Len(), size)
		}
		if res.Fetched != int64(size) || res.Size != int64(size) {
			t.Errorf("result %+v", res)
		}
		for _, p := range res.Stats.Peers {
			if p.Used == 0 && size > 10<<20 {
				t.Errorf("nothing came from %s", p.Addr)
			}
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// One file of a tree can be streamed, small ones from the middle of a chunk too;
// several cannot.
func TestStreamOfTree(t *testing.T) {
	n, tree := newMemNet(), writeTree(t)
	s := serveTree(t, n, tree)
	for _, name := range []string{"a/small", "b/c/large", "a/empty", "z/last"} {
		o := options(n, t.TempDir(), s)
		o.Only = []string{name}
		var out bytes.Buffer
		_, err := Stream(t.Context(), o, &out)
		must(t, err)
		want, err := os.ReadFile(filepath.Join(tree, name))
		must(t, err)
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: %d bytes, want %d", name, out.Len(), len(want))
		}
	}
	var several *NotOneFileError
	if _, err := Stream(t.Context(), options(n, t.TempDir(), s), io.Discard); !errors.As(err, &several) || several.Files != 7 {
		t.Errorf("the whole tree: %v", err)
	}
}

// A pausing takes nothing until it is let, and notes how much came.
type pausing struct {
	mu   sync.Mutex
	n    int
	open chan struct{}
}

func (p *pausing) Write(b []byte) (int, error) {
	<-p.open
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += len(b)
	return len(b), nil
}

// While the reader takes nothing, no more is fetched than the stream may hold,
// and the get does not give up; then it goes on.
func TestStreamWaitsForItsReader(t *testing.T) {
	n := newMemNet()
	const size = 96 << 20
	_, seeds := serveFile(t, n, size, 2)
	o := options(n, t.TempDir(), seeds...)
	o.StallTimeout = 2 * time.Second
	w := &pausing{open: make(chan struct{})}
	var mu sync.Mutex
	var last Progress
	full := make(chan struct{})
	o.Events = func(e Event) {
		if p, ok := e.(Progress); ok {
			mu.Lock()
			last = p
			if p.Done >= streamAhead && full != nil {
				close(full)
				full = nil
			}
			mu.Unlock()
		}
	}
	filled := full
	done := make(chan error, 1)
	go func() { _, err := Stream(t.Context(), o, w); done <- err }()
	select {
	case <-filled:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatalf("nothing was fetched ahead")
	}
	// Longer than the timeout: it must neither end nor fetch on.
	select {
	case err := <-done:
		t.Fatalf("it ended while its reader paused: %v", err)
	case <-time.After(3 * time.Second):
	}
	mu.Lock()
	if last.Done > streamAhead {
		t.Errorf("%d bytes were fetched ahead, the limit is %d", last.Done, streamAhead)
	}
	mu.Unlock()
	close(w.open)
	must(t, <-done)
	if w.n != size {
		t.Errorf("%d bytes came", w.n)
	}
}

type closedWriter struct{ after int }

func (c *closedWriter) Write(p []byte) (int, error) {
	if c.after -= len(p); c.after < 0 {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

// A reader that goes away ends the get at once.
func TestStreamReaderLeaves(t *testing.T) {
	n := newMemNet()
	_, seeds := serveFile(t, n, 8<<20, 1)
	_, err := Stream(t.Context(), options(n, t.TempDir(), seeds...), &closedWriter{after: 1 << 20})
	var failed *WriteError
	if !errors.As(err, &failed) || !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// A seed that sends wrong bytes is dropped, and none of them is passed on.
func TestStreamWrongBytes(t *testing.T) {
	n := newMemNet()
	data, seeds := serveFile(t, n, 8<<20, 2)
	seeds[0].node.twist = func(_, _ int, p []byte) []byte { p[0] ^= 1; return p }
	var out bytes.Buffer
	res, err := Stream(t.Context(), options(n, t.TempDir(), seeds...), &out)
	must(t, err)
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("other bytes came")
	}
	if st := res.Stats.Peers; !st[0].Banned && !st[1].Banned {
		t.Errorf("nobody was banned: %+v", st)
	}
}

// Memory of a stream is bounded by what it may hold, not by the file.
func TestStreamHolds(t *testing.T) {
	m := zeroShare(t, 1<<30)
	o, err := newStream(m, nil, io.Discard)
	must(t, err)
	if got := o.until() * m.MaxChunkLen(); got > streamAhead {
		t.Errorf("%d bytes may be asked for ahead", got)
	}
	p := newPicker(m.NumChunks(), nil)
	p.inOrder = true
	for i := range o.until() {
		p.add(i)
	}
	for want := 0; p.len() > 0; {
		r := p.pick(nil, -1, 3)
		if r.First != want || r.N < 1 {
			t.Fatalf("picked %v, want %d first", r, want)
		}
		want = r.End()
	}
}
