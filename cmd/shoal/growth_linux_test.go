package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What README says about memory: a seed and a receiver need so much at most, in
// bytes, and a larger share costs only its manifest.
const (
	mostRSS    = 128 << 20
	partSize   = 64 << 20
	rssOfNoise = 24 << 20 // by which two runs of the same differ
)

// A load is what a process has cost so far.
type load struct {
	cpu time.Duration
	rss int64 // bytes, at most
}

func (l load) String() string { return fmt.Sprintf("%.2f CPU s, %d MiB", l.cpu.Seconds(), l.rss>>20) }

// load reads what the kernel has counted. Not what wait4 says: that begins with
// the memory of the process that started this one.
func (p *process) load(t testing.TB) (l load) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	stat, err := os.ReadFile(proc + "stat")
	must(t, err)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		must(t, err)
		l.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(proc + "status")
	must(t, err)
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscanf(after, "%d kB", &l.rss)
	must(t, err)
	l.rss <<= 10
	return l
}

// end ends a process that serves.
func (p *process) end(t testing.TB) {
	t.Helper()
	must(t, p.cmd.Process.Signal(unix.SIGINT))
	for range p.events {
	}
}

// fetched runs a get until it is finished, and returns what it cost.
func fetched(t testing.TB, ticket string, args ...string) load {
	t.Helper()
	home := t.TempDir()
	p := start(t, home, append([]string{"get", "--json", "--quiet", "--seed", "--listen", "127.0.0.1:0", "-o", filepath.Join(home, "out"), ticket}, args...)...)
	if p.wait("finished") == nil {
		t.Fatal("a get has ended without success")
	}
	l := p.load(t)
	p.end(t)
	must(t, os.RemoveAll(home))
	return l
}

// served starts a share and returns its ticket, and what it has cost until then.
func served(t testing.TB, home, path string) (p *process, ticket, addr string, l load) {
	t.Helper()
	p = start(t, home, "share", "--json", "--quiet", "--listen", "127.0.0.1:0", path)
	e := p.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	return p, e["ticket"].(string), e["listen"].(string), p.load(t)
}

// TestGrowthBytes shares a sparse file of each size beside a small one, and
// fetches all of it, or of the largest only the small one: what a share needs
// besides its bytes is there all the same. Time is that of the processor.
func TestGrowthBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes and moves 0.6 GB")
	}
	sizes, whole := []int64{64 << 20, 512 << 20}, int64(512<<20)
	if os.Getenv("SHOAL_SOAK") != "" {
		sizes, whole = []int64{1 << 30, 4 << 30, 16 << 30, 64 << 30}, 16<<30
	}
	type costs struct{ share, get, part, seed load }
	var all []costs
	for _, size := range sizes {
		dir := t.TempDir()
		tree := filepath.Join(dir, "tree")
		must(t, os.Mkdir(tree, 0o755))
		for name, n := range map[string]int64{"big": size, "part": partSize} {
			f, err := os.Create(filepath.Join(tree, name))
			must(t, err)
			must(t, f.Truncate(n))
			must(t, f.Close())
		}
		var c costs
		p, ticket, _, l := served(t, dir, tree)
		c.share = l
		c.part = fetched(t, ticket, "--only", "part")
		var st unix.Statfs_t
		must(t, unix.Statfs(dir, &st))
		if room := int64(st.Bavail) * st.Bsize; size <= whole && room > size+size/4 {
			c.get = fetched(t, ticket)
		}
		c.seed = p.load(t)
		p.end(t)
		all = append(all, c)
		t.Logf("%6d MiB: share %v; get %v; get of %d MiB of it %v; the seed in all %v", size>>20, c.share, c.get, partSize>>20, c.part, c.seed)
	}
	first, last := all[0], all[len(all)-1]
	for k, c := range all {
		for _, l := range []load{c.share, c.get, c.part, c.seed} {
			if l.rss > mostRSS {
				t.Errorf("%d MiB: %v; the limit is %d MiB", sizes[k]>>20, l, mostRSS>>20)
			}
		}
		// Three times as much a byte as the smallest, and a second, is linear enough
		// for a machine that does other things meanwhile.
		times := float64(sizes[k]+partSize) / float64(sizes[0]+partSize)
		for _, pair := range [][2]load{{first.share, c.share}, {first.get, c.get}} {
			if most := 3*times*pair[0].cpu.Seconds() + 1; pair[1].cpu.Seconds() > most {
				t.Errorf("%d MiB: %v; the smallest took %v", sizes[k]>>20, pair[1], pair[0])
			}
		}
	}
	// 65,536 chunks are 4 MB of manifest, and some of it is there twice.
	for _, pair := range [][2]load{{first.share, last.share}, {first.part, last.part}, {first.seed, last.seed}} {
		if pair[1].rss > pair[0].rss+rssOfNoise {
			t.Errorf("%v for the largest share, %v for the smallest", pair[1], pair[0])
		}
	}
}

// TestGrowthPeers fetches the same file from more and more peers.
func TestGrowthPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	size, most := int64(128<<20), 6
	if os.Getenv("SHOAL_SOAK") != "" {
		size, most = 1<<30, 64
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	f, err := os.Create(file)
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
	_, ticket, addr, _ := served(t, dir, file)
	one := fetched(t, ticket)
	args := []string{"--peer", addr}
	for range most - 1 {
		_, _, addr, _ := served(t, dir, file)
		args = append(args, "--peer", addr)
	}
	many := fetched(t, ticket, args...)
	t.Logf("%d MiB from one peer: %v; from %d: %v", size>>20, one, most, many)
	if many.rss > mostRSS {
		t.Errorf("%v; the limit is %d MiB", many, mostRSS>>20)
	}
	if limit := 4*one.cpu.Seconds() + 1; many.cpu.Seconds() > limit {
		t.Errorf("%v from %d peers, %v from one", many, most, one)
	}
}
