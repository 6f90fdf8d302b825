package peer

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"github.com/shoal-p2p/shoal/chunk"
)

const (
	// protoMajor is also in the ALPN name: another major version is another protocol.
	protoMajor = 1
	protoMinor = 0
	protoText  = "shoal/1.0"

	maxLine     = 1024 // bytes of a line, its LF included
	maxListLine = 8192 // the same for have, bits, want, cancel, gone and peer

	maxAgent     = 64      // bytes of the agent in a greeting
	maxCode      = 32      // bytes of an error code
	maxErrorText = 200     // bytes of an error's text
	maxVerb      = 16      // bytes of a verb, known or not
	maxAddrs     = 64      // addresses on a peer line
	maxBits      = 6 << 10 // bytes of bitfield on a bits line: no more fit in its length
)

// A verb is the first word of a line.
type verb uint8

const (
	verbUnknown verb = iota // a well-formed word that this version does not know
	verbHello
	verbJoin
	verbHave
	verbBits
	verbWant
	verbCancel
	verbGone
	verbManifest
	verbData
	verbPeer
	verbListen
	verbPing
	verbPong
	verbError
	verbBye
	numVerbs
)

var verbNames = [numVerbs]string{
	"", "hello", "join", "have", "bits", "want", "cancel", "gone", "manifest",
	"data", "peer", "listen", "ping", "pong", "error", "bye",
}

func (v verb) String() string { return verbNames[v] }

// maxLen is how long a line with this verb may be, its LF included.
func (v verb) maxLen() int {
	switch v {
	case verbHave, verbBits, verbWant, verbCancel, verbGone, verbPeer:
		return maxListLine
	}
	return maxLine
}

// A line is a parsed line of the protocol. One is reused for all lines that a
// connection reads, so nothing in it outlives the next parse.
type line struct {
	verb verb
	word string // of an unknown line, the whole; of have, "all" or "none" in place of ranges

	version string // hello: "shoal/1.0"
	agent   string // hello
	name    [32]byte
	proof   [32]byte

	ranges []chunk.Range // have, want, cancel, gone
	bits   []byte        // bits
	num    int64         // size, port, ping, the first index of bits, the index of data; -1 is the manifest
	off    int64         // data
	size   int64         // data
	addrs  []string      // peer
	code   string        // error
	text   string        // error
}

var errLine = errors.New("malformed")

// parse parses a line without its LF. The line aliases b until the next parse.
// Ranges are appended to the slice that is there already, so that nothing is
// allocated in the steady state.
func (l *line) parse(b []byte) error {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return protocolErrorf(codeSyntax, "byte 0x%02x in a line", c)
		}
	}
	s := unsafe.String(unsafe.SliceData(b), len(b))
	word, rest, more := strings.Cut(s, " ")
	v, ok := parseVerb(word)
	if !ok {
		return protocolErrorf(codeSyntax, "no line begins with %.20q", word)
	}
	*l = line{verb: v, ranges: l.ranges[:0], bits: l.bits[:0]}
	if len(b) >= v.maxLen() {
		return protocolErrorf(codeLimit, "%s line of more than %d bytes", v, v.maxLen())
	}
	if v == verbUnknown {
		l.word = s
		return nil
	}
	if more && rest == "" {
		return protocolErrorf(codeSyntax, "%s line ends in a space", v)
	}
	if err := l.parseRest(rest); err != nil {
		return protocolErrorf(codeSyntax, "%s line: %s", v, printable(err.Error(), 100))
	}
	return nil
}

func parseVerb(s string) (verb, bool) {
	for v := verbHello; v < numVerbs; v++ {
		if verbNames[v] == s {
			return v, true
		}
	}
	if len(s) == 0 || len(s) > maxVerb {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < 'a' || c > 'z' {
			return 0, false
		}
	}
	return verbUnknown, true
}

