package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// leaves calls f for each command that does something, with the names that lead to it.
func leaves(cmds []*cli.Command, names []string, f func(names []string, cmd *cli.Command)) {
	for _, cmd := range cmds {
		at := append(names[:len(names):len(names)], cmd.Name)
		if cmd.Hidden { // it takes its arguments as they are
			continue
		}
		if len(cmd.Subcommands) > 0 {
			leaves(cmd.Subcommands, at, f)
			continue
		}
		f(at, cmd)
	}
}

func testApp() *app { return &app{ui: newUI(os.Stdout, os.Stderr)} }

// someValue returns a value for a flag, as the command line and as TOML have it,
// and what the command then sees.
func someValue(f cli.Flag) (text, toml string, want any) {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true", "true", true
	case *cli.IntFlag:
		return "7", "7", 7
	case *cli.DurationFlag:
		return "7s", `"7s"`, "7s"
	case *cli.StringSliceFlag:
		return "v7", `["v7"]`, []string{"v7"}
	}
	switch f.Names()[0] {
	case "listen":
		return ":7", `":7"`, ":7"
	case "limit-up", "limit-down":
		return "7M", `"7M"`, "7M"
	}
	return "v7", `"v7"`, "v7"
}

// seenBy runs a command line in which the command only looks at a flag.
func seenBy(t *testing.T, names []string, flag string, args ...string) (any, error) {
	t.Helper()
	a := testApp()
	c := a.cli()
	var got any
	cmd := findCommand(c.Commands, names)
	cmd.Action = func(cc *cli.Context) error {
		if err := a.settle(cc); err != nil {
			return a.settings.blame(err)
		}
		got = cc.Value(flag)
		if s, ok := got.(cli.StringSlice); ok {
			got = s.Value()
		}
		if d, ok := got.(fmt.Stringer); ok {
			got = d.String()
		}
		return nil
	}
	var err error
	a.args = append(append([]string{"shoal"}, names...), args...)
	if a.permuted, err = permute(c, a.args); err == nil {
		err = c.RunContext(context.Background(), a.permuted)
	}
	return got, err
}

// Every flag of every command can be given on the command line, as a variable
// and in the configuration, and counts in this order.
func TestEveryFlagCanBeSet(t *testing.T) {
	home := t.TempDir()
	t.Setenv("SHOAL_HOME", home)
	file := filepath.Join(home, "config.toml")
	leaves(testApp().cli().Commands, nil, func(names []string, cmd *cli.Command) {
		for _, f := range cmd.Flags {
			name := f.Names()[0]
			if name == "help" || name == "config" {
				continue
			}
			t.Run(strings.Join(append(names, name), " "), func(t *testing.T) {
				text, toml, want := someValue(f)
				check := func(how string, args ...string) {
					t.Helper()
					got, err := seenBy(t, names, name, args...)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s: the command sees %v (%v), want %v", how, got, err, want)
					}
				}
				check("flag", "--"+name+"="+text)
				variable := env(name)[0]
				t.Setenv(variable, text)
				check("variable")
				must(t, os.Unsetenv(variable))
				for how, line := range map[string]string{
					"config for all":        name + " = " + toml,
					"config of the command": "[" + strings.Join(names, ".") + "]\n" + name + " = " + toml,
				} {
					must(t, os.WriteFile(file, []byte(line+"\n"), 0o644))
					check(how)
				}
				if _, ok := f.(*cli.StringFlag); ok {
					must(t, os.WriteFile(file, []byte(name+" = \"other\"\n["+strings.Join(names, ".")+"]\n"+name+" = "+toml+"\n"), 0o644))
					check("the command's own counts more")
					must(t, os.WriteFile(file, []byte(name+" = \"config\"\n"), 0o644))
					t.Setenv(variable, text)
					check("a variable counts more than the configuration")
					t.Setenv(variable, "variable")
					check("a flag counts more than both", "--"+name, text)
					must(t, os.Unsetenv(variable))
				}
				must(t, os.Remove(file))
			})
		}
	})
}

// A value that cannot be is refused with one line that names the flag, or the
// variable or the line of the configuration, and the value; nothing is started.
func TestU07EveryBadFlag(t *testing.T) {
	dir := t.TempDir()
	shareFile(t, dir, 1000)
	operands := map[string][]string{
		"get": {"data.shoal", "--peer", "127.0.0.1:1"}, "ls": {"data.shoal"}, "share": {"data"},
		"verify": {"data.shoal", "data"}, "manifest create": {"data"}, "manifest show": {"data.shoal"},
	}
	// Values that are bad for what they say. All others are bad for their type.
	bad := map[string]string{
		"limit-up": "fast", "limit-down": "1K", "max-peers": "65", "timeout": "-1s", "stall-timeout": "0s",
		"peer": "x:y", "advertise": "a b", "listen": "here", "name": "../up", "cutter": "knife", "chunk-size": "100",
		"workers": "0", "only": "[", "exclude": "[", "config": "/none/config.toml", "demo size": "1",
	}
	leaves(testApp().cli().Commands, nil, func(names []string, cmd *cli.Command) {
		for _, f := range cmd.Flags {
			name := f.Names()[0]
			if name == "help" {
				continue
			}
			verb := strings.Join(names, " ")
			t.Run(verb+" "+name, func(t *testing.T) {
				t.Parallel()
				values := []string{""}
				switch f.(type) {
				case *cli.BoolFlag:
					values = []string{"maybe"}
				case *cli.IntFlag:
					values = []string{"x", "1.5"}
				case *cli.DurationFlag:
					values = []string{"soon", "5"}
				}
				for _, key := range []string{name, verb + " " + name} {
					if v, ok := bad[key]; ok {
						values = append(values, v)
					}
				}
				for _, v := range values {
					args := append(append(names[:len(names):len(names)], operands[verb]...), "--"+name+"="+v)
					code, msg := shoal(t, dir, args...)
					if code != codeUsage || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, "--"+name) || !strings.Contains(msg, v) {
						t.Errorf("%q: code %d, %q", args, code, msg)
					}
				}
			})
		}
	})
}

