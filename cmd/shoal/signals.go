package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
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

// withSignals returns a context that the first signal ends, with a
// *signalError as its cause. The second one ends the program at once: what is
// on disk is enough to resume from, as after a kill.
func withSignals(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 2)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) { // nohup means it
			signal.Notify(c, sig)
		}
	}
	// A reader that goes away, as in "shoal ls x | head", shows as a write
	// error instead of ending the program in the middle.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var first *signalError
		for {
			select {
			case <-done:
				return
			case sig := <-c:
				if first != nil {
					fmt.Fprintln(os.Stderr, "\nshoal: ended at once; the same line resumes")
					os.Exit(first.code())
				}
				first = &signalError{sig}
				cancel(first)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		close(done)
		<-ended
		cancel(nil)
	}
}
