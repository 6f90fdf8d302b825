package lan

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var testKey = [32]byte{1, 2, 3}

var eth0 = network{
	key: key{index: 2}, name: "eth0",
	own:      []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
}

var eth0v6 = network{
	key: key{index: 2, v6: true}, name: "eth0",
	own:      []netip.Addr{netip.MustParseAddr("fe80::1")},
	prefixes: []netip.Prefix{netip.MustParsePrefix("fe80::/64")},
}

// A table is a node whose messages lie on it, and whose time passes as it is told.
type table struct {
	*node
	now   time.Time
	start time.Time
	sent  []sent
	found []string
}

type sent struct {
	at  time.Duration
	net key
	to  netip.AddrPort
	msg dnsmessage.Message
}

func newTable(t *testing.T, port int, look bool) *table {
	t.Helper()
	now := time.Now()
	w := &table{now: now, start: now}
	c := Config{Key: testKey, Port: port, Debugf: t.Logf}
	if look {
		c.Found = func(addr string) { w.found = append(w.found, addr) }
	}
	w.node = newNode(c, func(k key, to netip.AddrPort, b []byte) {
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Errorf("sent what is no message: %v", err)
		}
		w.sent = append(w.sent, sent{w.now.Sub(w.start), k, to, m})
	})
	return w
}

// run lets time pass.
func (w *table) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		next := w.tick(w.now)
		if next.After(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
	}
}

// take returns what was sent since the last call.
func (w *table) take() []sent {
	s := w.sent
	w.sent = nil
	return s
}

// put gives the node a message that came from an address.
func (w *table) put(from string, n network, b []byte) bool {
	h := heard{from: origin{net: n.key, addr: netip.MustParseAddrPort(from)}}
	if !w.talk.read(b, &h) {
		return false
	}
	w.hear(w.now, h)
	return true
}

func (w *table) answerOf(port int) []byte { return pack(w.talk.answer(port, ttl)) }

// What is announced is the derived name, a port and a version, and nothing else.
func TestAnnouncement(t *testing.T) {
	w := newTable(t, 7420, false)
	w.see(w.now, []network{eth0, eth0v6})
	w.run(20 * time.Second)
	var at []string
	for _, s := range w.take() {
		if s.to.IsValid() {
			t.Errorf("sent to %v", s.to)
		}
		if !s.net.v6 {
			at = append(at, s.at.String())
		}
		name := Name(testKey)
		if len(name) != 32 {
			t.Fatalf("the name is %q", name)
		}
		want := fmt.Sprintf("_shoal._tcp.local. PTR %[1]s._shoal._tcp.local.\n%[1]s._shoal._tcp.local. SRV 0 0 7420 %[1]s.local.\n%[1]s._shoal._tcp.local. TXT v=1\n", name)
		if got := records(s.msg); got != want {
			t.Errorf("sent\n%swant\n%s", got, want)
		}
		if len(s.msg.Questions)+len(s.msg.Authorities)+len(s.msg.Additionals) > 0 || s.msg.ID != 0 {
			t.Errorf("there is more in it: %v", s.msg)
		}
		b, err := s.msg.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), string(testKey[:])) || strings.Contains(string(b), hex.EncodeToString(testKey[:8])) {
			t.Error("the key is in it")
		}
	}
	if want := []string{"0s", "1s", "3s", "7s"}; !slices.Equal(at, want) {
		t.Errorf("announced at %v, want %v", at, want)
	}
	w.leave()
	for _, s := range w.take() {
		if s.msg.Answers[1].Header.TTL != 0 {
			t.Errorf("said good-bye with %v", s.msg)
		}
	}
}

func records(m dnsmessage.Message) string {
	var b strings.Builder
	for _, r := range m.Answers {
		switch x := r.Body.(type) {
		case *dnsmessage.PTRResource:
			fmt.Fprintf(&b, "%v PTR %v\n", r.Header.Name, x.PTR)
		case *dnsmessage.SRVResource:
			fmt.Fprintf(&b, "%v SRV %d %d %d %v\n", r.Header.Name, x.Priority, x.Weight, x.Port, x.Target)
		case *dnsmessage.TXTResource:
			fmt.Fprintf(&b, "%v TXT %s\n", r.Header.Name, strings.Join(x.TXT, " "))
		default:
			fmt.Fprintf(&b, "%v %v\n", r.Header.Name, r.Header.Type)
		}
	}
	return b.String()
}

