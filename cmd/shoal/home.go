package main

import (
	"os"
	"path/filepath"

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

// state returns the store of what is remembered.
func (a *app) state() *state.Store {
	return state.New(home(), func(text string) { a.warnf("%s", text) })
}
