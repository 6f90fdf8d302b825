package peer

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/shoal-p2p/shoal/chunk"
)

var (
	hex0  = strings.Repeat("0", 64)
	hexAF = strings.Repeat("af", 32)
)

// goodLines are accepted, and each comes out again as it went in.
var goodLines = []string{
	"hello shoal/1.0 shoal/0.1.0",
	"hello shoal/1.999 some other program (test)",
	"hello shoal/2.0 x",
	"hello gopher/1 x",
	"hello shoal/1.0 " + strings.Repeat("a", maxAgent),
	"join " + hex0 + " " + hexAF,
	"have all",
	"have none",
	"have 0",
	"have 0-99 105 200-1048575",
	"bits 0 AQ",
	"bits 8 _w",
	"bits 1048568 gA",
	"want manifest",
	"want 17",
	"want 3-5 7",
	"cancel 3-5 7",
	"gone 1048575",
	"manifest 1",
	"manifest 67108864",
	"data 0 0 1",
	"data 1048575 16515072 262144",
	"data manifest 66846720 262144",
	"peer 192.0.2.1:7420",
	"peer 192.0.2.1:1 [2001:db8::1]:65535 127.0.0.1:80",
	"listen 1",
	"listen 65535",
	"ping 0",
	"pong 9223372036854775807",
	"error share no such share",
	"error internal",
	"error a-b x  y",
	"error " + strings.Repeat("c", maxCode) + " " + strings.Repeat("t", maxErrorText),
	"bye",
	"newverb of a later version",
	"x",
	strings.Repeat("v", maxVerb) + " a  b ",
}

