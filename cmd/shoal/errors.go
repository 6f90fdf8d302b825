package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/peer"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// Exit codes, as README.md lists them.
const (
	codeOther       = 1
	codeUsage       = 2
	codeNoShare     = 3
	codeNoPeer      = 4
	codeInterrupted = 5
	codeIntegrity   = 6
	codeDisk        = 7
	codeRefused     = 8
	codePartly      = 9
	codeStalled     = 10
	codeRunning     = 11
)

// A codedError is an error of a command that knows its exit code and what the
// user can do.
type codedError struct {
	code int
	err  error
	hint string // what to do next; may be ""
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// refuse returns an error with a code and a hint.
func refuse(code int, hint, format string, args ...any) error {
	return &codedError{code: code, err: fmt.Errorf(format, args...), hint: hint}
}

// An interruptedError ends a get that can be resumed.
type interruptedError struct {
	cause       error
	done, total int64  // bytes on disk; total 0: nothing is known yet
	line        string // that resumes it
}

func (e *interruptedError) Error() string {
	s := e.cause.Error()
	if e.total > 0 {
		s += fmt.Sprintf(" at %d %%, %s kept", percent(e.done, e.total), bytesText(e.done))
	}
	return s + "; to go on: " + e.line
}

func (e *interruptedError) Unwrap() error { return e.cause }

// report prints what an error means for the user, in one line, and returns the
// exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code, msg := explain(err)
	if a.json {
		_ = a.event("error", map[string]any{"code": code, "text": msg}) // if nobody reads it, the code says it
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line("shoal: " + msg)
	return code
}

// explain returns the exit code for an error and one line that says what went
// wrong, where, why, and what to do next.
func explain(err error) (code int, msg string) {
	code, hint := classify(err)
	msg = withSizes(oneLine(err), err)
	if hint != "" {
		msg += "; " + hint
	}
	return code, msg
}

// withSizes returns msg, the text of err, with its numbers of bytes as the other
// lines have them. Two that would look the same stay as they are.
func withSizes(msg string, err error) string {
	var (
		noSpace *store.NoSpaceError
		stalled *transfer.StalledError
	)
	if errors.As(err, &noSpace) && !noSpace.Files {
		if need, have := bytesText(noSpace.Need), bytesText(noSpace.Have); need != have {
			msg = strings.Replace(msg, fmt.Sprintf("need %d bytes, have %d in", noSpace.Need, noSpace.Have), fmt.Sprintf("need %s, have %s in", need, have), 1)
		}
	}
	if errors.As(err, &stalled) {
		if done, total := bytesText(stalled.Done), bytesText(stalled.Total); done != total {
			msg = strings.Replace(msg, fmt.Sprintf("at %d of %d bytes", stalled.Done, stalled.Total), fmt.Sprintf("at %s of %s", done, total), 1)
		}
	}
	return msg
}

// oneLine returns the text of err without line breaks: joined errors, and
// those of the libraries, may have some.
func oneLine(err error) string {
	msg := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	const most = 2000
	if len(msg) > most {
		msg = msg[:most] + "..."
	}
	return msg
}

// classify maps errors to exit codes and to what the user can do.
func classify(err error) (code int, hint string) {
	var (
		usage       *usageError
		coded       *codedError
		interrupted *interruptedError
		signalled   *signalError
		noPeer      *transfer.NoPeerError
		stalled     *transfer.StalledError
		integrity   *transfer.IntegrityError
		several     *transfer.NotOneFileError
		output      *transfer.WriteError
		noSpace     *store.NoSpaceError
		disk        *store.DiskError
		locked      *store.LockedError
		changed     *manifest.ChangedError
		path        *manifest.PathError
		syntax      *manifest.SyntaxError
		netErr      *net.OpError
		collision   *store.CollisionError
		blocked     *store.BlockedError
	)
	switch {
	case errors.As(err, &usage):
		return codeUsage, ""
	case errors.As(err, &coded):
		return coded.code, coded.hint
	case errors.As(err, &signalled):
		return signalled.code(), ""
	case errors.As(err, &interrupted), errors.Is(err, context.Canceled), errors.Is(err, errStdout):
		return codeInterrupted, ""

	case errors.As(err, &noPeer):
		if noPeer.NoList {
			return codeNoPeer, "a ticket alone needs a peer, or a pack, for the list of what is shared; with FILE.shoal instead of it, --from is enough"
		}
		if noPeer.Sources {
			return codeNoPeer, "name another with --from, or a peer with --peer HOST:PORT; the same line goes on"
		}
		if noPeer.NoShare {
			return codeNoShare, "check the ticket, and that the other side still shares this"
		}
		return codeNoPeer, "check that the other side runs and can be reached, or name another with --peer HOST:PORT; the same line goes on"
	case errors.As(err, &stalled):
		if stalled.Done == 0 {
			return codeStalled, "the same line tries again"
		}
		return codeStalled, "what came is kept; the same line goes on"
	case errors.As(err, &integrity):
		return codeIntegrity, "what was right is kept; the same line goes on with other peers"
	case errors.As(err, &several):
		return codeUsage, "choose one with --only, or name a folder with -o"
	case errors.As(err, &output):
		return codeInterrupted, "nothing of it is kept; the same line starts anew"
	case errors.Is(err, peer.ErrNoShare):
		return codeNoShare, "check the ticket"

	case errors.As(err, &noSpace):
		return codeDisk, "free some and run the same line again"
	case errors.As(err, &locked):
		return codeRunning, "wait for it, or end it"
	case errors.As(err, &collision):
		return codeRefused, "run the same line with --overwrite (replaces), --rename (puts the share's beside it, as NAME.1) or --skip (leaves it); --update replaces all of it"
	case errors.As(err, &blocked) && blocked.Mounted:
		return codeRefused, "unmount it, or choose another place with -o PATH"
	case errors.As(err, &blocked):
		return codeRefused, "move it away, choose another place with -o PATH, or replace it with --update"
	case errors.Is(err, store.ErrNoReplacing):
		return codeRefused, "move it away, or choose another place with -o PATH, such as where a link leads to"
	case errors.Is(err, store.ErrExists):
		return codeRefused, "move it away, choose another place with -o PATH, or replace it with --update"
	case errors.Is(err, store.ErrOtherShare), errors.Is(err, store.ErrNotPart):
		return codeRefused, "move it away, or choose another place with -o PATH"
	case errors.Is(err, manifest.ErrVersion):
		return codeRefused, "another version of shoal is needed"
	case errors.As(err, &changed):
		return codeOther, "share it again when nothing writes to it"
	case errors.As(err, &path):
		return codeRefused, "see --any-name, --exclude and manifest/SPEC.md for the names that are allowed"
	case errors.As(err, &syntax), errors.Is(err, manifest.ErrTooLarge):
		return codeRefused, ""

	case errors.As(err, &netErr):
		if errors.Is(err, syscall.EADDRINUSE) {
			return codeOther, "choose another with --listen HOST:PORT, or :0 for any free port"
		}
		return codeOther, ""
	case errors.As(err, &disk), isDisk(err):
		switch {
		case errors.Is(err, fs.ErrPermission):
			return codeDisk, "check who owns it and its mode"
		case errors.Is(err, syscall.ENOSPC):
			return codeDisk, "free some space and run the same line again"
		}
		return codeDisk, ""
	}
	return codeOther, ""
}

// isDisk reports whether err comes from the file system.
func isDisk(err error) bool {
	var (
		path *fs.PathError
		link *os.LinkError
	)
	return errors.As(err, &path) || errors.As(err, &link)
}