// Two names of one key have nothing in common, and neither tells the key.
func TestName(t *testing.T) {
	a, b := Name([32]byte{}), Name([32]byte{1})
	if a == b || a != strings.ToLower(a) || len(a) != 32 {
		t.Errorf("%q and %q", a, b)
	}
}

// Whoever looks asks at once, then less and less often, and on a network that comes
// later, or has another address, at once again.
func TestQuestions(t *testing.T) {
	w := newTable(t, 0, true)
	w.see(w.now, []network{eth0})
	w.run(2 * time.Minute)
	var at []string
	for _, s := range w.take() {
		if len(s.msg.Answers) != 0 || len(s.msg.Questions) != 1 || s.msg.Questions[0].Name.String() != Name(testKey)+"._shoal._tcp.local." {
			t.Errorf("asked %v", s.msg)
		}
		at = append(at, s.at.String())
	}
	if got, want := strings.Join(at, " "), "0s 1s 3s 7s 15s 31s 1m1s 1m31s"; got != want {
		t.Errorf("asked at %s, want %s", got, want)
	}
	wlan := eth0
	wlan.index, wlan.name = 3, "wlan0"
	w.see(w.now, []network{eth0, wlan})
	w.run(time.Millisecond)
	if s := w.take(); len(s) != 1 || s[0].net.index != 3 {
		t.Errorf("on a new network it sent %v", s)
	}
	moved := eth0
	moved.own = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	w.see(w.now, []network{moved})
	w.run(time.Millisecond)
	if s := w.take(); len(s) != 1 || s[0].net.index != 2 {
		t.Errorf("with another address it sent %v", s)
	}
}

func TestAnswers(t *testing.T) {
	q := func(typ dnsmessage.Type, name string, class dnsmessage.Class) []byte {
		return pack(dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: class}}})
	}
	inst := Name(testKey) + "._shoal._tcp.local."
	for _, tt := range []struct {
		name, from string
		msg        []byte
		want       string // "", "all", or who gets the answer
	}{
		{"who has it", "192.0.2.9:5353", q(dnsmessage.TypeSRV, inst, 1), "all"},
		{"in capitals", "192.0.2.9:5353", q(dnsmessage.TypeSRV, strings.ToUpper(inst), 1), "all"},
		{"any record", "192.0.2.9:5353", q(dnsmessage.TypeALL, inst, 255), "all"},
		{"what shares are there", "192.0.2.9:5353", q(dnsmessage.TypePTR, "_shoal._tcp.local.", 1), "all"},
		{"to me alone", "192.0.2.9:5353", q(dnsmessage.TypeSRV, inst, 1|topBit), "192.0.2.9:5353"},
		{"a simple asker", "192.0.2.9:40000", q(dnsmessage.TypeSRV, inst, 1), "192.0.2.9:40000"},
		{"from elsewhere", "198.51.100.9:5353", q(dnsmessage.TypeSRV, inst, 1), ""},
		{"from elsewhere, alone", "198.51.100.9:40000", q(dnsmessage.TypeSRV, inst, 1), ""},
		{"another share", "192.0.2.9:5353", q(dnsmessage.TypeSRV, Name([32]byte{9})+"._shoal._tcp.local.", 1), ""},
		{"another record", "192.0.2.9:5353", q(dnsmessage.TypeA, inst, 1), ""},
		{"another class", "192.0.2.9:5353", q(dnsmessage.TypeSRV, inst, 3), ""},
		{"nothing", "192.0.2.9:5353", nil, ""},
		{"noise", "192.0.2.9:5353", []byte(strings.Repeat("\xc0\x0c", 700)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTable(t, 7420, false)
			w.see(w.now, []network{eth0})
			w.run(10 * time.Second)
			w.take()
			w.put(tt.from, eth0, tt.msg)
			w.run(200 * time.Millisecond)
			got := ""
			for _, s := range w.take() {
				got += "all"
				if s.to.IsValid() {
					got = s.to.String()
					if s.to.Port() != 5353 && (s.msg.ID != 7 || len(s.msg.Questions) != 1 || s.msg.Answers[0].Header.TTL > 10) {
						t.Errorf("a simple asker got %v", s.msg)
					}
				}
			}
			if got != tt.want {
				t.Errorf("answered %q, want %q", got, tt.want)
			}
		})
	}
}

