package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// A signalError is the cause of a context that ended by a signal.
type signalError struct{ sig os.Signal }

func (e *signalError) Error() string {
	switch e.sig {
	case os.Interrupt:
		return "interrupted"
	case syscall.SIGTERM:
		return "told to end"
	case syscall.SIGHUP:
		return "terminal closed"
	}
	return e.sig.String()
}

// code is what a shell reports for a program that this signal has ended.
func (e *signalError) code() int {
	if n, ok := e.sig.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return codeInterrupted
}

// sameSignal is how soon after the first another one of its kind is the same:
// timeout(1) sends each to the process and to its group.
const sameSignal = 50 * time.Millisecond

// endAtOnce says so, unless nobody reads what is said, and ends the program.
func endAtOnce(code int) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		fmt.Fprintln(os.Stderr, "\nshoal: ended at once; the same line resumes")
	}()
	select {
	case <-told:
	case <-time.After(100 * time.Millisecond):
	}
	os.Exit(code)
}

// withSignals returns a context that the first signal ends, with a
// *signalError as its cause. The second one ends the program at once: what is
// on disk is enough to resume from, as after a kill.
//
// SIGHUP ends nothing if hangup says that it was dealt with. status is called
// when the user asks how far things are, and struck at the first Ctrl-C.
func withSignals(ctx context.Context, hangup func() bool, status, struck func()) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 2)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) { // nohup means it
			signal.Notify(c, sig)
		}
	}
	ask := make(chan os.Signal, 1)
	if len(statusSignals) > 0 { // with none, Notify would mean all
		signal.Notify(ask, statusSignals...)
	}
	// A reader that goes away, as in "shoal ls x | head", shows as a write
	// error instead of ending the program in the middle.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var first *signalError
		var at time.Time // of first
		for {
			select {
			case <-done:
				return
			case <-ask:
				status()
			case sig := <-c:
				if sig == syscall.SIGHUP && hangup() {
					continue
				}
				if first != nil && sig == first.sig && time.Since(at) < sameSignal {
					continue
				}
				if first != nil {
					endAtOnce(first.code())
				}
				first, at = &signalError{sig}, time.Now()
				if sig == os.Interrupt {
					struck()
				}
				cancel(first)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		signal.Stop(ask)
		close(done)
		<-ended
		cancel(nil)
	}
}
