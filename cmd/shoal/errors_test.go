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
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// Each kind of error has its exit code, also when others are joined or wrapped
// around it, and one line.
func TestExplain(t *testing.T) {
	_, syntax := manifest.Parse([]byte("no\n"))
	_, newer := manifest.Parse([]byte("shoal-manifest 2\n"))
	tests := []struct {
		name string
		err  error
		code int
		says string
	}{
		{"usage", usagef("--x: no"), 2, "--x: no"},
		{"no share", &transfer.NoPeerError{Timeout: time.Second, Reasons: []string{"a:1: no such share"}, NoShare: true}, 3, "check the ticket"},
		{"no peer", &transfer.NoPeerError{Timeout: time.Second, Reasons: []string{"a:1: refused"}}, 4, "a:1: refused"},
		{"interrupted", &interruptedError{cause: &signalError{os.Interrupt}, done: 61, total: 100, line: "shoal get x"}, 130, "interrupted at 61 %, 61 B kept; to go on: shoal get x"},
		{"terminated", &interruptedError{cause: &signalError{syscall.SIGTERM}, line: "shoal get x"}, 143, "to go on: shoal get x"},
		{"stdout closed", &interruptedError{cause: errStdout, line: "shoal get x"}, 5, "standard output was closed"},
		{"cancelled", context.Canceled, 5, ""},
		{"integrity", &transfer.IntegrityError{Chunk: 7, Peers: []string{"a:1"}}, 6, "a:1"},
		{"space", &store.NoSpaceError{Need: 10, Have: 5, Dir: "/d"}, 7, "need 10 B, have 5 B in /d"},
		{"much space", &store.NoSpaceError{Need: 80_000_441, Have: 62_869_504, Dir: "/d"}, 7, "need 80 MB, have 63 MB in /d"},
		{"almost enough space", &store.NoSpaceError{Need: 80_000_441, Have: 80_000_440, Dir: "/d"}, 7, "need 80000441 bytes, have 80000440 in /d"},
		{"inodes", &store.NoSpaceError{Need: 10, Have: 5, Files: true, Dir: "/d"}, 7, "need 10 free inodes, have 5 in /d"},
		{"disk", &store.DiskError{Op: "write", Path: "/d/f", Err: syscall.EIO}, 7, "/d/f"},
		{"permission", &fs.PathError{Op: "open", Path: "/d/f", Err: syscall.EACCES}, 7, "check who owns it"},
		{"full", &fs.PathError{Op: "write", Path: "/d/f", Err: syscall.ENOSPC}, 7, "free some space"},
		{"exists", fmt.Errorf("/d/f %w", store.ErrExists), 8, "-o PATH"},
		{"path", &manifest.PathError{Path: "\x1b", Why: "is bad"}, 8, `\x1b`},
		{"syntax", syntax, 8, "line 1"},
		{"version", newer, 8, "another version"},
		{"changed", &manifest.ChangedError{Path: "/d/f"}, 1, "share it again"},
		{"stalled", &transfer.StalledError{Timeout: time.Minute, Reasons: []string{"a:1: gone"}}, 10, "a:1: gone"},
		{"stalled midway", &transfer.StalledError{Timeout: time.Minute, Done: 17_170_432, Total: 80_000_441, Reasons: []string{"a:1: gone"}}, 10, "nothing came for 1m0s at 17 MB of 80 MB: a:1: gone"},
		{"stalled near the end", &transfer.StalledError{Timeout: time.Minute, Done: 80_000_000, Total: 80_000_441, Reasons: []string{"a:1: gone"}}, 10, "at 80000000 of 80000441 bytes: a:1: gone"},
		{"running", &store.LockedError{Path: "/d/f", Owner: "process 5"}, 11, "process 5"},
		{"port", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}, 1, "--listen"},
		{"other", errors.New("two\nlines"), 1, "two; lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, err := range []error{tt.err, fmt.Errorf("here: %w", tt.err), errors.Join(tt.err, errors.New("and closing it failed"))} {
				code, msg := explain(err)
				if code != tt.code {
					t.Errorf("%v: code %d, want %d", err, code, tt.code)
				}
				if !strings.Contains(msg, tt.says) || strings.ContainsAny(msg, "\n\r\x1b") {
					t.Errorf("message %q", msg)
				}
			}
		})
	}
}
