package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/transfer"
)

func TestJudge(t *testing.T) {
	const sec = time.Second
	now := time.Now()
	snap := func(at time.Duration, received int64, write, flush, cpu time.Duration, peers ...transfer.PeerNow) sample {
		return sample{transfer.Snapshot{At: now.Add(at), Received: received, Wanting: true, Workers: 2, Write: write, Flush: flush, Peers: peers}, cpu}
	}
	peer := func(addr string, received int64) transfer.PeerNow {
		return transfer.PeerNow{PeerStats: transfer.PeerStats{ID: chunk.Sum([]byte(addr)), Addr: addr, Lines: 1, Received: received}, InFlight: 1}
	}
	a, b := peer("a:1", 4e6), peer("b:1", 4e6)
	silent, few := peer("a:1", 0), peer("b:1", 1e5)
	idle := silent
	idle.InFlight = 0
	two := a
	two.Lines = 2
	stick, web := peer("/media/stick", 8e6), peer("https://host/x", 8e6)
	stick.Source, web.Source = true, true
	for _, c := range []struct {
		name  string
		s     sample
		down  int64
		limit string
		text  string
	}{
		{"disk", snap(2*sec, 8e6, 3*sec, sec, 0, a), 0, "disk", "written to 75 %"},
		{"flushes", snap(2*sec, 8e6, sec, 2*sec, 0, a), 0, "disk", "flushed 100 %"},
		{"cpu", snap(2*sec, 8e6, 0, 0, 4*sec, a, b), 0, "cpu", "busy 100 %"},
		{"limit", snap(2*sec, 2e6, 0, 0, 0, a, b), 1e6, "limit", "--limit-down 1.0 MB/s"},
		{"limit that is far", snap(2*sec, 2e6, 0, 0, 0, a, b), 1e8, "line", "2 peers"},
		{"one peer", snap(2*sec, 8e6, 0, 0, 0, a), 0, "peer", "a:1, or the line to it: it is the only one"},
		{"one folder", snap(2*sec, 8e6, 0, 0, 0, stick), 0, "peer", "by /media/stick: it is the only source"},
		{"one web server", snap(2*sec, 8e6, 0, 0, 0, web), 0, "peer", "https://host/x, or the line to it: it is the only one"},
		{"a folder and a peer", snap(2*sec, 8e6, 0, 0, 0, stick, few), 0, "peer", "by /media/stick: 98 % came from it"},
		{"two connections to it", snap(2*sec, 8e6, 0, 0, 0, two), 0, "peer", "a:1, or the line to it: it is the only one"},
		{"one gives little", snap(2*sec, 8e6, 0, 0, 0, few, a), 0, "peer", "a:1, or the line to it: 97 % came from it"},
		{"one gives nothing", snap(2*sec, 8e6, 0, 0, 0, silent, b), 0, "peer", "b:1, or the line to it: 100 % came from it"},
		{"silent peer", snap(2*sec, 0, 0, 0, 0, silent), 0, "peer", "send nothing"},
		{"peers without", snap(2*sec, 0, 0, 0, 0, idle), 0, "nobody", "nothing that is missing"},
		{"nobody", snap(2*sec, 0, 0, 0, 0), 0, "nobody", "no peer"},
		{"no time", snap(0, 0, 0, 0, 0), 0, "nothing", "yet"},
	} {
		if v := judge(snap(0, 0, 0, 0, 0), c.s, 0, c.down, 2); v.limit != c.limit || !strings.Contains(v.text, c.text) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	// What a peer gave before says nothing of now, and one that has gone limits nothing more.
	before := snap(0, 8e6, 0, 0, 0, a, b)
	gone := a
	gone.Lines, gone.InFlight = 0, 0
	more := b
	more.Received += 1e6
	if v := judge(before, snap(2*sec, 9e6, 0, 0, 0, gone, more), 0, 0, 2); v.limit != "peer" || !strings.HasPrefix(v.text, "limited by b:1, or the line to it: it is the only one") {
		t.Errorf("after a has gone: %+v", v)
	}
	if v := judge(before, snap(2*sec, 8e6, 0, 0, 0, gone), 0, 0, 2); v.limit != "nobody" {
		t.Errorf("after all have gone: %+v", v)
	}
	serving := sample{transfer.Snapshot{At: now.Add(sec), Sent: 1e6, Peers: []transfer.PeerNow{a}}, 0}
	if v := judge(sample{transfer.Snapshot{At: now}, 0}, serving, 1e6, 0, 2); v.limit != "limit" || v.rate != 1e6 {
		t.Errorf("serving: %+v", v)
	}
}

// What limited a whole get is told by who gave, and not by who is there at its end.
func TestJudgeWholeGet(t *testing.T) {
	now := time.Now()
	peer := func(addr string, received int64, lines int) transfer.PeerNow {
		return transfer.PeerNow{PeerStats: transfer.PeerStats{ID: chunk.Sum([]byte(addr)), Addr: addr, Lines: lines, Received: received}}
	}
	for _, c := range []struct {
		name  string
		peers []transfer.PeerNow
		limit string
		text  string
	}{
		{"one has gone that gave most", []transfer.PeerNow{peer("a:1", 393e3, 1), peer("b:1", 80e6, 0)}, "peer", "limited by b:1, or the line to it: 99 % came from it"},
		{"two of three have gone", []transfer.PeerNow{peer("a:1", 32e6, 0), peer("b:1", 28e6, 1), peer("c:1", 20e6, 0)}, "line", "limited by the line here, or by the 3 peers together"},
		{"the only one has gone", []transfer.PeerNow{peer("a:1", 80e6, 0)}, "peer", "limited by a:1, or the line to it: it is the only one"},
		{"one that stayed has only taken", []transfer.PeerNow{peer("a:1", 0, 1), peer("b:1", 80e6, 0)}, "peer", "limited by b:1, or the line to it: 100 % came from it"},
		{"nobody gave", []transfer.PeerNow{peer("a:1", 0, 0)}, "nobody", "no peer is connected"},
	} {
		end := sample{transfer.Snapshot{At: now.Add(10 * time.Second), Workers: 2, Peers: c.peers}, 0}
		for _, p := range c.peers {
			end.Received += p.Received
		}
		if v := judgeGet(sample{transfer.Snapshot{At: now}, 0}, end, 0, 2, true); v.limit != c.limit || v.text != c.text {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

func TestPathTo(t *testing.T) {
	local := []net.Addr{&net.IPNet{IP: net.IPv4(192, 168, 1, 5), Mask: net.CIDRMask(24, 32)}}
	for _, c := range []struct {
		peer transfer.PeerNow
		want string
	}{
		{transfer.PeerNow{PeerStats: transfer.PeerStats{Addr: "192.168.1.9:7420"}, Dialled: true}, "LAN"},
		{transfer.PeerNow{PeerStats: transfer.PeerStats{Addr: "192.168.1.9:40112"}}, "LAN, it called us"},
		{transfer.PeerNow{PeerStats: transfer.PeerStats{Addr: "198.51.100.1:7420"}, Dialled: true}, "direct"},
		{transfer.PeerNow{PeerStats: transfer.PeerStats{Addr: "127.0.0.1:7420"}, Dialled: true}, "this machine"},
		{transfer.PeerNow{PeerStats: transfer.PeerStats{Addr: "https://host/photos", Source: true}}, "source"},
	} {
		if got := pathTo(c.peer, local); got != c.want {
			t.Errorf("%s is reached by %q, want %q", c.peer.Addr, got, c.want)
		}
	}
}

// The rate of those who have gone is not told beside "nobody is connected".
func TestWhyWithoutPeers(t *testing.T) {
	var b strings.Builder
	(&answer{PID: 1, Verb: "share", Name: "photos", Rate: 6e6, Text: "nobody is connected"}).print(&b)
	if want := "share of \"photos\" (process 1): nobody is connected\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// A get and a share that run are asked, and say what limits them.
func TestWhy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, m := shareFile(t, dir, 8<<20)
	addr := (&fakeSeed{m: m, data: data, chunks: m.NumChunks()}).listen(t)
	p := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", filepath.Join(dir, "data.shoal"), filepath.Join(dir, "out"), "--peer", addr, "--limit-down", "200K")
	for e := p.wait("progress"); e != nil && e["done"].(float64) == 0; e = p.wait("progress") {
	}
	if got := output(t, dir, "why"); !strings.Contains(got, fmt.Sprintf(`get of "data" (process %d), `, p.cmd.Process.Pid)) || !strings.Contains(got, "\n  "+addr+"  this machine, round trip ") {
		t.Errorf("why: %q", got)
	}
	var w answer
	must(t, json.Unmarshal([]byte(output(t, dir, "why", strconv.Itoa(p.cmd.Process.Pid), "--json")), &w))
	if w.Place != filepath.Join(dir, "out", "data") || len(w.Peers) == 0 || w.Total != int64(len(data)) {
		t.Errorf("why PID: %+v", w)
	}
	for end := time.Now().Add(time.Minute); w.Limit != "limit" && time.Now().Before(end); {
		must(t, json.Unmarshal([]byte(output(t, dir, "why", "out/data", "--json")), &w))
	}
	if len(w.Peers) != 1 || math.Abs(w.Peers[0].Rate-w.Rate) > 1 {
		t.Errorf("from one peer come %.0f bytes/s: %+v", w.Rate, w.Peers)
	}
	if w.Limit != "limit" || !strings.Contains(w.Text, "--limit-down") {
		t.Errorf("it never says that its limit is the limit: %+v", w)
	}
	if code, msg := shoal(t, dir, "why", "elsewhere"); code != codeOther || !strings.Contains(msg, `runs at "elsewhere"`) {
		t.Errorf("another place: code %d, %s", code, msg)
	}
	socket := filepath.Join(dir, ".home", "run", fmt.Sprint(p.cmd.Process.Pid)+".sock")
	if fi, err := os.Lstat(socket); err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", fi, err)
	}
	must(t, p.cmd.Process.Kill())
	for range p.events { // until it is gone
	}
	_ = p.cmd.Wait()
	if code, _ := shoal(t, dir, "why"); code != codeOther {
		t.Errorf("when nothing runs: code %d", code)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket of a process that was killed is left")
	}
}

// Of two that gave alike one goes before the end: the other one is not what had
// limited the get.
func TestLimitOfAWholeGet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shareFile(t, dir, 8<<20)
	share := func(home string) (p *process, ticket, addr string) {
		p = start(t, filepath.Join(dir, home), "share", "--json", "--quiet", "--no-lan", "--listen", "127.0.0.1:0", "--limit-up", "2M", filepath.Join(dir, "data"))
		e := p.wait("ticket")
		ticket, _ = e["ticket"].(string)
		addr, _ = e["listen"].(string)
		return p, ticket, addr
	}
	first, ticket, _ := share(".first")
	_, _, addr := share(".second")
	g := start(t, filepath.Join(dir, ".home"), "get", "--json", "--quiet", "--no-lan", "--peer", addr, ticket, filepath.Join(dir, "out"))
	for e := g.wait("progress"); e != nil && e["done"].(float64) < 4<<20; e = g.wait("progress") {
	}
	must(t, first.cmd.Process.Kill())
	e := g.wait("finished")
	if limit := e["limit"]; limit == nil || limit == "peer" || limit == "nobody" || limit == "" {
		t.Errorf("limited by %v: %v", limit, e)
	}
	peers, _ := e["peers"].([]any)
	for _, p := range peers {
		if p.(map[string]any)["used"].(float64) < 1<<20 {
			t.Errorf("it gave too little for this test: %v", p)
		}
	}
	if len(peers) != 2 {
		t.Errorf("%d peers", len(peers))
	}
}

// Sockets that do not answer cost two seconds together; what is no socket of ours
// is neither opened nor removed.
func TestAskOnlyOurSockets(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	must(t, os.Mkdir(dir, 0o700))
	for i := range 20 { // they take a connection, and say nothing
		l, err := net.Listen("unix", filepath.Join(dir, fmt.Sprint(1000+i)+socketSuffix))
		must(t, err)
		defer l.Close()
	}
	must(t, os.WriteFile(filepath.Join(dir, "7.sock"), []byte("mine"), 0o600))
	must(t, os.Symlink("1000.sock", filepath.Join(dir, "8.sock")))
	l, err := net.Listen("unix", filepath.Join(dir, "9.sock"))
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	begun := time.Now()
	if got := askRunning(dir, 0); len(got) != 0 {
		t.Errorf("somebody answered: %v", got)
	}
	if d := time.Since(begun); d > 10*askTime {
		t.Errorf("it took %v", d) // one after the other would be 40 s
	}
	for _, name := range []string{"7.sock", "8.sock", "1000.sock"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "9.sock")); err == nil {
		t.Error("a stale socket is left")
	}

	open := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(open, 0o777))
	must(t, os.Chmod(open, 0o777))
	if err := ours(open, os.ModeDir, 0o077); err == nil {
		t.Error("a folder that is open to others is used")
	}
}
