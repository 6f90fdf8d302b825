package main

import (
	"bufio"
	"image"
	"image/color"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

// What is drawn on a dark terminal is a QR code that another program reads.
func TestQR(t *testing.T) {
	ticket := manifest.Ticket{Root: chunk.Sum([]byte("x")), Addrs: []string{"192.168.100.200:7420", "[2001:db8:1234:5678:9abc:def0:1234:5678]:7420"}}.String()
	text := qrText(ticket)
	bmp, err := gozxing.NewBinaryBitmapFromImage(drawn(text))
	must(t, err)
	res, err := qrcode.NewQRCodeReader().Decode(bmp, nil)
	if err != nil || res.GetText() != ticket {
		t.Errorf("%v, %v", err, res)
	}
	for line := range strings.Lines(text) {
		if s := strings.TrimSuffix(line, "\n"); escape(s) != s || len([]rune(s)) > 80 {
			t.Errorf("a line of it: %q", s)
		}
	}
}

// drawn returns an image of what a dark terminal shows of half blocks.
func drawn(text string) image.Image {
	const px = 4
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	img := image.NewGray(image.Rect(0, 0, px*(len([]rune(lines[0]))+8), px*(2*len(lines)+8)))
	set := func(x, y int, ink bool) {
		c := color.Gray{}
		if ink {
			c.Y = 255
		}
		for i := range px * px {
			img.Set(px*x+i%px, px*y+i/px, c)
		}
	}
	for y := range 2*len(lines) + 8 {
		for x := range len([]rune(lines[0])) + 8 {
			set(x, y, true) // the quiet zone may well be larger
		}
	}
	for y, line := range lines {
		for x, r := range []rune(line) {
			set(x+4, 2*y+4, r == '▀' || r == '█')
			set(x+4, 2*y+5, r == '▄' || r == '█')
		}
	}
	return img
}

// While a tree is listed, which may take long, there is a sign of life also where
// there is no terminal.
func TestHashingIsNotSilent(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	a := &app{ui: newUI(w, w)}
	began := time.Now()
	h := a.newHashing()
	line, err := bufio.NewReader(r).ReadString('\n')
	must(t, err)
	t.Logf("after %v: %s", time.Since(began).Round(time.Millisecond), line)
	if line != "looking what there is to hash\n" {
		t.Errorf("it said %q", line)
	}
	h.end()
	must(t, w.Close())
}

func TestReceivers(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	x := &receivers{a: &app{ui: newUI(w, w)}, size: 1000, at: map[[32]byte]*taker{}}
	now := time.Now()
	x.last = now
	one := transfer.PeerStats{ID: [32]byte{1}, Addr: "198.51.100.1:5", Lines: 1}
	two := transfer.PeerStats{ID: [32]byte{2}, Addr: "198.51.100.2:5", Lines: 1, Received: 7}
	look := func(ps ...transfer.PeerStats) string {
		now = now.Add(time.Second)
		x.look(now, transfer.Stats{Peers: ps})
		return x.text()
	}
	if got := look(one, two); got != "nobody has fetched anything yet" {
		t.Error(got)
	}
	one.Sent = 300
	if got := look(one, two); got != "1 receiver, sent 0.30 × its size, 198.51.100.1:5 30 % 100 B/s" {
		t.Error(got)
	}
	one.Sent, two.Sent = 600, 1000
	if got := look(one, two); got != "2 receivers, sent 1.60 × its size, 198.51.100.2:5 100 % 333 B/s, 198.51.100.1:5 60 % 166 B/s" {
		t.Error(got)
	}
	two.Lines = 0
	look(one, two)
	look(one) // it is forgotten
	one.Lines = 0
	look(one)
	if got := sentSummary(1000, transfer.Stats{Sent: 1600, Peers: []transfer.PeerStats{one, two}}); got != "ended; sent 1.60 × its size to 2 receivers (1.6 kB)" {
		t.Error(got)
	}
	if got := sentSummary(0, transfer.Stats{}); got != "ended; nobody fetched anything" {
		t.Error(got)
	}
	must(t, w.Close())
	var said []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		said = append(said, lines.Text())
	}
	want := []string{
		"198.51.100.1:5 fetches (direct)", "198.51.100.2:5 fetches (direct)",
		"198.51.100.2:5 has ended: sent 1.0 kB to it, 100 % (1.0 kB/s)", "198.51.100.1:5 has ended: sent 600 B to it, 60 % (150 B/s)",
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

// The port of an address that is advertised without one is the port that is
// listened at, whichever the system chose.
func TestAdvertiseWithoutPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "data")
	must(t, os.WriteFile(file, noise(1000), 0o644))
	e := start(t, filepath.Join(dir, ".home"), "share", "--json", "-q", "--no-lan", "--listen", "127.0.0.1:0", "--advertise", "203.0.113.5", "--advertise", "far.example:7000", file).wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	ticket, err := manifest.ParseTicket(e["ticket"].(string))
	must(t, err)
	_, port, err := net.SplitHostPort(e["listen"].(string))
	must(t, err)
	if want := []string{"203.0.113.5:" + port, "far.example:7000"}; !slices.Equal(ticket.Addrs, want) {
		t.Errorf("the ticket has %q, want %q", ticket.Addrs, want)
	}
	for _, bad := range []string{"0.0.0.0:7420", "[::]:7420", "::", "192.0.2.1:0"} {
		code, msg := shoal(t, dir, "share", "data", "--advertise", bad)
		if code != codeUsage || strings.Count(msg, "\n") != 1 || !strings.HasPrefix(msg, "shoal: --advertise ") || !strings.Contains(msg, bad) {
			t.Errorf("--advertise %s: code %d, %q", bad, code, msg)
		}
	}
}
