// Command shoal shares a file or a directory and fetches it from many peers at
// once. README.md says how to use it; each file here is one command or one
// thing that the commands share.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shoal-p2p/shoal/transfer"
)

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		// The collector works harder near it: a share of a million files would
		// otherwise take twice as much while it is being listed.
		debug.SetMemoryLimit(200 << 20)
	}
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main without os.Exit. args[0] is the program's name.
func run(args []string, stdout, stderr *os.File) int {
	for _, v := range os.Environ() { // a variable that is empty is as good as none
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "SHOAL_") {
			_ = os.Unsetenv(name)
		}
	}
	a := &app{args: args, ui: newUI(stdout, stderr), onTerminal: term.IsTerminal(int(stderr.Fd()))}
	ctx, stop := withSignals(context.Background(), a.hangup, a.printStatus, a.struck)
	defer stop()
	return a.guard(func() int {
		err := a.run(ctx)
		a.finishBar()
		return a.report(err)
	})
}

// printStatus prints one line that says how far things are.
func (a *app) printStatus() {
	text := "nothing to say yet"
	if f := a.toTell.Load(); f != nil {
		text = (*f)()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line("shoal: " + text) // it was asked for, so --quiet does not matter
}

// An app is one run of the program.
type app struct {
	*ui
	args     []string // as they were typed, for the line that resumes
	permuted []string // flags first, as the library wants them

	settingsMu sync.Mutex
	settings   settings
	up, down   int64 // the limits, in bytes/s; 0: none
	onTerminal bool  // stderr was one at the start

	toTell atomic.Pointer[func() string] // says how far things are; nil: nobody knows
	limits transfer.Limits

	homeOnce sync.Once // to warn that there is no place for the state
}

func (a *app) run(ctx context.Context) error {
	c := a.cli()
	var err error
	if a.permuted, err = permute(c, a.args); err != nil {
		return err
	}
	a.warnOfVariables(c.Commands)
	return c.RunContext(ctx, a.permuted)
}

func (a *app) cli() *cli.App {
	c := &cli.App{
		Name:            "shoal",
		Usage:           "share a file or a directory, and fetch it from many peers at once",
		UsageText:       "shoal COMMAND [FLAGS] [ARGUMENTS]\nshoal TICKET [FLAGS] [DIR], which means get",
		Description:     "shoal COMMAND --help has examples of a command, and all its flags.",
		HideHelpCommand: true,
		HideVersion:     true,
		// Globs hold commas.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		OnUsageError:              onUsageError,
		Writer:                    a.stdout,
		ErrWriter:                 io.Discard,
		Commands: []*cli.Command{
			a.shareCommand(),
			a.getCommand(),
			a.adoptCommand(),
			a.resumeCommand(),
			a.statusCommand(),
			a.forgetCommand(),
			a.whyCommand(),
			a.doctorCommand(),
			a.lsCommand(),
			a.verifyCommand(),
			a.packCommand(),
			a.manifestCommand(),
			a.demoCommand(),
			a.manCommand(),
			a.completionCommand(),
			a.versionCommand(),
			a.completeCommand(),
		},
	}
	c.CustomAppHelpTemplate = "EXAMPLES:\n   shoal share photos\n   shoal get shoal:...\n   shoal resume\n\n" + cli.AppHelpTemplate
	c.Flags = []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version"}}
	c.Action = func(cc *cli.Context) error {
		if cc.Bool("version") {
			return a.printVersion(false)
		}
		if name := cc.Args().First(); name != "" {
			return unknownCommand(name, c.Commands)
		}
		return cli.ShowAppHelp(cc)
	}
	a.prepare(c.Commands)
	return c
}

// prepare gives all commands what they have in common.
func (a *app) prepare(cmds []*cli.Command) {
	for _, cmd := range cmds {
		cmd.HideHelpCommand = true
		cmd.OnUsageError = onUsageError
		if len(cmd.Subcommands) > 0 {
			a.prepare(cmd.Subcommands)
			subs := cmd.Subcommands
			cmd.Action = func(cc *cli.Context) error {
				if name := cc.Args().First(); name != "" {
					return unknownCommand(name, subs)
				}
				return cli.ShowSubcommandHelp(cc)
			}
			continue
		}
		cmd.Flags = append(
			cmd.Flags,
			boolFlag("quiet", "print nothing but results and errors", "q"),
			boolFlag("debug", "print what goes on inside"),
			stringFlag("config", "read the defaults of flags from `FILE` instead of config.toml in the place for configurations"),
		)
		withExamples(cmd)
		action := cmd.Action
		cmd.Action = func(cc *cli.Context) error {
			err := a.settle(cc)
			a.set(cc.Bool("quiet"), cc.Bool("debug"))
			a.json = err == nil && cc.Bool("json")
			if err == nil {
				err = action(cc)
			}
			return a.settings.blame(err)
		}
	}
}

// near reports whether got could be a slip for want: a letter wrong, missing,
// too many or swapped with the next, or a beginning of it.
func near(got, want string) bool {
	if len(got) >= 2 && strings.HasPrefix(want, got) {
		return true
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	g, w := got[i:], want[i:]
	switch {
	case g == "" || w == "":
		return len(g)+len(w) <= 1
	case g[1:] == w[1:], g[1:] == w, g == w[1:]:
		return true
	}
	return len(g) > 1 && len(w) > 1 && g[0] == w[1] && g[1] == w[0] && g[2:] == w[2:]
}

// onUsageError makes the errors of the flag library ours.
func onUsageError(cc *cli.Context, err error, _ bool) error {
	see := "shoal --help"
	if cc.Command != nil && cc.Command.HelpName != "" {
		see = cc.Command.HelpName + " --help"
	}
	var flags []cli.Flag
	if cc.Command != nil {
		flags = cc.Command.Flags
	}
	msg := flagErrorText(err.Error(), flags)
	if flag, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		var flags []cli.Flag
		if cc.Command != nil {
			flags = cc.Command.Flags
		}
		msg = unknownFlag(flag, flags)
	}
	return &usageError{msg: msg, see: see}
}

// A usageError reports a command line that cannot be carried out.
type usageError struct {
	msg string
	see string // command that helps, or ""
}

func (e *usageError) Error() string {
	if e.see == "" {
		return e.msg
	}
	return e.msg + " (see " + e.see + ")"
}

func usagef(format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// arguments returns the arguments of a command, which must be between lo and hi
// in number; hi < 0 is no limit.
func arguments(cc *cli.Context, lo, hi int) ([]string, error) {
	args := withTicket(cc.Command.ArgsUsage, cc.Args().Slice())
	see := "shoal " + cc.Command.FullName() + " --help"
	switch {
	case len(args) < lo:
		return nil, &usageError{msg: fmt.Sprintf("%s needs %s", cc.Command.FullName(), cc.Command.ArgsUsage), see: see}
	case hi >= 0 && len(args) > hi:
		return nil, &usageError{msg: fmt.Sprintf("%s has no use for %q", cc.Command.FullName(), args[hi]), see: see}
	}
	for _, arg := range args {
		if arg == "" {
			return nil, &usageError{msg: "an argument of " + cc.Command.FullName() + " is empty", see: see}
		}
	}
	return args, nil
}

// env names the variable that stands for a flag.
func env(name string) []string {
	return []string{"SHOAL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func boolFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, Aliases: aliases, EnvVars: env(name)}
}

func stringFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Usage: usage, Aliases: aliases, EnvVars: env(name)}
}

func listFlag(name, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func intFlag(name, usage, byDefault string) cli.Flag {
	return &cli.IntFlag{Name: name, Usage: usage, DefaultText: byDefault, EnvVars: env(name)}
}

// errStdout is the cause of a get that ends because nobody reads its output.
var errStdout = errors.New("standard output was closed")
