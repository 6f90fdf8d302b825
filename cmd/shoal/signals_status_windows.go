package main

import "os"

// statusSignals is empty: this system has no such signals.
var statusSignals []os.Signal
