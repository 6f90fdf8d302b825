package transfer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noise returns n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	key[1] = byte(seed >> 8)
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p)
	return p
}

// writeTree makes a folder of small and large files, an empty directory and a
// link, and returns its path.
func writeTree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for i, f := range []struct {
		name string
		n    int
	}{
		{"a/empty", 0},
		{"a/one", 1},
		{"a/small", 5_000},
		{"b/c/large", 3<<20 + 17},
		{"b/exact", 256 << 10},
		{"big", 5 << 20},
		{"z/last", 100},
	} {
		p := filepath.Join(dir, f.name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, noise(uint64(i), f.n), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "hollow"), 0o700))
	must(t, os.Symlink("c/large", filepath.Join(dir, "b/link")))
	return dir
}

// A failer is a test, of whatever kind.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A seed is a share that is being served.
type seed struct {
	*Share
	node *memNode
	end  func()
}

func serveTree(t testing.TB, n *memNet, dir string) *seed {
	t.Helper()
	node := n.node()
	s, err := NewShare(t.Context(), ShareOptions{Paths: []string{dir}, Network: node})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for node.accepting() == 0 {
		time.Sleep(time.Millisecond)
	}
	end := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(end)
	return &seed{s, node, end}
}

// same fails unless the fetched tree is the shared one.
func same(t testing.TB, m *manifest.Manifest, path string) {
	t.Helper()
	must(t, manifest.Verify(t.Context(), m, nil, path, func(d manifest.Difference) { t.Errorf("difference: %v", d) }))
}

func options(n *memNet, dir string, seeds ...*seed) GetOptions {
	o := GetOptions{Dir: dir, Timeout: 10 * time.Second, Network: n.node()}
	for _, s := range seeds {
		o.Root = s.Manifest().Root()
		o.Addrs = append(o.Addrs, s.node.addr)
	}
	return o
}

// Nobody is asked for a manifest that is known already, and one peer only for one
// that is not, also while the store is made.
func TestManifestIsAskedOnce(t *testing.T) {
	n, tree := newMemNet(), writeTree(t)
	var seeds []*seed
	sent := func() (bytes int64) {
		for _, s := range seeds {
			bytes += s.node.texts.Load()
		}
		return bytes
	}
	for range 6 {
		seeds = append(seeds, serveTree(t, n, tree))
	}
	m := seeds[0].Manifest()
	for k := range 6 {
		o, copies := options(n, t.TempDir(), seeds...), int64(1)
		if k%2 == 1 {
			o.Manifest, copies = m, 0
		}
		before := sent()
		_, err := Get(t.Context(), o)
		must(t, err)
		if got := sent() - before; got != copies*int64(len(m.Text())) {
			t.Errorf("%d bytes of a manifest of %d were sent, want it %d times", got, len(m.Text()), copies)
		}
	}
}

