//go:build !windows && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly

package main

import (
	"os"
	"syscall"
)

// statusSignals ask for one line that says how far things are.
var statusSignals = []os.Signal{syscall.SIGUSR1}