// What is wrong with a configuration is said with the line.
func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "\n# x\nlimit-upp = 1\n", "c.toml:3: there is no flag --limit-upp"},
		{"a flag of another command", "[get]\ncutter = \"fixed\"\n", "c.toml:2: there is no flag --cutter of get"},
		{"unknown command", "[gte]\n", `c.toml:1: there is no command "gte"`},
		{"no command by itself", "[manifest]\n", `c.toml:1: there is no command "manifest"`},
		{"short name", "[get]\no = \"x\"\n", "c.toml:2: there is no flag --o of get"},
		{"itself", "config = \"x\"\n", "c.toml:1: there is no flag --config"},
		{"dotted", "get.timeout = \"1s\"\n", "c.toml:1: there is no flag --get.timeout"},
		{"twice", "json = true\njson = false\n", "c.toml:2: json is there twice"},
		{"in another table", "[get]\njson = true\n[ls]\n[get]\njson = true\n", "c.toml:5: json is there twice"},
		{"array of tables", "[[get]]\n", "c.toml:1: [[get]]: a command is written [get]"},
		{"inline table", "get = {json = true}\n", "c.toml:1: there is no flag --get"},
		{"bool", "json = \"yes\"\n", "c.toml:1: json: it is true or false"},
		{"number", "[demo]\nsize = \"300\"\n", "c.toml:2: size: it is a number"},
		{"large number", "[demo]\nsize = 99999999999999999999\n", "c.toml:2: size: "},
		{"time", "timeout = 5\n", "c.toml:1: timeout: it is a time"},
		{"list", "peer = [\"a:1\", 2]\n", "c.toml:1: peer: it is a text or a list of texts"},
		{"list for one", "name = [\"a\"]\n", "c.toml:1: name: it is a text"},
		{"date", "name = 2026-01-01\n", "c.toml:1: name: it is a text"},
		{"bad value", "\n\nlimit-up = \"fast\"\n", `c.toml:3: limit-up "fast": it is bytes/s`},
		{"empty", "[share]\nname = \"\"\n", `c.toml:2: name "": it is empty`},
		{"syntax", "json = true\njson\n", "c.toml:2: "},
		{"no value", "json =\n", "c.toml:1: "},
		{"no end of string", "json = true\nname = \"x\n", "c.toml:2: "},
		{"not UTF-8", "name = \"\xff\"\n", "c.toml:1: "},
		{"NUL", "\x00", "c.toml:1: "},
		{"dots", "a" + strings.Repeat(".a", 30_000) + " = 1\n", "c.toml:1: there is no flag --a.a"},
		{"brackets", "peer = " + strings.Repeat("[", 60_000) + "\n", "c.toml:1: "},
		{"braces", "peer = " + strings.Repeat("{a=", 20_000) + "\n", "c.toml:1: "},
		{"too large", strings.Repeat("#", maxConfig+1), fmt.Sprintf("has more than %d bytes", maxConfig)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			must(t, os.WriteFile(file, []byte(tt.text), 0o644))
			_, err := seenBy(t, []string{"share"}, "name", "--config", file)
			if err == nil && tt.name == "bad value" { // found by the command
				a := testApp()
				a.args = []string{"shoal", "share", file, "--config", file}
				err = a.run(context.Background())
			}
			code, msg := 0, ""
			if err != nil {
				code, msg = explain(err)
			}
			if code != codeUsage || !strings.Contains(msg, tt.want) || len(msg) > 3000 {
				t.Errorf("code %d, %q, want %q", code, msg, tt.want)
			}
		})
	}
}

// A configuration as long as it may be costs little, whatever is in it.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("limit-up = \"2M\"\n[get]\ntimeout = \"1h\"\npeer = [\"a:1\", # one\n \"b:2\"]\n"))
	f.Add([]byte("[manifest.create]\nworkers = 0x2\n"))
	f.Add([]byte("a.b.c = {x = [1, 2]}\n[[x]]\n"))
	f.Add([]byte("name = '''\nx'''\n"))
	cmds := testApp().cli().Commands
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &config{name: "c.toml", values: map[string]map[string]setting{}}
		if err := c.parse(text, cmds); err != nil {
			if code, msg := explain(err); code != codeUsage || !strings.HasPrefix(msg, "c.toml:") {
				t.Errorf("code %d, %q", code, msg)
			}
			return
		}
		for command, flags := range c.values {
			for name, s := range flags {
				if s.line < 1 || command != "" && findCommand(cmds, strings.Fields(command)) == nil || lookup(allFlags(cmds), name) == nil {
					t.Errorf("%q %q at line %d", command, name, s.line)
				}
			}
		}
	})
}
