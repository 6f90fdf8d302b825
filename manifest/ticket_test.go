package manifest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/shoal-p2p/shoal/chunk"
)

var ticketRoot = chunk.Sum([]byte("a share"))

// A goldenTicket is a line of testdata/ticket/golden.txt.
type goldenTicket struct {
	text  string
	addrs []string
}

func goldenTickets(t testing.TB) []goldenTicket {
	t.Helper()
	file, err := os.ReadFile("../testdata/ticket/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []goldenTicket
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			all = append(all, goldenTicket{f[0], f[1:]})
		}
	}
	if len(all) != 4 {
		t.Fatalf("%d golden tickets, want 4", len(all))
	}
	return all
}

func TestTicketGolden(t *testing.T) {
	for _, test := range goldenTickets(t) {
		got := Ticket{ticketRoot, test.addrs}.String()
		if got != test.text {
			t.Errorf("%v gives %s, want %s", test.addrs, got, test.text)
		}
		parsed, err := ParseTicket(test.text)
		if err != nil || parsed.Root != ticketRoot || !slices.Equal(parsed.Addrs, test.addrs) {
			t.Errorf("%s is %v, %v, want %v", test.text, parsed, err, test.addrs)
		}
		if len(got) >= 120 {
			t.Errorf("%d characters, want under 120", len(got))
		}
	}
}

// seal makes a ticket of a payload, with a right checksum.
func seal(payload ...byte) string {
	sum := chunk.Sum(payload)
	return "shoal:" + base58.Encode(append(payload, sum[:4]...))
}

func TestM21Refused(t *testing.T) {
	good := goldenTickets(t)[1].text
	withRoot := func(version byte, addrs ...byte) string {
		return seal(append(append([]byte{version}, ticketRoot[:]...), addrs...)...)
	}
	ninth := byte(0)
	var many []byte
	for range 9 {
		ninth++
		many = append(many, 4, 10, 0, 0, ninth, 0, 80)
	}
	flipped := []byte(good)
	if flipped[20]++; !isBase58(flipped[20]) {
		flipped[20] = '2'
	}
	for _, test := range []struct{ name, in, want string }{
		{"nothing", "", "is empty"},
		{"a line end", "\n", "is empty"},
		{"prefix alone", "shoal:", "nothing behind"},
		{"no prefix", good[6:], `does not begin with "shoal:"`},
		{"other case", "SHOAL:" + good[6:], "does not begin with"},
		{"magnet", "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a", "not a ticket of shoal"},
		{"croc", "1234-alpha-bravo-charlie", "not a ticket of shoal"},
		{"wormhole", "7-crossover-clockwork", "not a ticket of shoal"},
		{"space before", " " + good, "something before"},
		{"text before", "ticket: " + good, "something before"},
		{"quoted", `"` + good + `"`, "something before"},
		{"space behind", good + " ", fmt.Sprintf("white space at character %d", len(good)+1)},
		{"line end inside", good[:40] + "\n" + good[40:], "white space at character 41"},
		{"two line ends", good + "\n\n", "white space"},
		{"tab inside", good[:40] + "\t" + good[40:], "white space"},
		{"two tickets", good + good, "two tickets"},
		{"two tickets, two lines", good + "\n" + good, "two tickets"},
		{"two tickets, a space", good + " " + good, "two tickets"},
		{"zero", good[:10] + "0" + good[11:], "character 11 is none that a ticket has"},
		{"O", good[:10] + "O" + good[11:], "character 11"},
		{"l", good[:10] + "l" + good[11:], "character 11"},
		{"not ASCII", good[:10] + "é" + good[11:], "character 11"},
		{"NUL", good + "\x00", "none that a ticket has"},
		{"mistyped", string(flipped), "checksum is wrong"},
		{"one short", good[:len(good)-1], "checksum is wrong"},
		{"one long", good + "2", "checksum is wrong"},
		{"half", good[:30], "too short"},
		{"leading ones", "shoal:1" + good[6:], "checksum is wrong"},
		{"1 MB", "shoal:" + strings.Repeat("2", 1<<20), "the limit is 3000"},
		{"version 0", withRoot(0), "unknown version: 0"},
		{"version 2", withRoot(2), "unknown version: 2, this program reads 1"},
		{"root of 31 bytes", seal(append([]byte{1}, ticketRoot[:31]...)...), "too short"},
		{"address cut", withRoot(1, 4, 10, 0, 0, 1, 0), "ends within an address"},
		{"address kind", withRoot(1, 9, 10, 0, 0, 1, 0, 80), "unknown kind 9"},
		{"name cut", withRoot(1, 'n', 200, 'a'), "ends within an address"},
		{"name alone", withRoot(1, 'n'), "ends within an address"},
		{"name empty", withRoot(1, 'n', 0, 0, 80), "form that no ticket has"},
		{"name is an IP", withRoot(1, append([]byte{'n', 7}, "1.2.3.4\x00\x50"...)...), "form that no ticket has"},
		{"name with ESC", withRoot(1, append([]byte{'n', 2}, "\x1bx\x00\x50"...)...), "form that no ticket has"},
		{"port 0", withRoot(1, 4, 10, 0, 0, 1, 0, 0), "form that no ticket has"},
		{"mapped IPv4", withRoot(1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1, 0, 80), "form that no ticket has"},
		{"address twice", withRoot(1, 4, 10, 0, 0, 1, 0, 80, 4, 10, 0, 0, 1, 0, 80), "form that no ticket has"},
		{"nine addresses", withRoot(1, many...), "more than 8 addresses"},
	} {
		got, err := ParseTicket(test.in)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want error %q", test.name, err, test.want)
			continue
		}
		if got.Root != (chunk.Hash{}) || got.Addrs != nil {
			t.Errorf("%s: a ticket beside the error", test.name)
		}
		// No part of the ticket that could be used may show up.
		for i := 6; i+8 <= len(good); i++ {
			if strings.Contains(err.Error(), good[i:i+8]) {
				t.Errorf("%s: error %q repeats the ticket", test.name, err)
				break
			}
		}
	}
	if _, err := ParseTicket(withRoot(2)); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: %v is not ErrVersion", err)
	}
	for _, end := range []string{"\n", "\r\n"} {
		if got, err := ParseTicket(good + end); err != nil || got.Root != ticketRoot {
			t.Errorf("line end %q: %v", end, err)
		}
	}
}

