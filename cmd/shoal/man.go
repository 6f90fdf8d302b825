package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v2"
)

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print or install the manual pages",
		ArgsUsage: "[COMMAND]",
		Description: "Prints the page of shoal, or of one command, for man; with --dir it writes all of them.\n\n" +
			"shoal man get | man -l -\n" +
			"shoal man manifest create\n" +
			"shoal man --dir ~/.local/share/man/man1\n" +
			"shoal man",
		Flags:  []cli.Flag{stringFlag("dir", "write all pages into `DIR`")},
		Action: a.man,
	}
}

func (a *app) man(cc *cli.Context) error {
	args, err := arguments(cc, 0, 2)
	if err != nil {
		return err
	}
	pages := manPages(a.cli())
	if dir := cc.String("dir"); dir != "" {
		if len(args) > 0 {
			return usagef("--dir writes all pages; leave %q out", args[0])
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, p := range pages {
			if err := os.WriteFile(filepath.Join(dir, p.name+".1"), p.roff(), 0o644); err != nil {
				return err
			}
		}
		a.sayf("%s in %s", count(len(pages), "page"), dir)
		return nil
	}
	want := strings.Join(append([]string{"shoal"}, args...), "-")
	for _, p := range pages {
		if p.name == want {
			_, err := a.stdout.Write(p.roff())
			return err
		}
	}
	group := find(a.cli().Commands, args[0])
	switch {
	case group == nil || len(group.Subcommands) == 0:
		return unknownCommand(strings.Join(args, " "), a.cli().Commands)
	case len(args) > 1:
		return unknownCommand(args[1], group.Subcommands)
	}
	var lines []string
	for _, sub := range group.Subcommands {
		lines = append(lines, "shoal man "+group.Name+" "+sub.Name)
	}
	return usagef("each command of %s has its own page: %s", group.Name, strings.Join(lines, ", "))
}

// A manPage is one page, in Markdown.
type manPage struct {
	name string
	text string
}

func (p manPage) roff() []byte { return md2man.Render([]byte(p.text)) }

// manPages returns a page for the program and one for each command.
func manPages(c *cli.App) []manPage {
	var b strings.Builder
	manHead(&b, "shoal", c.Usage)
	b.WriteString("# SYNOPSIS\n\n**shoal** COMMAND [FLAGS] [ARGUMENTS]\n\n**shoal** TICKET [FLAGS] [DIR]\n\n# DESCRIPTION\n\n")
	b.WriteString("shoal shares a file or a directory, and fetches it from many peers at once. Every chunk is checked before it counts, every stop can be resumed, and nothing outside the folder that you name is touched. A ticket that stands alone means get.\n\n# COMMANDS\n\n")
	var pages []manPage
	var also []string
	var walk func(prefix string, cmds []*cli.Command)
	walk = func(prefix string, cmds []*cli.Command) {
		for _, cmd := range cmds {
			if cmd.Hidden || cmd.Name == "help" {
				continue
			}
			name := prefix + " " + cmd.Name
			if len(cmd.Subcommands) > 0 {
				walk(name, cmd.Subcommands)
				continue
			}
			fmt.Fprintf(&b, "**%s** %s\n: %s\n\n", name, manText(cmd.ArgsUsage), manText(cmd.Usage))
			page := strings.ReplaceAll(name, " ", "-")
			also = append(also, "**"+page+"**(1)")
			pages = append(pages, manPage{page, manCommandText(name, page, cmd)})
		}
	}
	walk("shoal", c.Commands)
	b.WriteString("# ENVIRONMENT\n\nEach long flag has a variable: --listen is SHOAL\\_LISTEN. SHOAL\\_HOME is where shoal keeps what it remembers.\n\n")
	b.WriteString("# EXIT STATUS\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, "**%d**\n: %s\n\n", c.code, c.means)
	}
	b.WriteString("**128 and more**\n: interrupted by a signal, 128 and its number: 129 SIGHUP, 130 SIGINT, 143 SIGTERM; the same line goes on\n\n")
	fmt.Fprintf(&b, "# SEE ALSO\n\n%s\n", strings.Join(also, ", "))
	return append([]manPage{{"shoal", b.String()}}, pages...)
}

func manHead(b *strings.Builder, page, usage string) {
	fmt.Fprintf(b, "%% %s 1 \"\" \"shoal %s\" \"shoal\"\n\n# NAME\n\n%s - %s\n\n", strings.ToUpper(page), version, manText(page), manText(usage))
}

func manCommandText(name, page string, cmd *cli.Command) string {
	var b strings.Builder
	manHead(&b, page, cmd.Usage)
	fmt.Fprintf(&b, "# SYNOPSIS\n\n**%s** [FLAGS] %s\n\n", name, manText(cmd.ArgsUsage))
	if lines := examplesOf(cmd); len(lines) > 0 {
		b.WriteString("# EXAMPLES\n\n")
		for _, l := range lines {
			b.WriteString("    " + l + "\n")
		}
		b.WriteString("\n")
	}
	if cmd.Description != "" {
		fmt.Fprintf(&b, "# DESCRIPTION\n\n%s\n\n", manText(cmd.Description))
	}
	b.WriteString("# OPTIONS\n\n")
	for _, f := range cmd.VisibleFlags() {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		placeholder, usage := flagUsage(d)
		var names []string
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, "**"+dashes+n+"**")
		}
		fmt.Fprintf(&b, "%s %s\n: %s\n\n", strings.Join(names, ", "), manText(placeholder), manText(usage))
	}
	b.WriteString("# SEE ALSO\n\n**shoal**(1)\n")
	return b.String()
}

// flagUsage returns the word that stands for a flag's value, and what the flag does.
func flagUsage(f cli.DocGenerationFlag) (placeholder, usage string) {
	usage = f.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if word, after, ok := strings.Cut(rest, "`"); ok {
			placeholder, usage = word, before+word+after
		}
	} else if f.TakesValue() {
		placeholder = "VALUE"
	}
	if d := f.GetDefaultText(); d != "" && f.TakesValue() && d != `""` {
		usage += " (default: " + d + ")"
	}
	return placeholder, usage
}

// manText escapes what means something in Markdown.
func manText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`, "`", "\\`").Replace(s)
}

// exitCodes are what README.md lists.
var exitCodes = []struct {
	code  int
	means string
}{
	{0, "done"},
	{codeOther, "something else is wrong"},
	{codeUsage, "the command line cannot be carried out"},
	{codeNoShare, "no peer has this share"},
	{codeNoPeer, "no peer can be reached"},
	{codeInterrupted, "interrupted; the same line goes on"},
	{codeIntegrity, "what came, or what is there, is not what it should be"},
	{codeDisk, "the disk: space or permission"},
	{codeRefused, "refused: a name, a file that is there, a manifest that breaks a rule"},
	{codePartly, "partly done"},
	{codeStalled, "stalled"},
	{codeRunning, "another process is at work on it"},
}