// badLines are refused.
var badLines = []struct{ name, line, text string }{
	{"empty", "", "no line begins with"},
	{"space first", " bye", "no line begins with"},
	{"upper case", "BYE", "no line begins with"},
	{"digit in the verb", "have2 all", "no line begins with"},
	{"verb too long", strings.Repeat("v", maxVerb+1), "no line begins with"},
	{"http", "GET / HTTP/1.1", "no line begins with"},
	{"carriage return", "bye\r", "byte 0x0d"},
	{"NUL", "ping \x00", "byte 0x00"},
	{"tab", "ping\t1", "byte 0x09"},
	{"escape", "error x \x1b[2J", "byte 0x1b"},
	{"DEL", "error x \x7f", "byte 0x7f"},
	{"not ASCII", "error x \u00e4", "byte 0xc3"},
	{"space at the end", "ping ", "ends in a space"},
	{"space after the number", "ping 1 ", "is not a number"},
	{"two spaces", "ping  1", "is not a number"},
	{"hello without agent", "hello shoal/1.0", "agent"},
	{"hello, agent of spaces", "hello shoal/1.0  ", "agent"},
	{"hello, agent too long", "hello shoal/1.0 " + strings.Repeat("a", maxAgent+1), "agent"},
	{"hello, version too long", "hello shoal/1.00000000000 a", "version"},
	{"join, short", "join " + hex0 + " " + hexAF[1:], "proof"},
	{"join, upper case", "join " + hex0 + " " + strings.ToUpper(hexAF), "proof"},
	{"join, no hex", "join " + hex0 + " " + strings.Repeat("g", 64), "proof"},
	{"join, more", "join " + hex0 + " " + hexAF + " x", "proof"},
	{"join, nothing", "join", "proof"},
	{"have, nothing", "have", "no chunks"},
	{"have ALL", "have ALL", "index"},
	{"have all and more", "have all 1", "index"},
	{"have, outside", "have 1048576", "index"},
	{"have, minus", "have -1", "index"},
	{"have, huge", "have 9223372036854775808", "index"},
	{"have, float", "have 1e3", "index"},
	{"have, hex", "have 0x10", "index"},
	{"have, plus", "have +1", "index"},
	{"have, leading zero", "have 01", "index"},
	{"have, descending", "have 2 1", "out of order"},
	{"have, twice", "have 2 2", "out of order"},
	{"have, touching", "have 1 2", "touches"},
	{"have, empty range", "have 5-4", "ascending"},
	{"have, range of one", "have 5-5", "ascending"},
	{"have, many spaces", "have " + strings.Repeat(" ", 8000), ""},
	{"want all", "want all", "index"},
	{"cancel manifest", "cancel manifest", "index"},
	{"gone, nothing", "gone", "no chunks"},
	{"bits, odd index", "bits 4 AQ", "multiple of 8"},
	{"bits, no bits", "bits 0", "do not fit"},
	{"bits, past the end", "bits 1048568 AQE", "do not fit"},
	{"bits, index too large", "bits 1048576 AQ", "is not from"},
	{"bits, padded", "bits 0 AQ==", "base64url"},
	{"bits, trailing bits", "bits 0 AR", "base64url"},
	{"bits, other alphabet", "bits 0 /w", "base64url"},
	{"bits, empty byte at the end", "bits 0 AQA", "empty byte"},
	{"bits, empty byte first", "bits 0 AAE", "empty byte"},
	{"manifest 0", "manifest 0", "is not from"},
	{"manifest too large", "manifest 67108865", "is not from"},
	{"data, index", "data 1048576 0 1", "is not from"},
	{"data, empty", "data 0 0 0", "is not from"},
	{"data, too long", "data 0 0 262145", "is not from"},
	{"data, offset", "data 0 16777216 1", "is not from"},
	{"data, past the largest chunk", "data 0 16777215 2", "ends after"},
	{"data, past the largest manifest", "data manifest 67108863 2", "ends after"},
	{"data, two numbers", "data 0 0", "is not a number"},
	{"data, four numbers", "data 0 0 1 1", "is not a number"},
	{"data, 2^64+1", "data 0 0 18446744073709551617", "is not a number"},
	{"peer, nothing", "peer", "bad address"},
	{"peer, name", "peer example.org:80", "bad address"},
	{"peer, port 0", "peer 192.0.2.1:0", "bad address"},
	{"peer, any", "peer 0.0.0.0:1", "bad address"},
	{"peer, multicast", "peer [ff02::1]:1", "bad address"},
	{"peer, broadcast", "peer 255.255.255.255:1", "bad address"},
	{"peer, mapped", "peer [::ffff:1.2.3.4]:1", "bad address"},
	{"peer, zone", "peer [fe80::1%eth0]:1", "bad address"},
	{"peer, long form", "peer [2001:db8:0:0::1]:1", "bad address"},
	{"peer, 65", "peer" + strings.Repeat(" 1.2.3.4:5", maxAddrs+1), "more than 64"},
	{"listen 0", "listen 0", "is not from"},
	{"listen 65536", "listen 65536", "is not from"},
	{"ping, nothing", "ping", "is not a number"},
	{"ping 2^63", "ping 9223372036854775808", "is not from"},
	{"pong, minus", "pong -1", "is not a number"},
	{"error, nothing", "error", "malformed"},
	{"error, code", "error 404 x", "malformed"},
	{"error, code too long", "error " + strings.Repeat("c", maxCode+1), "malformed"},
	{"error, text too long", "error c " + strings.Repeat("t", maxErrorText+1), "malformed"},
	{"error, spaces", "error c  x", "malformed"},
	{"bye and more", "bye now", "something after"},
}

func TestParse(t *testing.T) {
	var l line
	for _, s := range goodLines {
		if err := l.parse([]byte(s)); err != nil {
			t.Errorf("%.80q: %v", s, err)
		} else if got := string(l.append(nil)); got != s+"\n" {
			t.Errorf("%q comes out as %q", s, got)
		}
	}
	for _, tt := range badLines {
		err := l.parse([]byte(tt.line))
		var p *ProtocolError
		if !errors.As(err, &p) || !strings.Contains(p.Text, tt.text) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.text)
			continue
		}
		// What is refused is told to the peer, so it must itself be a good line.
		code, text := errorLine(err)
		e := line{verb: verbError, code: code, text: text}
		if err := l.parse(bytes.TrimSuffix(e.append(nil), []byte("\n"))); err != nil {
			t.Errorf("%s: the answer is refused too: %v", tt.name, err)
		}
	}
}