func (l *line) parseRest(s string) (err error) {
	switch l.verb {
	case verbHello:
		var ok bool
		if l.version, l.agent, ok = strings.Cut(s, " "); !ok || !validAgent(l.agent) {
			return errors.New("not a version and an agent")
		}
		if len(l.version) > maxVerb {
			return errors.New("version too long")
		}
	case verbJoin:
		name, proof, _ := strings.Cut(s, " ")
		if !parseHex(l.name[:], name) || !parseHex(l.proof[:], proof) {
			return errors.New("not a name and a proof")
		}
	case verbHave:
		if s == "all" || s == "none" {
			l.word = s
			return nil
		}
		return l.parseRanges(s)
	case verbWant:
		if s == "manifest" {
			l.word = s
			return nil
		}
		return l.parseRanges(s)
	case verbCancel, verbGone:
		return l.parseRanges(s)
	case verbBits:
		return l.parseBits(s)
	case verbManifest:
		l.num, err = parseNum(s, 1, MaxManifestSize)
	case verbData:
		return l.parseData(s)
	case verbPeer:
		return l.parseAddrs(s)
	case verbListen:
		l.num, err = parseNum(s, 1, math.MaxUint16)
	case verbPing, verbPong:
		l.num, err = parseNum(s, 0, math.MaxInt64)
	case verbError:
		l.code, l.text, _ = strings.Cut(s, " ")
		if !validCode(l.code) || len(l.text) > maxErrorText || strings.TrimSpace(l.text) != l.text ||
			len(s) == len(l.code)+1 {
			return errLine
		}
	case verbBye:
		if s != "" {
			return errors.New("something after it")
		}
	default:
		panic("peer: internal error: verb without a parser")
	}
	return err
}

func (l *line) parseRanges(s string) (err error) {
	if s == "" {
		return errors.New("no chunks")
	}
	l.ranges, err = chunk.AppendParsedRanges(l.ranges, s, chunk.MaxNum)
	return err
}

// bitsEncoding is that of hashes: base64url without padding, one text per meaning.
var bitsEncoding = base64.RawURLEncoding.Strict()

func (l *line) parseBits(s string) (err error) {
	first, text, _ := strings.Cut(s, " ")
	if l.num, err = parseNum(first, 0, chunk.MaxNum-8); err != nil {
		return err
	}
	if l.num%8 != 0 {
		return errors.New("first index is not a multiple of 8")
	}
	n := bitsEncoding.DecodedLen(len(text))
	if n == 0 || l.num+8*int64(n) > chunk.MaxNum {
		return fmt.Errorf("%d bytes of bits do not fit", n)
	}
	if cap(l.bits) < n {
		l.bits = make([]byte, 0, maxBits)
	}
	if n > cap(l.bits) {
		return errLine
	}
	if _, err := bitsEncoding.Decode(l.bits[:n], unsafe.Slice(unsafe.StringData(text), len(text))); err != nil {
		return errors.New("not base64url")
	}
	l.bits = l.bits[:n]
	// One text per meaning: no empty bytes at the ends.
	if l.bits[0] == 0 || l.bits[n-1] == 0 {
		return errors.New("begins or ends with an empty byte")
	}
	return nil
}

func (l *line) parseData(s string) (err error) {
	what, s, _ := strings.Cut(s, " ")
	off, size, _ := strings.Cut(s, " ")
	most := int64(chunk.MaxSize)
	if what == "manifest" {
		l.num, most = -1, MaxManifestSize
	} else if l.num, err = parseNum(what, 0, chunk.MaxNum-1); err != nil {
		return err
	}
	if l.off, err = parseNum(off, 0, most-1); err != nil {
		return err
	}
	if l.size, err = parseNum(size, 1, MaxSegment); err != nil {
		return err
	}
	if l.off+l.size > most {
		return fmt.Errorf("ends after byte %d", most)
	}
	return nil
}

func (l *line) parseAddrs(s string) error {
	for more := true; more; {
		var addr string
		if len(l.addrs) == maxAddrs {
			return fmt.Errorf("more than %d addresses", maxAddrs)
		}
		addr, s, more = strings.Cut(s, " ")
		if !validAddr(addr) {
			return fmt.Errorf("bad address %.60q", addr)
		}
		l.addrs = append(l.addrs, strings.Clone(addr)) // the handler may keep it
	}
	return nil
}

// validAddr reports whether s is one peer's address as it may be told to
// others: an IP address and a port, in the one way that netip writes them. Host
// names are not passed on, as looking one up already tells somebody something.
func validAddr(s string) bool {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.String() != s {
		return false
	}
	a := ap.Addr()
	return a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// validAgent reports whether s can be the agent of a greeting.
func validAgent(s string) bool {
	return s != "" && len(s) <= maxAgent && printable(s, maxAgent) == s
}

func validCode(s string) bool {
	if s == "" || len(s) > maxCode {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

// parseNum parses a decimal number without sign or leading zeros, within [least, most].
func parseNum(s string, least, most int64) (int64, error) {
	if s == "" || len(s) > 19 || s[0] == '0' && len(s) > 1 {
		return 0, fmt.Errorf("%.20q is not a number from %d to %d", s, least, most)
	}
	var n uint64 // 19 digits fit
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%.20q is not a number from %d to %d", s, least, most)
		}
		n = n*10 + uint64(c-'0')
	}
	if n < uint64(least) || n > uint64(most) {
		return 0, fmt.Errorf("%s is not from %d to %d", s, least, most)
	}
	return int64(n), nil
}

// parseHex fills dst from exactly as many lower-case hex digits.
func parseHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.Decode(dst, unsafe.Slice(unsafe.StringData(s), len(s)))
	return err == nil
}

