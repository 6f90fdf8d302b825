package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// permute moves the flags of a command before its arguments, so that they may
// stand anywhere, as GNU has it: "shoal get TICKET DIR -o x" becomes "shoal get
// -o x -- TICKET DIR". What follows "--" is not looked at. A short flag may
// have its value attached, as in -ox; flags may also stand before the command. "shoal help get" becomes "shoal get --help".
func permute(a *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	head, rest := args[:1:1], args[1:]
	if rest[0] == "help" {
		rest = append(rest[1:len(rest):len(rest)], "--help")
	}
	// What stands before the command then are flags of the program itself.
	cmds := a.Commands
	flags := a.Flags
	for len(cmds) > 0 {
		rest = verbFirst(cmds, flags, rest)
		if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
			return append(head, rest...), nil
		}
		cmd := find(cmds, rest[0])
		if cmd == nil {
			return append(head, rest...), nil
		}
		head, rest = append(head, rest[0]), rest[1:]
		cmds, flags = cmd.Subcommands, cmd.Flags
	}

	var opts, operands []string
	for i := 0; i < len(rest); i++ {
		arg := rest[i]
		if arg == "--" {
			operands = append(operands, rest[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			operands = append(operands, arg)
			continue
		}
		name, _, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		f := lookup(flags, name)
		if f == nil && arg[1] != '-' {
			if short := lookup(flags, arg[1:2]); short != nil && takesValue(short) {
				opts = append(opts, arg[:2], arg[2:])
				continue
			}
		}
		opts = append(opts, arg)
		if f != nil && takesValue(f) && !hasValue {
			if i++; i == len(rest) {
				return nil, &usageError{msg: "flag " + arg + " needs a value", see: strings.Join(append([]string{"shoal"}, head[1:]...), " ") + " --help"}
			}
			opts = append(opts, rest[i])
		}
	}
	out := append(head, opts...)
	if len(operands) > 0 {
		out = append(append(out, "--"), operands...)
	}
	return out, nil
}

func find(cmds []*cli.Command, name string) *cli.Command {
	for _, c := range cmds {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func lookup(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// sameLine returns the line that goes on with what this one did. Secrets are not in
// it, and then it says so.
func (a *app) sameLine() string {
	line := quoteLine(a.args)
	if slices.ContainsFunc(a.args, func(arg string) bool { return withoutSecrets(arg) != arg }) {
		line += " (with the URL as it was: its user, password and query are not shown)"
	}
	return line
}

// quoteLine returns args as a line for a shell, without the secrets in URLs.
func quoteLine(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quoteArg(withoutSecrets(arg)))
	}
	return b.String()
}

// quoteArg returns s as one word of a POSIX shell. Bytes that could not be printed
// are written as their numbers, as bash, zsh and POSIX since 2024 read them.
func quoteArg(s string) string {
	plain, odd := s != "", !utf8.ValidString(s)
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_@%+=:,./-", c) >= 0) {
			plain = false
		}
		odd = odd || c < ' ' || c == 0x7f
	}
	switch {
	case plain:
		return s
	case !odd:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	b := []byte("$'")
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = fmt.Appendf(b, `\%03o`, c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '\''))
}
