//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"os"
	"syscall"
)

// statusSignals ask for one line that says how far things are. The first is
// what Ctrl-T sends.
var statusSignals = []os.Signal{syscall.SIGINFO, syscall.SIGUSR1}