func TestTicketAddrs(t *testing.T) {
	for _, test := range []struct {
		in   string
		want string // "" is refused
	}{
		{"192.0.2.1:1", "192.0.2.1:1"},
		{"[2001:DB8::1]:80", "[2001:db8::1]:80"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
		{"[fe80::1%eth0]:80", ""},
		{"Host.Example:80", "Host.Example:80"},
		{"localhost:80", "localhost:80"},
		{"my_host-2.lan:80", "my_host-2.lan:80"},
		{"host.:80", "host.:80"},
		{"bücher.example:80", ""},
		{"host:0", ""},
		{"host:65536", ""},
		{"host:080", ""},
		{"host:+80", ""},
		{"host:http", ""},
		{"host", ""},
		{":80", ""},
		{"", ""},
		{"a b:80", ""},
		{"a..b:80", ""},
		{"1.2.3:80", ""},
		{"1.2.3.4.5:80", ""},
		{"0x7f.0x1:80", ""},
		{"a/b:80", ""},
		{"user@host:80", ""},
		{strings.Repeat("a.", 126) + "b:80", strings.Repeat("a.", 126) + "b:80"},
		{strings.Repeat("a.", 127) + "bb:80", ""},
		{strings.Repeat("a", 64) + ":80", ""},
	} {
		err := CheckAddr(test.in)
		if (err == nil) != (test.want != "") {
			t.Errorf("%q: %v", test.in, err)
		}
		parsed, err := ParseTicket(Ticket{ticketRoot, []string{test.in}}.String())
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if got := strings.Join(parsed.Addrs, " "); got != test.want {
			t.Errorf("%q comes back as %q, want %q", test.in, got, test.want)
		}
	}
	var addrs []string
	for i := range 12 {
		addrs = append(addrs, fmt.Sprintf("10.0.0.%d:80", i/2))
	}
	parsed, err := ParseTicket(Ticket{ticketRoot, addrs}.String())
	if err != nil || len(parsed.Addrs) != 6 {
		t.Errorf("twelve addresses, six of them twice: %v, %v", parsed.Addrs, err)
	}
}

func FuzzParseTicket(f *testing.F) {
	for _, test := range goldenTickets(f) {
		f.Add(test.text)
		f.Add(test.text + "\n")
	}
	f.Add("shoal:")
	f.Add(seal(1, 2, 3))
	f.Fuzz(func(t *testing.T, s string) {
		ticket, err := ParseTicket(s)
		if err != nil {
			return
		}
		if got := ticket.String(); got != strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r") {
			t.Errorf("accepted %q, which encodes as %q", s, got)
		}
		for _, addr := range ticket.Addrs {
			if err := CheckAddr(addr); err != nil {
				t.Error(err)
			}
		}
	})
}

// The checksum hides whatever is behind it from the fuzzer above.
func FuzzTicketPayload(f *testing.F) {
	f.Add([]byte{4, 127, 0, 0, 1, 0, 80})
	f.Add([]byte{6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80})
	f.Add(append([]byte{'n', 4}, "host\x00\x50"...))
	f.Fuzz(func(t *testing.T, addrs []byte) {
		if len(addrs) > 1500 {
			return
		}
		s := seal(append(append([]byte{1}, ticketRoot[:]...), addrs...)...)
		ticket, err := ParseTicket(s)
		if err == nil && ticket.String() != s {
			t.Errorf("accepted %x, which encodes otherwise", addrs)
		}
	})
}