// However many ask, all are answered once a second, and few are answered alone.
func TestAnswerRate(t *testing.T) {
	w := newTable(t, 7420, false)
	w.see(w.now, []network{eth0})
	w.run(10 * time.Second)
	w.take()
	w.start = w.now
	ask := w.talk.question(1)
	for range 10_000 {
		w.put("192.0.2.9:5353", eth0, ask)
		w.put("192.0.2.9:40000", eth0, ask)
		w.run(time.Millisecond)
	}
	all, alone, last := 0, 0, -time.Hour
	for _, s := range w.take() {
		if s.to.IsValid() {
			alone++
			continue
		}
		all++
		if s.at-last < time.Second {
			t.Errorf("answered at %v and at %v", last, s.at)
		}
		last = s.at
	}
	if all < 8 || all > 11 || alone > 115 {
		t.Errorf("%d and %d answers in 10 s", all, alone)
	}
}

func TestFound(t *testing.T) {
	w := newTable(t, 7420, true)
	w.see(w.now, []network{eth0, eth0v6})
	w.run(50 * time.Millisecond)
	other := pack(newTalk(Name([32]byte{9})).answer(7000, ttl))
	newer := w.talk.answer(7001, ttl)
	newer.Answers[2].Body = &dnsmessage.TXTResource{TXT: []string{"v=2"}}
	for _, tt := range []struct {
		from string
		net  network
		msg  []byte
	}{
		{"192.0.2.9:5353", eth0, w.answerOf(7420)},
		{"192.0.2.9:5353", eth0, w.answerOf(7420)},        // again
		{"[fe80::9%eth0]:5353", eth0v6, w.answerOf(7420)}, // its other address
		{"192.0.2.1:5353", eth0, w.answerOf(7420)},        // ourselves
		{"192.0.2.1:5353", eth0, w.answerOf(7421)},        // another one on this machine
		{"198.51.100.9:5353", eth0, w.answerOf(7420)},     // it cannot be from there
		{"192.0.2.10:5353", eth0, other},                  // another share
		{"192.0.2.10:5353", eth0, pack(newer)},            // another version
		{"192.0.2.10:5353", eth0, w.answerOf(0)},          // no port
		{"192.0.2.11:40000", eth0, w.talk.reply(7420, &heard{id: 3, asked: dnsmessage.Question{Name: w.talk.instance}})},
	} {
		w.put(tt.from, tt.net, tt.msg)
	}
	w.put("[fe80::12%eth0]:5353", eth0v6, w.answerOf(7422))
	w.run(time.Second)
	slices.Sort(w.found)
	if got, want := strings.Join(w.found, " "), "192.0.2.11:7420 192.0.2.1:7421 192.0.2.9:7420 [fe80::12%eth0]:7422"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
	w.run(waitTwin)
	if got := w.found[len(w.found)-1]; got != "[fe80::9%eth0]:7420" {
		t.Errorf("at last found %s", got)
	}

	// It is told again, but not all the time.
	w.found = nil
	for range 25 {
		w.put("192.0.2.9:5353", eth0, w.answerOf(7420))
		w.run(time.Second)
	}
	if len(w.found) != 2 {
		t.Errorf("told %d times in 25 s", len(w.found))
	}

	// Who has only just come calls us: it has some seconds for that.
	w.run(10 * time.Second)
	began := w.now
	w.found = nil
	w.put("192.0.2.20:5353", eth0, w.answerOf(7420))
	for len(w.found) == 0 && w.now.Sub(began) < time.Minute {
		w.run(100 * time.Millisecond)
	}
	if d := w.now.Sub(began); d < time.Second || d > 3*time.Second {
		t.Errorf("an address that came by itself was told after %v", d)
	}

	// Good-bye.
	w.run(10 * time.Second)
	w.found = nil
	w.put("192.0.2.21:5353", eth0, w.answerOf(7420))
	w.put("192.0.2.21:5353", eth0, pack(w.talk.answer(7420, 0)))
	w.run(5 * time.Second)
	if len(w.found) != 0 {
		t.Errorf("found %v, which has left", w.found)
	}
}

