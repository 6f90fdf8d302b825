package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// A cgroup bounds the memory of the processes that are started in it, page cache
// and sockets included: one that needs more is killed.
type cgroup struct {
	dir string
	v1  bool
}

var numCgroups atomic.Int64

// newCgroup makes a cgroup of so many bytes. It is removed when the test ends.
func newCgroup(t testing.TB, limit int64) *cgroup {
	t.Helper()
	g := &cgroup{v1: true}
	base := "/sys/fs/cgroup/memory"
	file := "memory.limit_in_bytes"
	if _, err := os.Stat(base); err != nil {
		base, file, g.v1 = "/sys/fs/cgroup", "memory.max", false
		_ = os.WriteFile(base+"/cgroup.subtree_control", []byte("+memory"), 0o644) // what follows tells
	}
	g.dir = filepath.Join(base, fmt.Sprintf("shoal-test-%d-%d", os.Getpid(), numCgroups.Add(1)))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		skip(t, "no cgroup can be made: %v", err)
	}
	t.Cleanup(func() {
		waitUntil(t, func() bool { err := syscall.Rmdir(g.dir); return err == nil || err == syscall.ENOENT })
	})
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
		skip(t, "no limit for the cgroup: %v", err)
	}
	swap := map[bool]string{true: "memory.memsw.limit_in_bytes", false: "memory.swap.max"}[g.v1]
	value := strconv.FormatInt(limit, 10)
	if !g.v1 {
		value = "0"
	}
	_ = os.WriteFile(filepath.Join(g.dir, swap), []byte(value), 0o644) // not every kernel counts swap
	return g
}

// command returns a command that runs shoal in the cgroup.
func (g *cgroup) command(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := exec.LookPath("shoal")
	must(t, err)
	script := `echo $$ > "$0/cgroup.procs" && exec "$@"`
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, g.dir, exe}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, ".home"))
	return cmd
}

// killed returns how many processes it has killed.
func (g *cgroup) killed(t testing.TB) string {
	t.Helper()
	name := map[bool]string{true: "memory.oom_control", false: "memory.events"}[g.v1]
	p, err := os.ReadFile(filepath.Join(g.dir, name))
	must(t, err)
	for l := range strings.Lines(string(p)) {
		if n, ok := strings.CutPrefix(l, "oom_kill "); ok {
			return strings.TrimSpace(n)
		}
	}
	return "?"
}

// No hostile peer, and not all of them together, make a get need 256 MiB.
func TestR01HostileMemory(t *testing.T) {
	t.Parallel()
	type beside struct {
		name string
		with []behaviour
	}
	cases := []beside{{"all", behaviours}}
	if os.Getenv("SHOAL_SOAK") != "" {
		for _, b := range behaviours {
			cases = append(cases, beside{b.name, []behaviour{b}})
		}
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			data, m := shareFile(t, dir, 24<<20)
			g := newCgroup(t, 256<<20)
			args := []string{"get", "-q", "data.shoal", "out", "--peer", serveAt(t, filepath.Join(dir, "data"), 8e6).addr}
			for _, b := range tt.with {
				args = append(args, "--peer", newVillain(t, b, m, data).at)
			}
			cmd := g.command(t, dir, args...)
			msg, err := cmd.CombinedOutput()
			if err != nil || g.killed(t) != "0" {
				t.Fatalf("%v, killed %s: %s", err, g.killed(t), msg)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "out", "data")); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the file is not right: %v", err)
			}
		})
	}
}

// The manifest that takes the most: as long as may be, with as many links as may be,
// of names that do not fold byte by byte. The last one leads out of the share, so it is
// refused when all the others have been looked at.
func TestM08HugeManifestInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("parses 60 MB")
	}
	t.Parallel()
	const num = 1_000_000
	var b strings.Builder
	fmt.Fprintf(&b, "shoal-manifest 1\nname links\ntop dir 0755 1700000000.000000000\ncutter fixed 131072\nsize 0\nentries %d\nchunks 0\n", num)
	for i := range num {
		target := "x"
		if i == num-1 {
			target = "../x"
		}
		fmt.Fprintf(&b, "link %s%07d\n> %s\n", strings.Repeat("Ä", 22), i, target)
	}
	ticket := newTextSeed(t).serve(t, b.String(), nil)
	g := newCgroup(t, 256<<20)
	msg, err := g.command(t, t.TempDir(), "get", "-q", ticket, "out").CombinedOutput()
	if g.killed(t) != "0" || err == nil || !strings.Contains(string(msg), "leads out of the share") {
		t.Errorf("%v, killed %s: %s", err, g.killed(t), msg)
	}
}

