package main

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/term"

	"github.com/shoal-p2p/shoal/transfer"
)

// hangup is called on SIGHUP. It reports whether that was a wish to read the
// configuration again: there is one, or was, and the terminal is not gone.
func (a *app) hangup() bool {
	s := &a.settings
	a.settingsMu.Lock()
	defer a.settingsMu.Unlock()
	if s.file == nil || a.terminalGone() {
		return false
	}
	if _, err := os.Stat(s.file.name); errors.Is(err, fs.ErrNotExist) {
		if !s.file.found {
			return false
		}
		a.warnf("nothing was changed: %s is not there any more", s.file.name)
		return true
	}
	if err := a.reload(); err != nil {
		_, msg := explain(err)
		a.warnf("nothing was changed: %s", msg)
	}
	return true
}

// terminalGone reports whether a terminal that there was at the start is there no more.
func (a *app) terminalGone() bool {
	return a.onTerminal && !term.IsTerminal(int(a.stderr.Fd()))
}

// reload reads the configuration again and takes the limits from it, unless the
// command line or a variable has set them. settingsMu is held.
func (a *app) reload() error {
	s := &a.settings
	file, err := a.loadConfig(s.file.name, s.asked)
	if err != nil {
		return err
	}
	rates := [2]int64{a.up, a.down}
	for i, name := range []string{"limit-up", "limit-down"} {
		if s.given[name] || os.Getenv(env(name)[0]) != "" {
			continue
		}
		rates[i] = 0
		v, ok := file.get(s.command, name)
		if !ok {
			continue
		}
		n, err := parseSize(v.values[0])
		if err != nil || n < transfer.MinLimit {
			return file.errorf(v.line, "%s %q: %s", name, v.values[0], rateText)
		}
		rates[i] = n
	}
	s.file = file
	a.up, a.down = rates[0], rates[1]
	a.limits.Set(a.up, a.down)
	a.sayf("%s was read again; limit up: %s, down: %s", file.name, limitText(a.up), limitText(a.down))
	return nil
}
