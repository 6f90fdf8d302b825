package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

// Settings are the values of flags that come from elsewhere than the command
// line. A flag counts more than its variable, that more than the configuration,
// and that more than what a command does by default.
type settings struct {
	command string            // such as "manifest create"
	given   map[string]bool   // flags on the command line
	file    *config           // nil: none was read
	asked   bool              // the user named it
	places  map[string]string // what to call a flag in messages that did not come from the command line
}

// settle gives flags that were not set the values of the configuration, and
// checks what holds for all flags.
func (a *app) settle(cc *cli.Context) error {
	a.settingsMu.Lock()
	defer a.settingsMu.Unlock()
	s := &a.settings
	s.command = strings.TrimPrefix(cc.Command.HelpName, "shoal ")
	s.given = givenFlags(cc.Command.Flags, a.permuted)
	s.places = map[string]string{}
	for _, f := range cc.Command.Flags {
		name := f.Names()[0]
		if v := env(name)[0]; !s.given[name] && os.Getenv(v) != "" {
			s.places[name] = v
		}
	}
	name := configFile()
	if cc.IsSet("config") {
		name, s.asked = cc.String("config"), true
		if name == "" {
			return usagef(`--config "": it is empty`)
		}
	}
	var err error
	if s.file, err = a.loadConfig(name, s.asked); err != nil {
		return err
	}
	for _, f := range cc.Command.Flags {
		name := f.Names()[0]
		if v, ok := s.file.get(s.command, name); ok && !cc.IsSet(name) {
			s.places[name] = fmt.Sprintf("%s:%d: %s", s.file.name, v.line, name)
			for _, text := range v.values {
				if err := cc.Set(name, text); err != nil {
					return usagef("--%s %q: %v", name, text, err)
				}
			}
		}
		if empty(cc, f) {
			return usagef(`--%s "": it is empty`, name)
		}
	}
	for _, f := range cc.Command.Flags {
		name := f.Names()[0]
		if check := checks[name]; check != nil && cc.IsSet(name) {
			if err := check(cc, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checks look at the value of flags that mean the same in each command that has
// them, before a command does anything.
var checks = map[string]func(cc *cli.Context, name string) error{
	"only":          checkGlobs,
	"exclude":       checkGlobs,
	"peer":          checkPeers,
	"advertise":     checkAdvertise,
	"listen":        checkListen,
	"timeout":       func(cc *cli.Context, name string) error { _, err := timeoutOf(cc, name); return err },
	"stall-timeout": func(cc *cli.Context, name string) error { _, err := timeoutOf(cc, name); return err },
	"limit-up":      func(cc *cli.Context, name string) error { _, err := parseRate(cc, name); return err },
	"limit-down":    func(cc *cli.Context, name string) error { _, err := parseRate(cc, name); return err },
	"max-peers":     checkMaxPeers,
}

func checkGlobs(cc *cli.Context, name string) error {
	for _, s := range cc.StringSlice(name) {
		if !manifest.IsGlob(s) {
			return usagef("--%s %q: it is no glob; *, ?, [a-z], {a,b} and ** have a meaning", name, s)
		}
	}
	return nil
}

func checkPeers(cc *cli.Context, name string) error {
	_, err := parsePeers(name, cc.StringSlice(name))
	return err
}

func checkAdvertise(cc *cli.Context, name string) error {
	_, err := parseAdvertise(cc.StringSlice(name), DefaultPort) // share knows its port later
	return err
}

func checkListen(cc *cli.Context, name string) error {
	s := cc.String(name)
	if s == "off" && cc.Command.Name != "share" {
		return nil
	}
	_, _, err := parseListen(s)
	return err
}

// empty reports whether a flag was set to an empty text.
func empty(cc *cli.Context, f cli.Flag) bool {
	name := f.Names()[0]
	switch f.(type) {
	case *cli.StringFlag:
		return cc.IsSet(name) && cc.String(name) == ""
	case *cli.StringSliceFlag:
		return slices.Contains(cc.StringSlice(name), "")
	}
	return false
}

// givenFlags returns which flags are on a command line that permute has ordered,
// by their first name.
func givenFlags(flags []cli.Flag, args []string) map[string]bool {
	given := map[string]bool{}
	for i := 1; i < len(args) && args[i] != "--"; i++ {
		if !strings.HasPrefix(args[i], "-") {
			continue
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if f := lookup(flags, name); f != nil {
			given[f.Names()[0]] = true
			if takesValue(f) && !hasValue {
				i++
			}
		}
	}
	return given
}

// blame makes a complaint about a flag one about the variable, or about the line
// of the configuration, that its value has come from.
func (s *settings) blame(err error) error {
	u, ok := err.(*usageError)
	if !ok {
		return err
	}
	rest, ok := strings.CutPrefix(u.msg, "--")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(rest, " ")
	name, _, _ = strings.Cut(name, ":")
	if place := s.places[name]; place != "" {
		return &usageError{msg: place + rest[len(name):], see: u.see}
	}
	return err
}

var (
	badFlag     = regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(.*)" for (?:flag )?-([\w-]+): `)
	badVariable = regexp.MustCompile(`(?s)^could not parse "(.*)" as (\w+) value from environment variable "(\w+)" for flag `)
)

// flagErrorText rewrites the flag library's complaints about values so that they
// read as ours do.
func flagErrorText(msg string, flags []cli.Flag) string {
	if m := badVariable.FindStringSubmatch(msg); m != nil {
		return fmt.Sprintf("%s %q: %s", m[3], m[1], typeText(m[2]))
	}
	if m := badFlag.FindStringSubmatch(msg); m != nil {
		kind := ""
		switch lookup(flags, m[2]).(type) {
		case *cli.BoolFlag:
			kind = "bool"
		case *cli.DurationFlag:
			kind = "duration"
		case *cli.IntFlag:
			kind = "int"
		}
		return fmt.Sprintf("--%s %q: %s", m[2], m[1], typeText(kind))
	}
	return msg
}

func typeText(kind string) string {
	switch kind {
	case "bool":
		return "it is true or false"
	case "duration":
		return "it is a time, such as 30s, 5m or 2h"
	case "int":
		return "it is a number"
	}
	return "it cannot be read"
}

// otherVariables are those that begin with SHOAL_ and stand for no flag.
var otherVariables = []string{"SHOAL_HOME", "SHOAL_CONFIG", "SHOAL_TICKET", "SHOAL_CI", "SHOAL_SOAK"}

// warnOfVariables says which variables look like ours and are not: they are
// more often misspelt than somebody else's.
func (a *app) warnOfVariables(cmds []*cli.Command) {
	flags := allFlags(cmds)
	var unknown []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "SHOAL_") || strings.HasPrefix(name, "SHOAL_TEST_") || slices.Contains(otherVariables, name) {
			continue
		}
		if lookup(flags, strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "SHOAL_"), "_", "-"))) == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		a.warnf("no flag has a variable of this name: %s", strings.Join(unknown, ", "))
	}
}
