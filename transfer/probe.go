package transfer

import (
	"errors"
	"io"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
)

// FirstPlace helps a source to find out where it has a share: it returns the first
// of places for which try works. An error that is no *GoneError ends the search;
// if all are gone, it is a *DeadSourceError with the first reason.
func FirstPlace[P any](places []P, try func(P) error) (place P, err error) {
	var first error
	for _, p := range places {
		err := try(p)
		var gone *GoneError
		switch {
		case err == nil:
			return p, nil
		case !errors.As(err, &gone):
			return place, err
		case first == nil:
			first = gone.Err
		}
	}
	return place, &DeadSourceError{Err: first}
}

// An IdleReader calls a function when no byte has come for a while, which must
// make a Read that waits return.
type IdleReader struct {
	r     io.Reader
	limit time.Duration
	timer *time.Timer
}

// NewIdleReader returns a reader of r that calls idle after limit without a byte.
// Stop must be called in the end.
func NewIdleReader(r io.Reader, limit time.Duration, idle func()) *IdleReader {
	return &IdleReader{r, limit, time.AfterFunc(limit, crew.Guard(idle))}
}

func (r *IdleReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.timer.Reset(r.limit)
	}
	return n, err
}

// Stop ends the watch.
func (r *IdleReader) Stop() { r.timer.Stop() }