func TestGetFromSeveral(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	seeds := []*seed{serveTree(t, n, tree), serveTree(t, n, tree), serveTree(t, n, tree)}
	for _, s := range seeds {
		s.node.up.rate = 20e6 // slow enough that all three are needed
	}
	res, err := Get(t.Context(), options(n, dir, seeds...))
	must(t, err)
	same(t, seeds[0].Manifest(), filepath.Join(dir, "tree"))
	if res.Fetched != res.Size || res.Kept != 0 || res.Size != seeds[0].Manifest().Size() {
		t.Errorf("fetched %d, kept %d of %d", res.Fetched, res.Kept, res.Size)
	}
	for _, p := range res.Stats.Peers {
		if p.Used == 0 {
			t.Errorf("nothing came from %s", p.Addr)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*part*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestGetOneFileAndAgain(t *testing.T) {
	n, dir := newMemNet(), t.TempDir()
	file := filepath.Join(t.TempDir(), "data.bin")
	must(t, os.WriteFile(file, noise(9, 1<<20+5), 0o640))
	s := serveTree(t, n, file)
	o := options(n, dir, s)
	_, err := Get(t.Context(), o)
	must(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "data.bin"))
	must(t, err)
	if !bytes.Equal(got, noise(9, 1<<20+5)) {
		t.Error("content differs")
	}
	res, err := Get(t.Context(), o)
	must(t, err)
	if !res.Already || res.Stats.Received != 0 {
		t.Errorf("a second get fetched again: %+v", res)
	}
	must(t, os.WriteFile(filepath.Join(dir, "data.bin"), []byte("mine"), 0o640))
	var collision *store.CollisionError
	if _, err = Get(t.Context(), o); !errors.As(err, &collision) || collision.Num != 1 {
		t.Errorf("get onto another file: %v", err)
	}
	got, err = os.ReadFile(filepath.Join(dir, "data.bin"))
	must(t, err)
	if string(got) != "mine" {
		t.Error("the file that was there is gone")
	}
}

func TestResumeKeepsWhatCame(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	s.node.up.rate = 6e6
	o := options(n, dir, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("pulled the plug")
	o.Events = func(e Event) {
		if p, ok := e.(Progress); ok && p.Done > p.Total/4 {
			cancel(stop)
		}
	}
	if _, err := Get(ctx, o); !errors.Is(err, stop) {
		t.Fatalf("interrupted get: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
		t.Error("an unfinished tree stands at the final name")
	}
	for s.sw.connected() > 0 { // what is on its way still counts
		time.Sleep(time.Millisecond)
	}
	before := s.Stats().Sent
	s.node.up.rate = 0
	var resumed Resumed
	o.Events = func(e Event) {
		if r, ok := e.(Resumed); ok {
			resumed = r
		}
	}
	res, err := Get(t.Context(), o)
	must(t, err)
	same(t, s.Manifest(), filepath.Join(dir, "tree"))
	if resumed.Kept < s.Manifest().Size()/4 || resumed.Kept != res.Kept {
		t.Errorf("resumed with %d of %d, result says %d", resumed.Kept, s.Manifest().Size(), res.Kept)
	}
	if sent := s.Stats().Sent - before; sent != s.Manifest().Size()-res.Kept {
		t.Errorf("the seed sent %d, missing were %d", sent, s.Manifest().Size()-res.Kept)
	}
}

func TestOnly(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	o := options(n, dir, s)
	o.Only = []string{"b/exact", "a/small"}
	res, err := Get(t.Context(), o)
	must(t, err)
	var got []string
	must(t, filepath.WalkDir(filepath.Join(dir, "tree"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, d.Name())
		}
		return err
	}))
	if !slices.Equal(got, []string{"small", "exact"}) {
		t.Errorf("got files %v", got)
	}
	if res.Stats.Received > 256<<10+10_000 {
		t.Errorf("received %d bytes for two small files", res.Stats.Received)
	}
}

// One of three peers sends wrong bytes: it is dropped, once, and the tree is right.
func TestE01LiarIsBanned(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	seeds := []*seed{serveTree(t, n, tree), serveTree(t, n, tree), serveTree(t, n, tree)}
	for _, s := range seeds {
		s.node.up.rate = 20e6
	}
	liar := seeds[1].node
	liar.twist = func(_, _ int, p []byte) []byte { p[len(p)/2] ^= 1; return p }
	o := options(n, dir, seeds...)
	var mu sync.Mutex
	var banned []string
	o.Events = func(e Event) {
		if d, ok := e.(PeerDown); ok && d.Banned {
			mu.Lock()
			banned = append(banned, d.Addr)
			mu.Unlock()
		}
	}
	res, err := Get(t.Context(), o)
	must(t, err)
	same(t, seeds[0].Manifest(), filepath.Join(dir, "tree"))
	if !slices.Equal(banned, []string{liar.addr}) {
		t.Errorf("banned %v, want %s", banned, liar.addr)
	}
	for _, p := range res.Stats.Peers {
		if p.Banned != (p.Addr == liar.addr) {
			t.Errorf("peer %s: banned is %v", p.Addr, p.Banned)
		}
	}
}

func TestE03OnlyLiars(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	s.node.twist = func(_, _ int, p []byte) []byte { p[0] ^= 1; return p }
	_, err := Get(t.Context(), options(n, dir, s))
	var bad *IntegrityError
	if !errors.As(err, &bad) || bad.Chunk < 0 || !strings.Contains(err.Error(), s.node.addr) {
		t.Errorf("get from a liar alone: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	n := newMemNet()
	o := options(n, t.TempDir())
	o.Root = chunk.Sum([]byte("x"))
	o.Addrs = []string{"192.0.2.77:1"}
	o.Timeout = 1200 * time.Millisecond
	var waited bool
	o.Events = func(e Event) {
		if w, ok := e.(Waiting); ok && len(w.Reasons) == 1 && strings.Contains(w.Reasons[0], "192.0.2.77:1: connection refused") {
			waited = true
		}
	}
	_, err := Get(t.Context(), o)
	var no *NoPeerError
	if !errors.As(err, &no) || no.NoShare {
		t.Errorf("get from nobody: %v", err)
	}
	if !waited {
		t.Error("it did not say what it waits for")
	}
}

// A get that loses its only seed waits, and goes on when the seed is back.
func TestSeedComesBack(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	s.node.up.rate = 20e6
	o := options(n, dir, s)
	var once, back sync.Once
	o.Events = func(e Event) {
		switch e := e.(type) {
		case Progress:
			if e.Done > e.Total/4 {
				once.Do(func() { s.node.setDeaf(true); s.sw.hangUp() })
			}
		case Waiting:
			back.Do(func() { s.node.setDeaf(false) })
		}
	}
	_, err := Get(t.Context(), o)
	must(t, err)
	same(t, s.Manifest(), filepath.Join(dir, "tree"))
}

// A get that starts before any seed is there waits for one, and one that loses all
// of them goes on when one of them returns.
func TestSeedsComeAndGo(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	a, b := serveTree(t, n, tree), serveTree(t, n, tree)
	o := options(n, dir, a, b)
	for _, s := range []*seed{a, b} {
		s.node.up.rate = 10e6
		s.node.setDeaf(true)
	}
	waits, lost := 0, false
	o.Events = func(e Event) {
		switch e := e.(type) {
		case Progress:
			if e.Done > e.Total/4 && !lost {
				lost = true
				for _, s := range []*seed{a, b} {
					s.node.setDeaf(true)
					s.sw.hangUp()
				}
			}
		case Waiting:
			if waits++; !lost {
				a.node.setDeaf(false)
			}
			b.node.setDeaf(false)
		}
	}
	_, err := Get(t.Context(), o)
	must(t, err)
	same(t, a.Manifest(), filepath.Join(dir, "tree"))
	if waits < 2 || !lost {
		t.Errorf("it waited %d times, and lost all: %v", waits, lost)
	}
}

// A get that is given its own address finds out, and does not dial it again.
func TestOwnAddress(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	s.node.up.rate = 5e6 // long enough for another try
	o := options(n, dir, s)
	us := n.node()
	counting := &countingNetwork{Network: us}
	o.Network, o.Port = counting, 7420
	o.Addrs = append(o.Addrs, us.addr)
	o.Events = func(e Event) {
		if up, ok := e.(PeerUp); ok && up.ID == us.ID() {
			t.Error("it is connected to itself")
		}
	}
	_, err := Get(t.Context(), o)
	must(t, err)
	if tries := len(counting.dials(us.addr)); tries != 1 {
		t.Errorf("its own address was dialled %d times", tries)
	}
}

func (sw *swarm) connected() int {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.sessions)
}

// hangUp ends all connections, as a network does that goes away.
func (sw *swarm) hangUp() {
	sw.mu.Lock()
	all := slices.Clone(sw.sessions)
	sw.mu.Unlock()
	for _, s := range all {
		s.end(errors.New("the line is cut"))
	}
}

// Two leeches that know each other and the seed fetch from each other too.
func TestLeechesServeEachOther(t *testing.T) {
	n, tree := newMemNet(), writeTree(t)
	s := serveTree(t, n, tree)
	s.node.up.rate = 10e6
	dirs := []string{t.TempDir(), t.TempDir()}
	nodes := []*memNode{n.node(), n.node()}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var finished sync.WaitGroup
	finished.Add(2)
	for k := range 2 {
		wg.Go(func() {
			o := GetOptions{
				Root: s.Manifest().Root(), Addrs: []string{s.node.addr, nodes[1-k].addr}, Dir: dirs[k],
				Timeout: 10 * time.Second, Network: nodes[k], Port: 1, Seed: true,
				Events: func(e Event) {
					if _, ok := e.(Finished); ok {
						finished.Done()
					}
				},
			}
			if _, err := Get(ctx, o); err != nil {
				t.Errorf("get %d: %v", k, err)
			}
		})
	}
	finished.Wait()
	cancel()
	wg.Wait()
	for _, d := range dirs {
		same(t, s.Manifest(), filepath.Join(d, "tree"))
	}
	if sent := s.Stats().Sent; sent > s.Manifest().Size()*17/10 {
		t.Errorf("the seed sent %d for a share of %d: the leeches hardly helped each other", sent, s.Manifest().Size())
	}
}

// A seed whose file changes refuses it, and the get ends with the reason.
func TestChangedSource(t *testing.T) {
	n, tree, dir := newMemNet(), writeTree(t), t.TempDir()
	s := serveTree(t, n, tree)
	f, err := os.OpenFile(filepath.Join(tree, "big"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("changed"), 1<<20)
	must(t, err)
	must(t, f.Close())
	o := options(n, dir, s)
	o.Timeout = 1500 * time.Millisecond
	_, err = Get(t.Context(), o)
	var stalled *StalledError
	if !errors.As(err, &stalled) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("get of a changed file: %v", err)
	}
}