func TestW13Version(t *testing.T) {
	for _, tt := range []struct {
		version   string
		ok, newer bool
	}{
		{"shoal/1.0", true, false},
		{"shoal/1.1", true, true},
		{"shoal/1.999", true, true},
		{"shoal/0.9", false, false},
		{"shoal/2.0", false, false},
		{"shoal/999.0", false, false},
		{"shoal/1", false, false},
		{"shoal/1.", false, false},
		{"shoal/1.00", false, false},
		{"shoal/01.0", false, false},
		{"shoal", false, false},
		{"other/1.0", false, false},
		{"Shoal/1.0", false, false},
		{"\u001b", false, false},
	} {
		newer, err := checkVersion(tt.version)
		if (err == nil) != tt.ok || newer != tt.newer {
			t.Errorf("%s: newer %v, %v", tt.version, newer, err)
		}
		if err != nil && (!errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "we speak shoal/1.0")) {
			t.Errorf("%s: %v", tt.version, err)
		}
	}
}

// TestW03States goes through all pairs of a state and a verb.
func TestW03States(t *testing.T) {
	next := map[string]state{
		"hello": stateJoin, "join": stateOpen, // each in its own state only
		"error": stateClosed, "bye": stateClosed,
	}
	for s := range numStates {
		for v := range numVerbs {
			for _, newer := range []bool{false, true} {
				var ok bool
				switch s {
				case stateHello:
					ok = v == verbHello || v == verbError
				case stateJoin:
					ok = v == verbJoin || v == verbError
				case stateOpen:
					ok = v != verbHello && v != verbJoin && (v != verbUnknown || newer)
				}
				got, err := s.step(v, newer)
				if (err == nil) != ok {
					t.Errorf("state %d, %q, newer %v: %v", s, v, newer, err)
				}
				want := s
				if n, special := next[v.String()]; special {
					want = n
				}
				if !ok {
					want = stateClosed
				}
				if got != want {
					t.Errorf("state %d, %q: then %d, want %d", s, v, got, want)
				}
			}
		}
	}
}

// TestW01LineLimits: a line may have exactly its limit of bytes, the LF included,
// and one byte more is refused, whether the LF comes or not.
func TestW01LineLimits(t *testing.T) {
	var ranges []string
	for i := range 4000 {
		ranges = append(ranges, fmt.Sprint(2*i+100))
	}
	list := strings.Join(ranges, " ")
	for _, tt := range []struct {
		verb string
		most int
		fill string
	}{
		{"newer ", maxLine, strings.Repeat("x", 2*maxListLine)},
		{"hello shoal/1.0 ", maxLine, strings.Repeat("x", 2*maxListLine)},
		{"have ", maxListLine, list},
		{"want ", maxListLine, list},
		{"cancel ", maxListLine, list},
		{"gone ", maxListLine, list},
		{"bits 0 ", maxListLine, base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 2*maxListLine))},
		{"peer ", maxListLine, strings.Repeat("1", 2*maxListLine)},
	} {
		for _, over := range []int{-1, 0, 1} {
			s := (tt.verb + tt.fill)[:tt.most-1+over]
			for _, reader := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
				lr := newLineReader(reader(strings.NewReader("ping 1\n" + s + "\nbye\n")))
				if b, err := lr.next(); string(b) != "ping 1" {
					t.Fatalf("%q, %v", b, err)
				}
				b, err := lr.next()
				if err == nil {
					err = new(line).parse(b)
				}
				var p *ProtocolError
				tooLong := errors.As(err, &p) && p.Code == codeLimit
				if tooLong != (over > 0) {
					t.Errorf("%sline of %d bytes: %v", tt.verb, len(s)+1, err)
				}
				if over <= 0 {
					if b, err := lr.next(); string(b) != "bye" {
						t.Errorf("%sthen %q, %v", tt.verb, b, err)
					}
				}
			}
			lr := newLineReader(strings.NewReader(s + strings.Repeat("7", over+1)))
			if _, err := lr.next(); (over >= 0) != errors.As(err, new(*ProtocolError)) {
				t.Errorf("%swithout LF, %d bytes: %v", tt.verb, len(s)+over+1, err)
			}
		}
	}
}

// TestW01EndlessLine: nothing is kept of a line that does not end.
func TestW01EndlessLine(t *testing.T) {
	zeros := &endless{}
	lr := newLineReader(zeros)
	if _, err := lr.next(); !errors.As(err, new(*ProtocolError)) {
		t.Fatal(err)
	}
	if zeros.n > 16<<10 {
		t.Errorf("read %d bytes of it", zeros.n)
	}
}

type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	e.n += len(p)
	return len(p), nil
}

