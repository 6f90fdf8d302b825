package transfer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// check is rapid.Check, with fewer runs: each of these moves files.
func check(t *testing.T, runs string, prop func(*rapid.T)) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	before := f.Value.String()
	must(t, f.Value.Set(runs))
	defer func() { must(t, f.Value.Set(before)) }()
	rapid.Check(t, prop)
}

// randomTree makes a tree of any shape: sizes around those of chunks, empty files and
// folders, modes, links.
func randomTree(t *rapid.T, dir string) {
	size := rapid.OneOf(
		rapid.IntRange(0, 3),
		rapid.IntRange(0, 50_000),
		rapid.Custom(func(t *rapid.T) int {
			return max(0, rapid.IntRange(0, 4).Draw(t, "chunks")*chunk.MinSize+rapid.IntRange(-2, 2).Draw(t, "bytes"))
		}),
	)
	dirs := []string{dir}
	for i := range rapid.IntRange(0, 4).Draw(t, "folders") {
		d := filepath.Join(rapid.SampledFrom(dirs).Draw(t, "in"), fmt.Sprintf("d%d", i))
		must(t, os.Mkdir(d, 0o755))
		dirs = append(dirs, d)
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "files") {
		p := filepath.Join(rapid.SampledFrom(dirs).Draw(t, "in"), fmt.Sprintf("f%d", i))
		must(t, os.WriteFile(p, noise(uint64(i), size.Draw(t, "size")), 0o600))
		must(t, os.Chmod(p, fs.FileMode(0o400|rapid.IntRange(0, 0o777).Draw(t, "mode"))))
		must(t, os.Chtimes(p, time.Time{}, time.Unix(int64(rapid.IntRange(0, 1<<32).Draw(t, "time")), int64(rapid.IntRange(0, 999_999_999).Draw(t, "ns")))))
	}
	if runtime.GOOS != "windows" && rapid.Bool().Draw(t, "link") {
		must(t, os.Symlink("f0", filepath.Join(dir, "link")))
	}
}

// Any tree, from any mix of honest and other peers, ends as the identical tree, byte
// by byte, mode by mode and time by time, or with an error that says why. It is the
// tree whenever one honest peer stays; and from one peer nothing is asked twice.
func TestPropertyTreeOrError(t *testing.T) {
	if testing.Short() {
		t.Skip("moves many trees")
	}
	const (
		honest = iota
		slow
		wrong   // sends a wrong byte now and then
		mute    // says that it has nothing
		leaving // goes after the first chunks
		kinds
	)
	check(t, "25", func(t *rapid.T) {
		top, err := os.MkdirTemp("", "shoal-property")
		must(t, err)
		defer os.RemoveAll(top)
		tree, dir := filepath.Join(top, "tree"), filepath.Join(top, "out")
		must(t, os.Mkdir(tree, 0o755))
		randomTree(t, tree)
		peers := rapid.SliceOfN(rapid.IntRange(0, kinds-1), 1, 4).Draw(t, "peers")
		n := newMemNet()
		o := GetOptions{Dir: dir, Network: n.node(), Timeout: time.Minute}
		ctx, cancel := context.WithCancel(context.Background())
		var served sync.WaitGroup
		defer func() { cancel(); served.Wait() }()
		stays, size := false, int64(0)
		var leave []context.CancelFunc
		for _, kind := range peers {
			node := n.node()
			s, err := NewShare(ctx, ShareOptions{Paths: []string{tree}, Network: node})
			must(t, err)
			switch kind {
			case slow:
				node.up.rate = 4e6
			case wrong:
				node.twist = func(i, off int, p []byte) []byte {
					if i%3 == 0 {
						p[len(p)/2] ^= 1
					}
					return p
				}
			case mute:
				node.mute = true
			}
			its := ctx
			if kind == leaving {
				var end context.CancelFunc
				its, end = context.WithCancel(ctx)
				defer end()
				leave = append(leave, end)
			}
			served.Go(func() { _ = s.Serve(its) })
			for node.accepting() == 0 {
				time.Sleep(time.Millisecond)
			}
			stays = stays || kind == honest || kind == slow
			o.Root, size = s.Manifest().Root(), s.Manifest().Size()
			o.Addrs = append(o.Addrs, node.addr)
		}
		if !stays {
			o.Timeout = time.Second
		}
		o.Events = func(e Event) {
			if p, ok := e.(Progress); ok && p.Done > 0 {
				for _, end := range leave {
					end()
				}
			}
		}
		res, err := Get(ctx, o)
		if err != nil {
			var (
				noPeer    *NoPeerError
				stalled   *StalledError
				integrity *IntegrityError
			)
			if stays || !errors.As(err, &noPeer) && !errors.As(err, &stalled) && !errors.As(err, &integrity) {
				t.Fatalf("from %v: %v", peers, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
				t.Fatal("it failed, and there is a tree")
			}
			return
		}
		must(t, manifest.Verify(context.Background(), res.Manifest, nil, filepath.Join(dir, "tree"), func(d manifest.Difference) { t.Errorf("from %v: %v", peers, d) }))
		if len(peers) == 1 && peers[0] == honest && (res.Stats.Received != size || res.Stats.Wasted != 0) {
			t.Errorf("from one honest peer came %d bytes for a share of %d, %d of them for nothing", res.Stats.Received, size, res.Stats.Wasted)
		}
	})
}
