package manifest

import (
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrVersion is in the chain of an error about a manifest or a ticket of a
	// version that this program does not know.
	ErrVersion = errors.New("unknown version")

	// ErrTooLarge is in the chain of an error about a manifest or a share that is
	// over one of the limits of SPEC.md.
	ErrTooLarge = errors.New("too large")
)

// A SyntaxError reports where a text is not a manifest, and why.
type SyntaxError struct {
	Line int    // from 1 on
	What string // such as "size of entry 3"; foreign text in it is quoted
	Err  error
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("manifest: line %d: %s: %v", e.Line, e.What, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// A PathError reports a name, or the target of a link, that the path policy of
// SPEC.md refuses.
type PathError struct {
	Path string // as it is: escape it before showing it on its own
	Why  string // may be shown
}

func (e *PathError) Error() string { return "name " + quote(e.Path) + " " + e.Why }

// A ChangedError reports a file that is no longer what it was when it was listed
// or hashed.
type ChangedError struct {
	Path string // in the form of the operating system
	Why  string // what differs; may be shown
}

func (e *ChangedError) Error() string {
	s := "file " + quote(e.Path) + " has changed"
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// maxQuoted keeps a long foreign name from flooding an error message.
const maxQuoted = 200

// quote returns s quoted so that it can be shown anywhere: nothing in it can act
// on a terminal, and a long one is cut.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToGraphic(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToGraphic(s)
}
