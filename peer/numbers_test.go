package peer

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/shoal-p2p/shoal/chunk"
)

// oddNumbers are what is no number of a line, wherever one stands.
var oddNumbers = []string{
	"-1", "-0", "+1", "01", "00", "0x10", "1e3", "1.0", "1_000", "NaN", "", " ", strings.Repeat(" ", 1000),
	"9223372036854775808", "18446744073709551615", "18446744073709551616", strings.Repeat("9", 1000),
	"1\t", "\u0661", "1,000", "1-", "-", "0-", "1-0", "0-9223372036854775807",
}

// A number of a line that is none, or is out of its range, is refused by the line
// alone, before anything is done with it.
func TestW04Numbers(t *testing.T) {
	forms := []struct {
		form        string
		least, most int64
		ranges      bool
	}{
		{"have %s", 0, chunk.MaxNum - 1, true},
		{"want %s", 0, chunk.MaxNum - 1, true},
		{"cancel %s", 0, chunk.MaxNum - 1, true},
		{"gone %s", 0, chunk.MaxNum - 1, true},
		{"bits %s AQ", 0, chunk.MaxNum - 8, false},
		{"data %s 0 1", 0, chunk.MaxNum - 1, false},
		{"data 0 %s 1", 0, chunk.MaxSize - 1, false},
		{"data 0 0 %s", 1, MaxSegment, false},
		{"data manifest %s 1", 0, MaxManifestSize - 1, false},
		{"manifest %s", 1, MaxManifestSize, false},
		{"listen %s", 1, math.MaxUint16, false},
		{"ping %s", 0, math.MaxInt64, false},
		{"pong %s", 0, math.MaxInt64, false},
	}
	for _, f := range forms {
		parse := func(n string) error { return new(line).parse([]byte(fmt.Sprintf(f.form, n))) }
		for _, n := range []int64{f.least, f.most} {
			if err := parse(fmt.Sprint(n)); err != nil {
				t.Errorf("%s with %d: %v", f.form, n, err)
			}
		}
		odd := oddNumbers
		if f.most < math.MaxInt64 {
			odd = append([]string{fmt.Sprint(f.most + 1), "9223372036854775807"}, odd...)
		}
		if f.least > 0 {
			odd = append([]string{fmt.Sprint(f.least - 1)}, odd...)
		}
		for _, n := range odd {
			if err := parse(n); !errors.As(err, new(*ProtocolError)) {
				t.Errorf("%s with %.30q: %v", f.form, n, err)
			}
		}
	}
}

// A line with what no line may hold is refused whole, whatever its verb.
func TestW01Bytes(t *testing.T) {
	for _, good := range goodLines {
		for at := range len(good) + 1 {
			for _, b := range []string{"\x00", "\r", "\t", "\x1b", "\x7f", "\x80", "\xff", "\u00e9", "\u202e"} {
				if err := new(line).parse([]byte(good[:at] + b + good[at:])); !errors.As(err, new(*ProtocolError)) {
					t.Fatalf("%q at %d of %q: %v", b, at, good, err)
				}
			}
		}
	}
}

// What other programs send first is no line of this protocol, in one piece or
// byte by byte.
func TestW02OtherProtocols(t *testing.T) {
	for _, in := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x13BitTorrent protocol",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "EHLO example.org\r\n", "\xff\xfb\x01", "\x00", "\n", "HELLO shoal/1.0 x\n", "hello\n", "hello \n",
		"@RSYNCD: 31.0\n", "\ufeffhello shoal/1.0 x\n",
	} {
		a := &admission{lr: newLineReader(iotest.OneByteReader(strings.NewReader(in + strings.Repeat("x", 2000))))}
		if err := a.expect(verbHello); err == nil || a.state != stateHello {
			t.Errorf("%q is taken for a greeting", in)
		}
	}
}

// The length of a manifest is a number before it is a buffer.
func TestM03DeclaredLength(t *testing.T) {
	for _, n := range []string{"67108865", "9223372036854775807", "18446744073709551615"} {
		in := []byte("manifest " + n)
		var l line
		if err := l.parse(in); err == nil {
			t.Errorf("accepted %s", in)
		}
		if most := testing.AllocsPerRun(10, func() { _ = l.parse(in) }); most > 30 {
			t.Errorf("%s: %v allocations", in, most)
		}
	}
}
