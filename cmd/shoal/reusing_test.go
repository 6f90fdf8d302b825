package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

// Where there is no terminal, a comparison that takes long says so after two
// seconds and then every ten, and one that is short says nothing.
func TestComparing(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer f.Close()
	g := &getting{a: &app{ui: newUI(f, f)}}
	start := time.Now()
	at := func(s float64, done int64) {
		g.comparing(transfer.Comparing{Done: done, Total: 4e9}, start.Add(time.Duration(s*1e9)))
	}
	at(0, 0)
	at(1, 1e8)
	at(1.9, 19e7)
	if text, err := os.ReadFile(f.Name()); err != nil || len(text) > 0 {
		t.Errorf("%v, %q", err, text)
	}
	if got := g.status(); got != "compared 190 MB of 4.0 GB that is there" {
		t.Errorf("status: %q", got)
	}
	at(2, 2e8)
	at(3, 3e8)
	at(11.9, 1.19e9)
	at(12.1, 1.21e9)
	text, err := os.ReadFile(f.Name())
	must(t, err)
	want := "compared 200 MB of 4.0 GB that is there, 100 MB/s, 38 s left\n" +
		"compared 1.2 GB of 4.0 GB that is there, 100 MB/s, 28 s left\n"
	if string(text) != want {
		t.Errorf("%q, want %q", text, want)
	}
}

// The time of a search for what can be reused is told with it, and does not make
// the peers look slow.
func TestReusingTakesTime(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer f.Close()
	g := &getting{a: &app{ui: newUI(f, f)}, total: 3e9}
	start := time.Now()
	g.looking(start.Add(-16*time.Second), "")
	g.reusing(transfer.Reusing{Read: 1e9, Found: 1e9})
	g.reusing(transfer.Reusing{Read: 3e9, Found: 29e8, Done: true})
	g.summary(&transfer.Result{
		Path: "photos", Size: 3e9, Reused: 29e8, Fetched: 1e8, Elapsed: 18*time.Second + time.Since(start),
		Stats: transfer.Stats{Peers: []transfer.PeerStats{{Addr: "198.51.100.1:7420", Received: 1e8, Used: 1e8, Time: time.Minute}}},
	})
	text, err := os.ReadFile(f.Name())
	must(t, err)
	want := "1.0 GB of what is there can be used, 1.0 GB read so far\n" +
		"2.9 GB of what is there can be used, 3.0 GB read in 16 s\n" +
		"got photos: 100 MB in 2.0 s (50 MB/s), 2.9 GB reused\n" +
		"     100 MB from 198.51.100.1:7420 (direct, 50 MB/s)\n"
	if string(text) != want {
		t.Errorf("%q, want %q", text, want)
	}
}

// What limited a get is what did until all had come, unless the rest took longer.
func TestVerdictOfTheEnd(t *testing.T) {
	now := time.Now()
	g := &getting{a: testApp(), limit: verdict{limit: "peer"}, limited: true}
	for _, c := range []struct {
		end, took time.Duration
		want      string
	}{
		{500 * time.Millisecond, 600 * time.Millisecond, "peer"},
		{2 * time.Second, 10 * time.Second, "peer"},
		{2 * time.Second, 3 * time.Second, "disk"},
	} {
		g.finishing = now.Add(-c.end)
		if v, ok := g.verdict(c.took, now); !ok || v.limit != c.want {
			t.Errorf("%v of %v: %+v, want %s", c.end, c.took, v, c.want)
		}
	}
}
