package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// verbFirst moves the command before flags that stand in front of it, and puts get
// before a ticket that stands alone. own are the flags that may stand before it.
func verbFirst(cmds []*cli.Command, own []cli.Flag, args []string) []string {
	i := 0
	for ; i < len(args) && len(args[i]) > 1 && args[i][0] == '-'; i++ {
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		f := anyFlag(cmds, name)
		if f == nil || args[i] == "--" || lookup(own, name) != nil {
			return args
		}
		if takesValue(f) && !hasValue {
			i++
		}
	}
	switch {
	case i >= len(args):
	case isTicket(args[i]) && find(cmds, "get") != nil:
		return append([]string{"get"}, args...)
	case i > 0 && find(cmds, args[i]) != nil:
		out := append([]string{args[i]}, args[:i]...)
		return append(out, args[i+1:]...)
	}
	return args
}

func isTicket(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), "shoal:") }

// anyFlag returns the flag of any command that has this name, or nil.
func anyFlag(cmds []*cli.Command, name string) cli.Flag {
	for _, c := range cmds {
		if f := lookup(c.Flags, name); f != nil {
			return f
		}
		if f := anyFlag(c.Subcommands, name); f != nil {
			return f
		}
	}
	return nil
}

// unknownCommand says what was probably meant.
func unknownCommand(name string, cmds []*cli.Command) error {
	if find(cmds, "share") != nil {
		if fi, err := os.Lstat(name); err == nil {
			what := "share it: shoal share " + quoteArg(name)
			if fi.Mode().IsRegular() && filepath.Ext(name) == ".shoal" {
				what = "fetch what it lists: shoal get " + quoteArg(name) + " --peer HOST:PORT"
			}
			return &usageError{msg: fmt.Sprintf("%q is a file or a folder, and no command; to %s", name, what), see: "shoal --help"}
		}
	}
	msg := fmt.Sprintf("there is no command %q", name)
	var names []string
	for _, c := range cmds {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	if best := nearest(name, names); best != "" {
		msg += fmt.Sprintf("; did you mean %s?", best)
	}
	return &usageError{msg: msg, see: "shoal --help"}
}

// unknownFlag says which flag was probably meant.
func unknownFlag(flag string, flags []cli.Flag) string {
	dashes := "--"
	if len(flag) == 1 {
		dashes = "-"
	}
	msg := "there is no flag " + dashes + flag
	var names []string
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, n)
			}
		}
	}
	if best := nearest(flag, names); best != "" {
		msg += "; did you mean --" + best + "?"
	}
	return msg
}

// nearest returns the one of names that got could be a slip for, or "".
func nearest(got string, names []string) string {
	for _, n := range names {
		if near(got, n) {
			return n
		}
	}
	for _, n := range names { // two slips in a long word
		if len(n) > 4 && distance(got, n) <= 2 {
			return n
		}
	}
	return ""
}

// distance returns how many letters have to be changed, added or taken away.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// examples splits the description of a command into its text and its examples,
// which follow behind the last empty line.
func examples(cmd *cli.Command) (text string, lines []string) {
	i := strings.LastIndex("\n\n"+cmd.Description, "\n\n")
	text, last := strings.TrimSpace(cmd.Description[:max(0, i-2)]), cmd.Description[i:]
	for l := range strings.SplitSeq(strings.TrimSpace(last), "\n") {
		if !strings.Contains(l, "shoal ") {
			return strings.TrimSpace(cmd.Description), nil // there are none
		}
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		return strings.TrimSpace(cmd.Description), nil
	}
	return text, lines
}

// withExamples makes the help of a command start with them.
func withExamples(cmd *cli.Command) {
	text, lines := examples(cmd)
	if len(lines) == 0 {
		return
	}
	cmd.Description = text
	var b strings.Builder
	b.WriteString("EXAMPLES:\n")
	for _, l := range lines {
		b.WriteString("   " + l + "\n")
	}
	cmd.CustomHelpTemplate = b.String() + "\n" + cli.CommandHelpTemplate
}

// examplesOf returns what withExamples has found.
func examplesOf(cmd *cli.Command) (lines []string) {
	head, _, _ := strings.Cut(cmd.CustomHelpTemplate, "\n\n")
	for l := range strings.SplitSeq(head, "\n") {
		if l, ok := strings.CutPrefix(l, "   "); ok {
			lines = append(lines, l)
		}
	}
	return lines
}
