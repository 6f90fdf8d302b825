package transfer

import (
	"fmt"
	"strings"
	"time"
)

// maxSaid is how many peers an error names: a person reads a line, and does not
// look through a hundred of them.
const maxSaid = 8

// some joins the first few of texts, and says how many more there are.
func some(texts []string, sep string) string {
	if more := len(texts) - maxSaid; more > 0 {
		return strings.Join(texts[:maxSaid], sep) + fmt.Sprintf("%sand %d more", sep, more)
	}
	return strings.Join(texts, sep)
}

// A NoPeerError reports that no peer could be reached within the timeout.
type NoPeerError struct {
	Timeout time.Duration
	Reasons []string // address: why, for each known address
	NoShare bool     // everyone who answered does not have this share
	Sources bool     // no peer was named, only sources
	NoList  bool     // there are sources, but only a peer could have sent the manifest
}

func (e *NoPeerError) Error() string {
	what := "no peer reachable"
	switch {
	case e.NoShare:
		what = "no peer has this share"
	case e.Sources:
		what = "no source can be used"
	}
	if len(e.Reasons) == 0 {
		return what + ": no address is known"
	}
	if !e.Sources { // those are given up at once
		what += fmt.Sprintf(" in %v", e.Timeout)
	}
	return what + ": " + some(e.Reasons, "; ")
}

// A StalledError reports that peers were there, but nothing could be fetched
// from them any more. What was fetched is kept.
type StalledError struct {
	Timeout     time.Duration
	Done, Total int64 // bytes
	Reasons     []string
}

func (e *StalledError) Error() string {
	at := ""
	if e.Total > 0 { // else not even the manifest came
		at = fmt.Sprintf(" at %d of %d bytes", e.Done, e.Total)
	}
	return fmt.Sprintf("nothing came for %v%s: %s", e.Timeout, at, some(e.Reasons, "; "))
}

// An IntegrityError reports that no peer is left that has sent right bytes.
type IntegrityError struct {
	Chunk int // the last one that was wrong; -1: the manifest
	Peers []string
}

func (e *IntegrityError) Error() string {
	what := fmt.Sprintf("no peer has a valid chunk %d", e.Chunk)
	if e.Chunk < 0 {
		what = "no peer has a valid manifest"
	}
	return what + ": wrong bytes from " + some(e.Peers, ", ")
}

// A CorruptError reports a chunk, or with Index -1 a manifest, whose bytes are
// not those that were asked for. It ends the connection.
type CorruptError struct{ Index int }

func (e *CorruptError) Error() string {
	if e.Index < 0 {
		return "sent a manifest that is not the one asked for" // the root is a secret
	}
	return fmt.Sprintf("sent wrong bytes for chunk %d", e.Index)
}

// ProtocolCode returns the code for the error line.
func (e *CorruptError) ProtocolCode() string { return "corrupt" }