// Ordinary work with sixteen peers needs less than 128 MiB, at either end.
func TestR01OrdinaryMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, _ := shareFile(t, dir, 64<<20)
	seeds := newCgroup(t, 128<<20)
	var addrs []string
	for i := range 16 {
		if i > 0 { // one of them is in the cgroup
			addrs = append(addrs, "--peer", serveAt(t, filepath.Join(dir, "data"), 4e6).addr)
			continue
		}
		p := startCommand(t, seeds.command(t, dir, "share", "--json", "--quiet", "--listen", "127.0.0.1:0", "data"), filepath.Join(dir, ".seed"))
		e := p.wait("ticket")
		if e == nil {
			t.Fatal("no ticket")
		}
		ticket, err := manifest.ParseTicket(e["ticket"].(string))
		must(t, err)
		addrs = append(addrs, "--peer", ticket.Addrs[0])
	}
	g := newCgroup(t, 128<<20)
	cmd := g.command(t, dir, append([]string{"get", "-q", "data.shoal", "out"}, addrs...)...)
	msg, err := cmd.CombinedOutput()
	if err != nil || g.killed(t) != "0" || seeds.killed(t) != "0" {
		t.Fatalf("%v, killed %s and %s: %s", err, g.killed(t), seeds.killed(t), msg)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out", "data")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file is not right: %v", err)
	}
}

// A share of 100 GiB in 96 MiB, with sixteen peers: 256 MiB of it come, and the whole
// is refused where the disk has no room, or begins to come.
func TestR03HugeShareInLittleMemory(t *testing.T) {
	t.Parallel()
	m := hugeManifest(t)
	zeros := behaviour{name: "zeros", run: always(func(c *badConn, i int) bool {
		if i < 0 {
			return c.right(i)
		}
		return c.send(i, make([]byte, c.v.m.ChunkLen(i)))
	})}
	for _, tt := range []struct {
		name  string
		args  []string
		codes []int
	}{
		{"a part", []string{"--only", "small"}, []int{0}},
		{"all", nil, []int{130, codeDisk}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "huge.shoal"), []byte(m.Text()), 0o644))
			args := append([]string{"get", "--json", "-q", "huge.shoal", "out"}, tt.args...)
			for range 16 {
				args = append(args, "--peer", newVillain(t, zeros, m, nil).at)
			}
			g := newCgroup(t, 96<<20)
			cmd := g.command(t, dir, args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			p := &process{cmd: cmd, events: make(chan map[string]any, 1000)}
			go p.read(out)
			for told := false; ; {
				e := p.wait("progress")
				if e == nil {
					break // it has ended
				}
				if !told && tt.args == nil && e["done"].(float64) > 256<<20 {
					told = true
					must(t, cmd.Process.Signal(os.Interrupt))
				}
			}
			_ = cmd.Wait()
			code := cmd.ProcessState.ExitCode()
			if g.killed(t) != "0" || !slices.Contains(tt.codes, code) {
				t.Errorf("code %d, killed %s: %s", code, g.killed(t), stderr.String())
			}
		})
	}
}

