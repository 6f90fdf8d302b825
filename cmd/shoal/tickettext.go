package main

import (
	"io"
	"os"
	"strings"
)

// ticketVariable holds a ticket for those commands that need one and were not
// given any: what stands on a command line can be seen by every user of the
// machine.
const ticketVariable = "SHOAL_TICKET"

// maxTicketFile is the most bytes in which a ticket is looked for.
const maxTicketFile = 4 << 10

// withTicket puts the ticket of the variable before args, if the command takes
// one and args do not begin with any.
func withTicket(usage string, args []string) []string {
	t := os.Getenv(ticketVariable)
	if t == "" || !strings.HasPrefix(usage, "TICKET") || len(args) > 0 && isSource(args[0]) {
		return args
	}
	return append([]string{t}, args...)
}

// isSource reports whether an argument looks like a TICKET|FILE.shoal.
func isSource(arg string) bool {
	return arg == "-" || strings.HasPrefix(arg, "@") || strings.HasPrefix(strings.TrimSpace(arg), "shoal:") || strings.HasSuffix(arg, ".shoal")
}

// ticketText returns the ticket that an argument stands for: "-" is standard
// input, "@FILE" a file, and all else is what it is.
func ticketText(arg string) (string, error) {
	var r io.Reader
	from := "standard input"
	switch {
	case arg == "-":
		r = os.Stdin
	case len(arg) > 1 && arg[0] == '@':
		from = arg[1:]
		f, err := os.Open(from)
		if err != nil {
			return "", usagef("read the ticket: %v", err)
		}
		defer f.Close()
		r = f
	default:
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, maxTicketFile+1))
	if err != nil {
		return "", usagef("read the ticket: %v", err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case text == "":
		return "", usagef("%q is empty; a ticket is needed there", from)
	case len(b) > maxTicketFile || !strings.HasPrefix(text, "shoal:"):
		return "", usagef("%q does not hold a ticket (shoal:...)", from)
	}
	return text, nil
}
