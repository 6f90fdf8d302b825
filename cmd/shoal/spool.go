package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/gofrs/flock"
)

// fromStdin is the PATH that means standard input.
const fromStdin = "-"

// A spool holds what came from standard input, for as long as it is shared. It
// lies beside the state, since the place for temporary files is often memory.
type spool struct {
	dir  string
	file string
	lock *flock.Flock // held while it is in use
}

const spoolLock = "lock"

// newSpool makes an empty spool, and removes those that nobody uses any more:
// their share was killed.
func newSpool() (_ *spool, err error) {
	all := filepath.Join(home(), "spool")
	if err := os.MkdirAll(all, 0o700); err != nil {
		if text := homeless(); text != "" {
			return nil, refuse(codeDisk, homeFix, "%s: %v", text, err)
		}
		return nil, err
	}
	guard := flock.New(filepath.Join(all, spoolLock))
	if err := guard.Lock(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	old, err := filepath.Glob(filepath.Join(all, "*", spoolLock))
	if err != nil {
		return nil, err
	}
	for _, name := range old {
		s := &spool{dir: filepath.Dir(name), lock: flock.New(name)}
		if free, err := s.lock.TryLock(); err == nil && free {
			_ = s.remove() // the next one tries again
		}
	}
	s := &spool{}
	if s.dir, err = os.MkdirTemp(all, ""); err != nil {
		return nil, err
	}
	s.file = filepath.Join(s.dir, "data")
	s.lock = flock.New(filepath.Join(s.dir, spoolLock))
	if err := s.lock.Lock(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// remove takes the spool away.
func (s *spool) remove() error {
	return errors.Join(s.lock.Close(), os.RemoveAll(s.dir))
}

// fill copies in until its end. A read that waits cannot be woken: if ctx ends
// first it is left behind, and what it still brings is thrown away.
func (s *spool) fill(ctx context.Context, in io.Reader, n *atomic.Int64) error {
	f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<20)
		_, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{&counted{ctx, in, n}}, buf)
		done <- errors.Join(err, f.Close())
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return refuse(codeDisk, "free some, or set SHOAL_HOME to a place with more", "no space for what standard input holds: %q is full after %s", s.dir, bytesText(n.Load()))
	}
	if err != nil {
		return fmt.Errorf("keep standard input: %w", err)
	}
	return nil
}

// counted counts what is read, until ctx ends.
type counted struct {
	ctx context.Context // see fill: the only way to end a copy
	r   io.Reader
	n   *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// spoolStdin keeps standard input in a file that can be shared.
func (a *app) spoolStdin(ctx context.Context) (*spool, error) {
	s, err := newSpool()
	if err != nil {
		return nil, fmt.Errorf("keep standard input: %w", err)
	}
	var n atomic.Int64
	a.tells(func() string { return "reading standard input: " + bytesText(n.Load()) + " so far" })
	a.sayf("reading standard input to its end")
	if err := s.fill(ctx, os.Stdin, &n); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}