func TestW05Body(t *testing.T) {
	const text = "data 0 0 5\nhello" + "data 0 5 6\nworld!" + "bye\n"
	for _, reader := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
	} {
		lr := newLineReader(reader(strings.NewReader(text)))
		var got []string
		var l line
		for {
			b, err := lr.next()
			if err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				break
			}
			if err := l.parse(b); err != nil {
				t.Fatal(err)
			}
			if l.verb == verbData {
				p := make([]byte, l.size)
				if err := lr.body(p); err != nil {
					t.Fatal(err)
				}
				got = append(got, string(p))
			}
		}
		if strings.Join(got, ",") != "hello,world!" {
			t.Errorf("%q", got)
		}
	}
	for cut := range len(text) {
		lr := newLineReader(strings.NewReader(text[:cut]))
		_, err := lr.next()
		if err == nil {
			err = lr.body(make([]byte, 5))
		}
		if want := cut >= 16; (err == nil) != want || cut == 0 && err != io.EOF || cut > 0 && cut < 16 && err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d: %v", cut, err)
		}
	}
}

func TestLineAllocs(t *testing.T) {
	var l line
	out := make([]byte, 0, maxListLine)
	for _, s := range []string{"data 1 2 3", "have 1 3-5", "want 1 3-5 7", "cancel 4", "gone 4-6", "bits 0 AQ", "have all", "ping 3", "pong 4", "manifest 5"} {
		in := []byte(s)
		l.parse(in) // the slices grow once
		if n := testing.AllocsPerRun(100, func() {
			if err := l.parse(in); err != nil {
				t.Fatal(err)
			}
			out = l.append(out[:0])
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

// FuzzLine: what is accepted comes out as it went in, and its numbers are
// within the limits.
func FuzzLine(f *testing.F) {
	for _, s := range goodLines {
		f.Add([]byte(s))
	}
	for _, tt := range badLines {
		f.Add([]byte(tt.line))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var l line
		if err := l.parse(in); err != nil {
			code, text := errorLine(err)
			e := line{verb: verbError, code: code, text: text}
			if err := l.parse(bytes.TrimSuffix(e.append(nil), []byte("\n"))); err != nil {
				t.Errorf("the answer to %q is refused: %v", in, err)
			}
			return
		}
		if len(in)+1 > l.verb.maxLen() {
			t.Errorf("accepted %d bytes", len(in))
		}
		if out := l.append(nil); !bytes.Equal(out, append(in, '\n')) {
			t.Errorf("accepted %q, which comes out as %q", in, out)
		}
		next := 0
		for _, r := range l.ranges {
			if r.First < next || r.N < 1 || r.First+r.N > chunk.MaxNum {
				t.Errorf("%q: ranges %v", in, l.ranges)
			}
			next = r.First + r.N + 1
		}
		if l.verb == verbData && (l.size < 1 || l.size > MaxSegment || l.off < 0 || l.num < -1 || l.num >= chunk.MaxNum) {
			t.Errorf("%q: %+v", in, l)
		}
	})
}

// FuzzAdmission feeds bytes to the two lines before admission, and to the
// state machine after it.
func FuzzAdmission(f *testing.F) {
	f.Add([]byte("hello shoal/1.0 a\njoin " + hex0 + " " + hexAF + "\nhave all\nbye\n"))
	f.Add([]byte("hello shoal/1.1 a\njoin " + hex0 + " " + hexAF + "\nlater x\ndata 0 0 3\nabcping 1\n"))
	f.Add([]byte("join " + hex0 + " " + hexAF + "\n"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("SSH-2.0-OpenSSH_9.9\r\n"))
	f.Add([]byte("error busy too many\n"))
	f.Add([]byte("hello shoal/1.0 a\nerror version x\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		a := &admission{lr: newLineReader(bytes.NewReader(in))}
		if a.expect(verbHello) != nil || a.state != stateJoin {
			return
		}
		if a.expect(verbJoin) != nil || a.state != stateOpen {
			return
		}
		for range 1000 {
			b, err := a.lr.next()
			if err != nil || a.in.parse(b) != nil {
				return
			}
			s, err := stateOpen.step(a.in.verb, a.newer)
			if err != nil || s == stateClosed {
				return
			}
			if a.in.verb == verbData && a.lr.body(make([]byte, a.in.size)) != nil {
				return
			}
		}
	})
}