// A flood of forged answers has its bounds: 10,000 a second for five seconds, from
// all addresses of the network and with all ports.
func TestFlood(t *testing.T) {
	w := newTable(t, 7420, true)
	w.see(w.now, []network{eth0})
	k, most := 0, 0
	for range 500 {
		for range 100 {
			k++
			w.put(fmt.Sprintf("192.0.2.%d:5353", k%250+2), eth0, w.answerOf(1+k%65000))
		}
		w.run(10 * time.Millisecond)
		most = max(most, len(w.node.found[0].at))
	}
	if most > maxFound {
		t.Errorf("%d addresses are remembered", most)
	}
	if n := len(w.found); n > tellBurst+tellRate*5+5 {
		t.Errorf("%d addresses were told in 5 s", n)
	}
	// A host that tells the truth is found soon although 249 others lie.
	w.found = nil
	began := w.now
	for !slices.Contains(w.found, "192.0.2.254:7420") && w.now.Sub(began) < time.Minute {
		for range 100 {
			k++
			w.put(fmt.Sprintf("192.0.2.%d:5353", k%250+2), eth0, w.answerOf(1+k%65000))
		}
		w.put("192.0.2.254:5353", eth0, w.answerOf(7420))
		w.run(10 * time.Millisecond)
	}
	if d := w.now.Sub(began); d > 40*time.Second {
		t.Errorf("the right one was told after %v", d)
	}
	// It is forgotten, and then others are found.
	w.run(2 * time.Minute)
	w.found = nil
	w.put("192.0.2.9:5353", eth0, w.answerOf(7420))
	w.run(5 * time.Second)
	if len(w.found) != 1 {
		t.Errorf("after the flood: %v", w.found)
	}
}

// Reading a message that is not for us costs nothing that would have to be cleaned up.
func TestReadAllocates(t *testing.T) {
	k := newTalk(Name(testKey))
	for _, b := range [][]byte{k.question(1), pack(newTalk(Name([32]byte{9})).answer(7000, ttl))} {
		if n := testing.AllocsPerRun(100, func() { var h heard; k.read(b, &h) }); n > 0 {
			t.Errorf("%v allocations for %q", n, b)
		}
	}
}

// We may listen at one address only; then nobody else is promised anything.
func TestAnnouncedOn(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0": "v4", "::": "v4 v6", "192.0.2.1": "v4", "192.0.2.2": "", "fe80::1": "v6", "2001:db8::1": "", "": "v4 v6",
	} {
		w := newTable(t, 7420, false)
		if addr != "" {
			w.c.Addr = netip.MustParseAddr(addr)
		}
		var got []string
		if w.announcedOn(eth0) {
			got = append(got, "v4")
		}
		if w.announcedOn(eth0v6) {
			got = append(got, "v6")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("listening at %q: announced on %v, want %q", addr, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	k := newTalk(Name(testKey))
	f.Add(k.question(1))
	f.Add(pack(k.answer(7420, ttl)))
	f.Add(k.reply(7420, &heard{id: 3, asked: dnsmessage.Question{Name: k.instance, Type: dnsmessage.TypeSRV, Class: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h heard
		if k.read(b, &h) && !h.asks && (h.port <= 0 || h.port > 65535) {
			t.Errorf("port %d", h.port)
		}
	})
}
