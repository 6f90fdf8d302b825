package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/adrg/xdg"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/urfave/cli/v2"
)

// maxConfig is the most bytes that a configuration file may have. It bounds what
// parsing it may cost: a million dots in one key are a million tables.
const maxConfig = 64 << 10

// A config holds the values of flags that a file gives. The library's decoder
// does not say where a key is, which a message about it must.
type config struct {
	name   string                        // of the file
	found  bool                          // it was there
	values map[string]map[string]setting // by command, such as "manifest create", or "" for all; then by flag
}

// A setting is one value, or several for a flag that may be repeated.
type setting struct {
	values []string
	line   int
}

// configFile returns the place of the configuration: SHOAL_HOME, or where the
// system keeps the configuration of programs.
func configFile() string {
	if dir := os.Getenv("SHOAL_HOME"); dir != "" {
		return filepath.Join(dir, "config.toml")
	}
	return filepath.Join(xdg.ConfigHome, "shoal", "config.toml")
}

// loadConfig reads a configuration file. One that is not there is empty, unless
// it was asked for.
func (a *app) loadConfig(name string, asked bool) (*config, error) {
	c := &config{name: name, values: map[string]map[string]setting{}}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return c, nil
	}
	if err != nil {
		return nil, usagef("--config: %v", err)
	}
	defer f.Close()
	c.found = true
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, usagef("--config: %q is not a regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, usagef("--config: %v", err)
	}
	if len(text) > maxConfig {
		return nil, usagef("--config: %q has more than %d bytes", name, maxConfig)
	}
	return c, c.parse(text, a.cli().Commands)
}

// parse reads TOML: keys are the long names of flags, tables those of commands.
func (c *config) parse(text []byte, cmds []*cli.Command) error {
	var p unstable.Parser
	p.Reset(text)
	line := func(n *unstable.Node) int { return p.Shape(n.Raw).Start.Line }
	table, flags := "", allFlags(cmds)
	for p.NextExpression() {
		e := p.Expression()
		key, at := keyOf(e)
		switch e.Kind {
		case unstable.Table:
			table = strings.Join(key, " ")
			cmd := findCommand(cmds, key)
			if cmd == nil {
				return c.errorf(line(at), "there is no command %q", table)
			}
			flags = cmd.Flags
		case unstable.KeyValue:
			name := strings.Join(key, ".")
			f := lookup(flags, name)
			if f == nil || len(key) > 1 || f.Names()[0] != name || name == "config" || name == "help" {
				where := ""
				if table != "" {
					where = " of " + table
				}
				return c.errorf(line(at), "there is no flag --%s%s", name, where)
			}
			s := setting{line: line(at)}
			if err := c.value(&s, f, e.Value()); err != nil {
				return err
			}
			if c.values[table] == nil {
				c.values[table] = map[string]setting{}
			}
			if _, twice := c.values[table][name]; twice {
				return c.errorf(s.line, "%s is there twice", name)
			}
			c.values[table][name] = s
		default:
			return c.errorf(line(at), "[[%s]]: a command is written [%[1]s]", strings.Join(key, "."))
		}
	}
	var bad *unstable.ParserError
	if err := p.Error(); errors.As(err, &bad) {
		return c.errorf(p.Shape(p.Range(bad.Highlight)).Start.Line, "%s", bad.Message)
	} else if err != nil {
		return usagef("%s: %v", c.name, err)
	}
	return nil
}

// keyOf returns the parts of a key or of a table's name, and the first of them.
func keyOf(e *unstable.Node) (parts []string, first *unstable.Node) {
	for it := e.Key(); it.Next(); {
		if first == nil {
			first = it.Node()
		}
		parts = append(parts, string(it.Node().Data))
	}
	return parts, first
}

// value checks that a value is of the type of its flag, and keeps it as text.
func (c *config) value(s *setting, f cli.Flag, v *unstable.Node) error {
	text, name := string(v.Data), f.Names()[0]
	wrong := func(want string) error { return c.errorf(s.line, "%s: %s", name, want) }
	switch f.(type) {
	case *cli.BoolFlag:
		if v.Kind != unstable.Bool {
			return wrong("it is true or false")
		}
	case *cli.IntFlag:
		if v.Kind != unstable.Integer {
			return wrong("it is a number")
		}
		n, err := strconv.ParseInt(text, 0, 0)
		if err != nil {
			return wrong(err.Error())
		}
		text = strconv.FormatInt(n, 10)
	case *cli.DurationFlag:
		if _, err := time.ParseDuration(text); err != nil || v.Kind != unstable.String {
			return wrong(`it is a time, such as "30s", "5m" or "2h"`)
		}
	case *cli.StringSliceFlag:
		if v.Kind == unstable.Array {
			for it := v.Children(); it.Next(); {
				switch n := it.Node(); n.Kind {
				case unstable.Comment:
				case unstable.String:
					s.values = append(s.values, string(n.Data))
				default:
					return wrong("it is a text or a list of texts")
				}
			}
			return nil
		}
		if v.Kind != unstable.String {
			return wrong("it is a text or a list of texts")
		}
	default:
		if v.Kind == unstable.Integer {
			text = strings.ReplaceAll(text, "_", "")
		} else if v.Kind != unstable.String {
			return wrong("it is a text")
		}
	}
	s.values = []string{text}
	return nil
}

func (c *config) errorf(line int, format string, args ...any) error {
	return usagef("%s:%d: %s", c.name, line, fmt.Sprintf(format, args...))
}

// get returns what the file says of a flag of a command.
func (c *config) get(command, flag string) (setting, bool) {
	if s, ok := c.values[command][flag]; ok {
		return s, true
	}
	s, ok := c.values[""][flag]
	return s, ok
}

// allFlags returns the flags of all commands.
func allFlags(cmds []*cli.Command) (flags []cli.Flag) {
	for _, cmd := range cmds {
		flags = append(append(flags, cmd.Flags...), allFlags(cmd.Subcommands)...)
	}
	return flags
}

// findCommand returns the command with these names, or nil if it is none that
// does something.
func findCommand(cmds []*cli.Command, names []string) *cli.Command {
	for i, name := range names {
		cmd := find(cmds, name)
		switch {
		case cmd == nil:
			return nil
		case i == len(names)-1 && len(cmd.Subcommands) == 0:
			return cmd
		}
		cmds = cmd.Subcommands
	}
	return nil
}