// append appends the line with its LF. What parse accepted comes out as it came.
func (l *line) append(b []byte) []byte {
	if l.verb == verbUnknown {
		return append(append(b, l.word...), '\n')
	}
	b = append(b, l.verb.String()...)
	switch l.verb {
	case verbHello:
		b = append(b, ' ')
		b = append(b, l.version...)
		b = append(b, ' ')
		b = append(b, l.agent...)
	case verbJoin:
		b = append(b, ' ')
		b = hex.AppendEncode(b, l.name[:])
		b = append(b, ' ')
		b = hex.AppendEncode(b, l.proof[:])
	case verbHave, verbWant, verbCancel, verbGone:
		b = append(b, ' ')
		if l.word != "" {
			b = append(b, l.word...)
		} else {
			b = chunk.AppendRanges(b, l.ranges)
		}
	case verbBits:
		b = appendNum(b, l.num)
		b = append(b, ' ')
		b = bitsEncoding.AppendEncode(b, l.bits)
	case verbManifest, verbListen, verbPing, verbPong:
		b = appendNum(b, l.num)
	case verbData:
		b = appendData(b, l.num, l.off, l.size)
	case verbPeer:
		for _, a := range l.addrs {
			b = append(b, ' ')
			b = append(b, a...)
		}
	case verbError:
		b = append(b, ' ')
		b = append(b, l.code...)
		if l.text != "" {
			b = append(b, ' ')
			b = append(b, l.text...)
		}
	}
	return append(b, '\n')
}

func appendNum(b []byte, n int64) []byte {
	return strconv.AppendInt(append(b, ' '), n, 10)
}

func appendData(b []byte, i, off, size int64) []byte {
	if i < 0 {
		b = append(b, " manifest"...)
	} else {
		b = appendNum(b, i)
	}
	return appendNum(appendNum(b, off), size)
}

// A state is how far the session has come for the side that reads.
type state uint8

const (
	stateHello  state = iota // the greeting must come
	stateJoin                // then the name and the proof
	stateOpen                // then anything
	stateClosed              // after bye or error: nothing may come, and nothing is read
	numStates
)

// allowed tells which verbs may come in which state; data is followed by bytes
// that belong to it and are no line.
var allowed = [numStates][numVerbs]bool{
	stateHello: {verbHello: true, verbError: true},
	stateJoin:  {verbJoin: true, verbError: true},
	stateOpen: {
		verbHave: true, verbBits: true, verbWant: true, verbCancel: true, verbGone: true,
		verbManifest: true, verbData: true, verbPeer: true, verbListen: true,
		verbPing: true, verbPong: true, verbError: true, verbBye: true,
	},
}

// step returns the state after v was read in s. newer says that the peer speaks
// a later minor version, whose unknown lines are skipped.
func (s state) step(v verb, newer bool) (state, error) {
	switch {
	case v == verbUnknown && s == stateOpen && newer:
		return s, nil
	case v == verbUnknown && s == stateOpen:
		return stateClosed, protocolErrorf(codeSyntax, "unknown line")
	case !allowed[s][v]:
		return stateClosed, protocolErrorf(codeState, "unexpected %q line", v.String())
	}
	switch v {
	case verbHello:
		return stateJoin, nil
	case verbJoin:
		return stateOpen, nil
	case verbError, verbBye:
		return stateClosed, nil
	}
	return s, nil
}

// checkVersion checks the version of a greeting. Minor versions only add verbs.
func checkVersion(s string) (newer bool, err error) {
	proto, v, _ := strings.Cut(s, "/")
	major, minor, _ := strings.Cut(v, ".")
	ma, err1 := parseNum(major, 0, math.MaxInt32)
	mi, err2 := parseNum(minor, 0, math.MaxInt32)
	if proto != "shoal" || err1 != nil || err2 != nil || ma != protoMajor {
		return false, &VersionError{Theirs: strings.Clone(s), Ours: protoText}
	}
	return mi > protoMinor, nil
}
