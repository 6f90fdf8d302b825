package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// eachVerb calls f for each command that does something.
func eachVerb(prefix string, cmds []*cli.Command, f func(name string, c *cli.Command)) {
	for _, c := range cmds {
		if len(c.Subcommands) > 0 {
			eachVerb(prefix+" "+c.Name, c.Subcommands, f)
		} else if !c.Hidden {
			f(prefix+" "+c.Name, c)
		}
	}
}

// The help of each command starts with three examples, and shoal understands each.
func TestExamples(t *testing.T) {
	a := &app{ui: newUI(os.Stdout, os.Stderr)}
	eachVerb("shoal", a.cli().Commands, func(name string, c *cli.Command) {
		lines := examplesOf(c)
		if len(lines) < 3 || !strings.HasPrefix(c.CustomHelpTemplate, "EXAMPLES:\n   ") {
			t.Errorf("%s has %d examples", name, len(lines))
		}
		for _, line := range lines {
			for _, part := range strings.Split(line, "|") {
				part = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(part), "source <("), ")")
				if !strings.HasPrefix(part, "shoal ") {
					continue
				}
				ran := ""
				p := a.cli()
				p.Writer = io.Discard
				eachVerb("shoal", p.Commands, func(name string, c *cli.Command) {
					c.Action = func(cc *cli.Context) error {
						ran = name
						return nil
					}
				})
				p.Action = func(cc *cli.Context) error {
					if ran = "shoal version"; !cc.Bool("version") {
						t.Errorf("%q is no command", part)
					}
					return nil
				}
				args, err := permute(p, splitLine(t, part))
				if err == nil {
					err = p.Run(args)
				}
				if err != nil || ran == "" {
					t.Errorf("%s: %q runs %q: %v", name, part, ran, err)
				}
			}
		}
	})
}