// hugeManifest returns the manifest of a folder with a file of 100 GiB and one of
// 256 MiB, all zeros, made without reading so many.
func hugeManifest(t testing.TB) *manifest.Manifest {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "zeros")
	must(t, os.Mkdir(dir, 0o755))
	const size = 4 << 20
	for _, name := range []string{"huge", "small"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		must(t, os.Truncate(filepath.Join(dir, name), size))
	}
	m, _, err := manifest.Build(t.Context(), []string{dir}, manifest.BuildOptions{Cutter: "fixed", ChunkSize: size})
	must(t, err)
	hash := fmt.Sprintf("%d %s\n", size, m.ChunkHash(0))
	const huge, small = 100 << 30, 256 << 20
	text := m.Text()[:strings.Index(m.Text(), hash)] + strings.Repeat(hash, (huge+small)/size)
	for old, now := range map[string]string{
		fmt.Sprintf("\nsize %d\n", 2*size): fmt.Sprintf("\nsize %d\n", huge+small),
		"\nchunks 2\n":                     fmt.Sprintf("\nchunks %d\n", (huge+small)/size),
		fmt.Sprintf(" %d huge\n", size):    fmt.Sprintf(" %d huge\n", huge),
		fmt.Sprintf(" %d small\n", size):   fmt.Sprintf(" %d small\n", small),
	} {
		text = strings.Replace(text, old, now, 1)
	}
	m, err = manifest.Parse([]byte(text))
	must(t, err)
	return m
}

// Sixty-four peers that each ask a seed for 32 MiB of large chunks at once and take
// none of it.
func TestR05ManyAskAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := noise(256 << 20)
	must(t, os.WriteFile(filepath.Join(dir, "data"), data, 0o644))
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "data")}, manifest.BuildOptions{Cutter: "fixed", ChunkSize: 16 << 20})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "data.shoal"), []byte(m.Text()), 0o644))

	g := newCgroup(t, 256<<20)
	cmd := g.command(t, dir, "share", "--json", "--quiet", "--cutter", "fixed", "--chunk-size", "16M", "--listen", "127.0.0.1:0", "data")
	p := startCommand(t, cmd, filepath.Join(dir, ".seed"))
	e := p.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	ticket, err := manifest.ParseTicket(e["ticket"].(string))
	must(t, err)
	var asked sync.WaitGroup
	asked.Add(64)
	greedy := behaviour{name: "greedy", run: func(c *badConn) {
		c.sayf("want %d-%d\n", c.v.came.Load()%8, c.v.came.Load()%8+1)
		c.v.once.Do(asked.Done)
		c.hold()
	}}
	for range 64 {
		newVillain(t, greedy, m, data).attack(ticket.Addrs[0], 1)
	}
	asked.Wait()
	time.Sleep(time.Second) // what is sent, until nothing more fits
	if g.killed(t) != "0" {
		t.Errorf("killed %s", g.killed(t))
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
}

// A seed that all of them attack needs less than 256 MiB, and serves.
func TestR01SeedUnderAttack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	g := newCgroup(t, 256<<20)
	p := startCommand(t, g.command(t, dir, "share", "--json", "--quiet", "--no-lan", "--listen", "127.0.0.1:0", "data"), filepath.Join(dir, ".seed"))
	e := p.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	addr := e["listen"].(string)
	var vs []*villain
	for _, b := range behaviours {
		v := newVillain(t, b, m, data)
		v.attack(addr, 1)
		vs = append(vs, v)
	}
	for range 3 {
		before := int64(0)
		for _, v := range vs {
			before += v.came.Load()
		}
		waitUntil(t, func() bool { // they are at it
			now := int64(0)
			for _, v := range vs {
				now += v.came.Load()
			}
			return now >= before+int64(len(vs))
		})
		_, err := getFrom(t, m, data, 2*time.Minute, addr)
		must(t, err)
	}
	if g.killed(t) != "0" {
		t.Errorf("killed %s", g.killed(t))
	}
	must(t, p.cmd.Process.Signal(syscall.SIGINT))
	if p.wait("summary") == nil {
		t.Error("the seed ended without a word")
	}
}

// peakMemory watches a process until it has gone, and then gives the most memory
// that it had resident, in bytes. What wait(2) says of that begins with what the
// process had that forked it.
func peakMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		most := int64(0)
		for ; ; time.Sleep(20 * time.Millisecond) {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, line, ok := strings.Cut(string(status), "VmHWM:")
			if err != nil || !ok { // gone, or not waited for yet
				peak <- most << 10
				return
			}
			var kb int64
			if _, err := fmt.Sscan(line, &kb); err == nil {
				most = max(most, kb)
			}
		}
	}()
	return peak
}
