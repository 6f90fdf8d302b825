package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/adrg/xdg"

	"github.com/shoal-p2p/shoal/transfer/state"
)

// home returns the folder that shoal remembers things in: SHOAL_HOME, or the
// place that the system has for the state of programs.
func home() string {
	if dir := os.Getenv("SHOAL_HOME"); dir != "" {
		return dir
	}
	return filepath.Join(xdg.StateHome, "shoal")
}

// homeless says that nothing names a place for what is remembered; "" if
// something does.
func homeless() string {
	if os.Getenv("SHOAL_HOME") != "" || os.Getenv("XDG_STATE_HOME") != "" || runtime.GOOS == "windows" {
		return ""
	}
	if _, err := os.UserHomeDir(); err == nil {
		return ""
	}
	return "neither HOME nor SHOAL_HOME is set; what shoal remembers, such as interrupted gets, would lie in " + home()
}

// homeFix is what to do about it.
const homeFix = "set SHOAL_HOME to a folder of yours"

// state returns the store of what is remembered.
func (a *app) state() *state.Store {
	a.homeOnce.Do(func() {
		if text := homeless(); text != "" {
			a.warnf("%s; %s", text, homeFix)
		}
	})
	return state.New(home(), func(text string) { a.warnf("%s", text) })
}
