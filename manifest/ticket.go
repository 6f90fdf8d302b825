package manifest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mr-tron/base58"

	"github.com/shoal-p2p/shoal/chunk"
)

// A Ticket is what one user gives another so that they can fetch a share. Who has
// the root may fetch, so tickets are not for logs; errors never repeat them.
type Ticket struct {
	Root  chunk.Hash
	Addrs []string // host:port, at most MaxAddrs, each as CheckAddr wants it
}

const (
	// MaxAddrs is how many addresses a ticket can carry.
	MaxAddrs = 8

	ticketPrefix  = "shoal:"
	ticketVersion = 1
	ticketSumLen  = 4
	maxTicket     = 3000 // characters: more than eight names of 253 bytes need

	addrIPv4 = 4
	addrIPv6 = 6
	addrName = 'n'
)

// String returns the ticket as text, under 120 characters for two IPv6 addresses.
// Addresses that CheckAddr refuses, those that come twice and those beyond MaxAddrs
// are left out.
func (t Ticket) String() string {
	b := make([]byte, 0, 128)
	b = append(b, ticketVersion)
	b = append(b, t.Root[:]...)
	seen := make(map[string]bool, len(t.Addrs))
	for _, addr := range t.Addrs {
		enc, err := encodeAddr(addr)
		if err != nil || seen[string(enc)] || len(seen) == MaxAddrs {
			continue
		}
		seen[string(enc)] = true
		b = append(b, enc...)
	}
	sum := chunk.Sum(b)
	return ticketPrefix + base58.Encode(append(b, sum[:ticketSumLen]...))
}

// CheckAddr reports whether a ticket can carry addr: an IP address without a zone,
// or a host name, and a port from 1 to 65535, as net.JoinHostPort puts them together.
func CheckAddr(addr string) error {
	_, err := encodeAddr(addr)
	return err
}

func encodeAddr(addr string) ([]byte, error) {
	if len(addr) > 300 {
		return nil, fmt.Errorf("address of %d bytes is too long", len(addr))
	}
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %s is not host:port", quote(addr))
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != portText {
		return nil, fmt.Errorf("port of address %s is not a number from 1 to 65535", quote(addr))
	}
	var b []byte
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.Zone() != "" {
			return nil, fmt.Errorf("address %s has a zone, which means nothing on another machine", quote(addr))
		}
		if ip.Is4() {
			b = append(b, addrIPv4)
		} else {
			b = append(b, addrIPv6)
		}
		b = append(b, ip.AsSlice()...)
	} else {
		if !isHostName(host) {
			return nil, fmt.Errorf("host of address %s is no IP address and no host name", quote(addr))
		}
		b = append(b, addrName, byte(len(host)))
		b = append(b, host...)
	}
	return append(b, byte(port>>8), byte(port)), nil
}

// decodeAddr decodes the first address of b and returns the rest.
func decodeAddr(b []byte) (addr string, rest []byte, err error) {
	kind, n := b[0], 0
	b = b[1:]
	switch kind {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrName:
		if len(b) == 0 {
			return "", nil, errors.New("it ends within an address")
		}
		n, b = int(b[0]), b[1:]
	default:
		return "", nil, fmt.Errorf("it has an address of the unknown kind %d: it may be from a newer version", kind)
	}
	if len(b) < n+2 {
		return "", nil, errors.New("it ends within an address")
	}
	host := string(b[:n])
	if kind != addrName {
		ip, _ := netip.AddrFromSlice(b[:n])
		host = ip.String()
	}
	port := int(b[n])<<8 | int(b[n+1])
	return net.JoinHostPort(host, strconv.Itoa(port)), b[n+2:], nil
}

// isHostName reports whether s can be a DNS name: labels of letters, digits, '-'
// and '_'. It does not take what could be read as an IP address.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
		last = label
	}
	return !isDigits(last) && !strings.HasPrefix(strings.ToLower(last), "0x")
}

// ParseTicket reads a ticket. A line end behind it is allowed, as it comes from a
// file or a pipe. Errors say what is wrong but never repeat the text.
func ParseTicket(s string) (Ticket, error) {
	t, err := parseTicket(s)
	if err != nil {
		return Ticket{}, fmt.Errorf("ticket: %w", err)
	}
	return t, nil
}

func parseTicket(s string) (Ticket, error) {
	if len(s) > maxTicket {
		return Ticket{}, fmt.Errorf("%d bytes long, the limit is %d: %w", len(s), maxTicket, ErrTooLarge)
	}
	s = strings.TrimSuffix(s, "\n")
	s = strings.TrimSuffix(s, "\r")
	if s == "" {
		return Ticket{}, errors.New("it is empty")
	}
	body, ok := strings.CutPrefix(s, ticketPrefix)
	if !ok {
		if strings.Contains(s, ticketPrefix) {
			return Ticket{}, fmt.Errorf("there is something before %q", ticketPrefix)
		}
		return Ticket{}, fmt.Errorf("it does not begin with %q: not a ticket of shoal", ticketPrefix)
	}
	if strings.Contains(body, ticketPrefix) {
		return Ticket{}, errors.New("there are two tickets in one")
	}
	for i, r := range body {
		switch {
		case r == ' ' || '\t' <= r && r <= '\r':
			return Ticket{}, fmt.Errorf("there is white space at character %d: it must be in one piece", len(ticketPrefix)+i+1)
		case r >= utf8.RuneSelf || !isBase58(byte(r)):
			return Ticket{}, fmt.Errorf("character %d is none that a ticket has", len(ticketPrefix)+i+1)
		}
	}
	if body == "" {
		return Ticket{}, fmt.Errorf("there is nothing behind %q", ticketPrefix)
	}
	b, err := base58.Decode(body)
	if err != nil {
		return Ticket{}, errors.New("it is not base58")
	}
	const least = 1 + len(chunk.Hash{}) + ticketSumLen
	if len(b) < least {
		return Ticket{}, fmt.Errorf("it is too short: %s, want at least %d", count(len(b), "byte"), least)
	}
	payload, sum := b[:len(b)-ticketSumLen], chunk.Sum(b[:len(b)-ticketSumLen])
	if string(b[len(payload):]) != string(sum[:ticketSumLen]) {
		return Ticket{}, errors.New("the checksum is wrong: a character is mistyped, missing or too many")
	}
	if payload[0] != ticketVersion {
		return Ticket{}, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, payload[0], ticketVersion)
	}
	var t Ticket
	copy(t.Root[:], payload[1:])
	for rest := payload[1+len(t.Root):]; len(rest) > 0; {
		if len(t.Addrs) == MaxAddrs {
			return Ticket{}, fmt.Errorf("it has more than %d addresses", MaxAddrs)
		}
		var addr string
		if addr, rest, err = decodeAddr(rest); err != nil {
			return Ticket{}, err
		}
		t.Addrs = append(t.Addrs, addr)
	}
	if t.String() != s {
		return Ticket{}, errors.New("it has an address in a form that no ticket has")
	}
	return t, nil
}

func isBase58(c byte) bool {
	return '1' <= c && c <= '9' || isLetter(c) && c != 'I' && c != 'O' && c != 'l'
}