// splitLine splits a line as a shell does.
func splitLine(t *testing.T, line string) (words []string) {
	t.Helper()
	out, err := exec.Command("sh", "-f", "-c", `printf '%s\n' `+line).Output()
	if err != nil {
		skip(t, "no shell: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestVerbFirst(t *testing.T) {
	for in, want := range map[string]string{
		"shoal:abc":                    "get -- shoal:abc",
		"shoal:abc DIR --seed":         "get --seed -- shoal:abc DIR",
		"--seed shoal:abc":             "get --seed -- shoal:abc",
		"--quiet share P":              "share --quiet -- P",
		"-q --name get share P":        "share -q --name get -- P",
		"--name=x share P -q":          "share --name=x -q -- P",
		"--peer a:1 get T":             "get --peer a:1 -- T",
		"--version get":                "--version get",
		"--nope get T":                 "--nope get T",
		"--quiet":                      "--quiet",
		"-- get":                       "-- get",
		"--output m manifest create P": "manifest create --output m -- P",
		"manifest --output m create P": "manifest create --output m -- P",
		"--quiet manifest show P":      "manifest show --quiet -- P",
	} {
		a := &app{ui: newUI(os.Stdout, os.Stderr)}
		got, err := permute(a.cli(), append([]string{"shoal"}, strings.Fields(in)...))
		if err != nil || strings.Join(got[1:], " ") != want {
			t.Errorf("%s: %q, %v; want %s", in, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"share", "get", "resume", "status", "forget", "verify", "manifest", "overwrite"}
	for got, want := range map[string]string{
		"shrae": "share", "gte": "get", "res": "resume", "statsus": "status", "verfiy": "verify", "manifets": "manifest",
		"ovrewrtie": "", "overwirtte": "overwrite", "x": "", "frget": "forget", "upload": "",
	} {
		if n := nearest(got, names); n != want {
			t.Errorf("nearest(%s) = %q, want %q", got, n, want)
		}
	}
}

// Each page is taken by groff without a warning.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code, msg := shoal(t, dir, "man", "--dir", "man1"); code != 0 {
		t.Fatal(msg)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man1", "*.1"))
	must(t, err)
	a := &app{ui: newUI(os.Stdout, os.Stderr)}
	num := 1
	eachVerb("shoal", a.cli().Commands, func(name string, _ *cli.Command) {
		num++
		if _, err := os.Stat(filepath.Join(dir, "man1", strings.ReplaceAll(name, " ", "-")+".1")); err != nil {
			t.Error(err)
		}
	})
	if len(pages) != num {
		t.Errorf("%d pages for %d commands", len(pages), num)
	}
	if out := output(t, dir, "man", "manifest", "create"); !strings.Contains(out, ".SH NAME") {
		t.Errorf("man manifest create printed %q", out)
	}
	if _, err := exec.LookPath("groff"); err != nil {
		skip(t, "groff is not installed")
	}
	for _, p := range pages {
		cmd := exec.CommandContext(t.Context(), "groff", "-man", "-ww", "-Tutf8", "-P-c", p)
		var warned bytes.Buffer
		cmd.Stderr = &warned
		out, err := cmd.Output()
		if err != nil || warned.Len() > 0 {
			t.Errorf("%s: %v, %s", p, err, warned.String())
		}
		out = regexp.MustCompile(".\x08").ReplaceAll(out, nil) // bold and underlined
		for _, want := range []string{"NAME", "SYNOPSIS", "shoal"} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s does not show %q", p, want)
			}
		}
	}
}

func TestCandidates(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "share get adopt resume",
		"sta":                     "status",
		"get --over":              "--overwrite",
		"get --peer a:1 --pe":     "--peer",
		"get --overwrite --overw": "",
		"get -o ":                 "",
		"get T ":                  "",
		"manifest ":               "create show",
		"shoal:abc --see":         "--seed",
		"completion f":            "fish",
		"share -- --n":            "",
		"__":                      "",
	} {
		a := &app{ui: newUI(os.Stdout, os.Stderr)}
		var got []string
		for _, c := range candidates(a.cli(), strings.Split(in, " ")) {
			got = append(got, c.word)
		}
		if s := strings.Join(got, " "); !strings.HasPrefix(s, want) || want == "" && s != "" {
			t.Errorf("%q: %q, want %q", in, s, want)
		}
	}
}

// The scripts work in the shells that they are for.
func TestCompletion(t *testing.T) {
	for shell, try := range map[string]struct{ script, want string }{
		"bash": {`source <(shoal completion bash)
COMP_WORDS=(shoal get --over); COMP_CWORD=2; _shoal; echo "${COMPREPLY[@]}"
COMP_WORDS=(shoal fo); COMP_CWORD=1; _shoal; echo "${COMPREPLY[@]}"
complete -p shoal`, "--overwrite\nforget\ncomplete -o default -F _shoal shoal\n"},
		"zsh": {`compdef() { }
source <(shoal completion zsh)
_describe() { print -r -- "${(P)3}" }
_files() { print files }
words=(shoal get --over) CURRENT=3; _shoal
words=(shoal fo) CURRENT=2; _shoal
words=(shoal get T '') CURRENT=4; _shoal`, "--overwrite:replace files that are there and differ\nforget:drop an interrupted get and what it has fetched\nfiles\n"},
		"fish": {`shoal completion fish | source
complete -C "shoal get --over"
complete -C "shoal fo"`, "--overwrite\treplace files that are there and differ\nforget\tdrop an interrupted get and what it has fetched\n"},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell); err != nil {
				skip(t, "%s is not installed", shell)
			}
			args := []string{"-c", try.script}
			if shell == "zsh" {
				args = append([]string{"-f"}, args...)
			}
			cmd := exec.CommandContext(t.Context(), shell, args...)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "SHOAL_HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "XDG_CACHE_HOME="+cmd.Dir)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || string(out) != try.want {
				t.Errorf("%v\n%s\nstderr: %s", err, out, stderr.String())
			}
		})
	}
}
