package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Errors of Dial, Join and Run that callers branch on. The errors returned wrap
// them and say more.
var (
	// ErrNotShoal: something answered, but it does not speak shoal's protocol.
	ErrNotShoal = errors.New("peer: not a shoal peer")
	// ErrVersion: a shoal peer answered whose protocol is another one.
	ErrVersion = errors.New("peer: protocol version not understood")
	// ErrNoShare: the peer does not have the share, or it does not know its key.
	ErrNoShare = errors.New("peer: no such share")
	// ErrSelf: the address is our own.
	ErrSelf = errors.New("peer: this is ourselves")
	// ErrBusy: the peer has as many connections as it takes.
	ErrBusy = errors.New("peer: busy")
	// ErrClosed: this connection or node was closed on our side.
	ErrClosed = errors.New("peer: closed")
	// ErrLost: the connection ended in the middle, without a goodbye.
	ErrLost = errors.New("peer: connection lost")
	// ErrTimeout: the peer was silent, or too slow to be of use.
	ErrTimeout = errors.New("peer: timeout")
)

// Codes of error lines (SPEC.md, "error").
const (
	codeSyntax   = "syntax"   // a line that no peer may send
	codeState    = "state"    // a line at the wrong time
	codeLimit    = "limit"    // a line or number that is too large
	codeVersion  = "version"  // greeting of another protocol
	codeShare    = "share"    // unknown share or wrong proof
	codeUnwanted = "unwanted" // data that was not asked for
	codeBusy     = "busy"     // too many connections
	codeSelf     = "self"     // connected to itself
	codeTimeout  = "timeout"  // silent or too slow
	codeInternal = "internal" // our own trouble, not told to others
)

// A ProtocolError reports what a peer did that SPEC.md forbids. The peer is told.
type ProtocolError struct {
	Code string // as on the error line
	Text string // what was wrong; quotes no more than a few bytes of the peer's
}

func (e *ProtocolError) Error() string { return "peer: protocol error: " + e.Text }

// ProtocolCode returns the code for the error line. Any error with this method
// can be given to Conn.Close; its Error text is then sent along. Other errors
// are sent as a bare "error internal", as their text may name local paths.
func (e *ProtocolError) ProtocolCode() string { return e.Code }

func (e *ProtocolError) lineText() string { return e.Text }

func protocolErrorf(code, format string, args ...any) error {
	return &ProtocolError{Code: code, Text: fmt.Sprintf(format, args...)}
}

// A RemoteError is the error line with which the peer closed the connection.
type RemoteError struct {
	Code string // lower-case letters and "-", at most 32 bytes
	Text string // printable ASCII, at most 200 bytes; may be empty
}

func (e *RemoteError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("peer: closed by the peer: %s", e.Code)
	}
	return fmt.Sprintf("peer: closed by the peer: %s: %q", e.Code, e.Text)
}

// Is makes the codes that have a sentinel of their own match it.
func (e *RemoteError) Is(target error) bool {
	switch e.Code {
	case codeShare:
		return target == ErrNoShare
	case codeVersion:
		return target == ErrVersion
	case codeBusy:
		return target == ErrBusy
	case codeSelf:
		return target == ErrSelf
	}
	return false
}

// A VersionError reports a peer that speaks another version. It is ErrVersion.
type VersionError struct{ Theirs, Ours string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("peer: the peer speaks %q, we speak %s", e.Theirs, e.Ours)
}

// Is reports whether target is ErrVersion.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// ProtocolCode returns the code for the error line.
func (e *VersionError) ProtocolCode() string { return codeVersion }

func (e *VersionError) lineText() string { return "this is " + e.Ours }

// errorLine returns code and text of the error line for err, fit to be sent.
func errorLine(err error) (code, text string) {
	var coded interface{ ProtocolCode() string }
	if !errors.As(err, &coded) || !validCode(coded.ProtocolCode()) {
		return codeInternal, ""
	}
	code = coded.ProtocolCode()
	if t, ok := coded.(interface{ lineText() string }); ok {
		text = t.lineText()
	} else if e, ok := coded.(error); ok {
		text = e.Error()
	}
	return code, printable(text, maxErrorText)
}

// printable returns s with all but printable ASCII replaced by "?", without
// spaces at its ends, cut to n bytes.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), n)])
}

// handshakeError turns what crypto/tls or the socket says before admission
// into something that a person can act on.
func handshakeError(err error) error {
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrSelf), errors.Is(err, ErrNotShoal):
		return err
	case errors.As(err, &record):
		return fmt.Errorf("%w: %s", ErrNotShoal, guess(record.RecordHeader[:]))
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		return fmt.Errorf("%w: it refused the handshake: %v", ErrNotShoal, op.Err)
	case isTimeout(err):
		return fmt.Errorf("%w: no answer to the handshake", ErrTimeout)
	case isLost(err):
		return fmt.Errorf("%w during the handshake (no shoal there, or it has too many connections)", ErrLost)
	case strings.HasPrefix(err.Error(), "tls: "):
		return fmt.Errorf("%w: %v", ErrNotShoal, err)
	}
	return err
}

// guess names the protocol that begins with these five bytes.
func guess(b []byte) string {
	switch s := string(b); {
	case strings.HasPrefix(s, "HTTP/"):
		return "an HTTP server answered"
	case strings.HasPrefix(s, "SSH-"):
		return "an SSH server answered"
	default:
		return fmt.Sprintf("the answer begins with %q", s)
	}
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func isLost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// connError names the end of an admitted connection.
func connError(err error) error {
	switch {
	case err == nil:
		return nil
	case isTimeout(err) && !errors.Is(err, ErrTimeout):
		return fmt.Errorf("%w: %v", ErrTimeout, err)
	case isLost(err):
		return fmt.Errorf("%w: %v", ErrLost, err)
	}
	return err
}
