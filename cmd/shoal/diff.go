package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) manifestDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "say how two shares differ, and what an update would fetch",
		ArgsUsage: "OLD NEW",
		Description: "Each of OLD and NEW is a manifest file or a ticket. One line a file, folder or link that\n" +
			"was added, removed, changed, moved, or has only another mode or time (meta). Small files\n" +
			"that share a chunk with one that has changed are compared by size and time: those lines\n" +
			"say \"likely\". Exits with 0 whether they differ or not; with --exit-code with 1 if they do.\n\n" +
			"shoal manifest diff may.shoal june.shoal\n" +
			"shoal manifest diff photos.shoal shoal:... --peer laptop:7420\n" +
			"shoal manifest diff a.shoal b.shoal --exit-code --quiet",
		Flags: []cli.Flag{
			listFlag("peer", "ask the peer at `HOST:PORT` for what a ticket names; may be repeated"),
			&cli.DurationFlag{Name: "timeout", Usage: "give up when no peer answers for `TIME`", Value: 30 * time.Second, EnvVars: env("timeout")},
			boolFlag("exit-code", "exit with 1 if the two differ"),
			boolFlag("json", "print JSON lines"),
		},
		Action: a.manifestDiff,
	}
}

// errDiffer ends a diff whose exit code says that there are differences.
var errDiffer = errors.New("the two differ")

func (a *app) manifestDiff(cc *cli.Context) error {
	args, err := arguments(cc, 2, 2)
	if err != nil {
		return err
	}
	var ms [2]*manifest.Manifest
	for i, arg := range args {
		src, err := parseSource(arg)
		if err != nil {
			return err
		}
		if ms[i], err = a.resolve(cc.Context, cc, src); err != nil {
			return err
		}
	}
	c := manifest.Compare(ms[0], ms[1])
	if cc.Bool("json") {
		for _, d := range c.Changes {
			if err := a.event("change", map[string]any{
				"kind": d.Kind.String(), "path": d.Path, "from": d.From, "entry": kindText(d.Entry.New), "size": d.Size, "fetch": d.Fetch, "sure": d.Sure,
			}); err != nil {
				return err
			}
		}
		if err := a.event("changes", map[string]any{"differences": len(c.Changes), "fetch": c.Fetch, "chunks": c.NumChunks}); err != nil {
			return err
		}
	} else if err := a.print(func(w io.Writer) {
		for _, d := range c.Changes {
			fmt.Fprintln(w, escape(changeText(d)))
		}
	}); err != nil {
		return err
	}
	if ms[0].Cutter().String() != ms[1].Cutter().String() {
		a.sayf("the two are cut in different ways (%s, %s), so files are compared by size and time", ms[0].Cutter(), ms[1].Cutter())
	}
	a.sayf("%s", comparisonText(c))
	if cc.Bool("exit-code") && ms[0].Root() != ms[1].Root() {
		return &codedError{code: codeOther, err: errDiffer}
	}
	return nil
}

func changeText(d manifest.Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s", d.Kind)
	switch {
	case d.Entry.Old != d.Entry.New:
		fmt.Fprintf(&b, "%s, was a %s", kindText(d.Entry.New), kindText(d.Entry.Old))
	case d.Entry.New != manifest.File:
		b.WriteString(kindText(d.Entry.New))
	case d.Kind == manifest.Changed:
		fmt.Fprintf(&b, "%s of %s", bytesText(d.Fetch), bytesText(d.Size))
	default:
		b.WriteString(bytesText(d.Size))
	}
	if !d.Sure {
		b.WriteString(", likely")
	}
	b.WriteString("  ")
	if d.From != "" {
		b.WriteString(d.From + " -> ")
	}
	b.WriteString(d.Path)
	return b.String()
}

func comparisonText(c *manifest.Comparison) string {
	var num [5]int
	for _, d := range c.Changes {
		num[d.Kind]++
	}
	var parts []string
	for k, n := range num {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, manifest.ChangeKind(k)))
		}
	}
	if len(parts) == 0 {
		parts = []string{"no entry differs"}
	}
	return fmt.Sprintf("%s; an update fetches %s in %s", strings.Join(parts, ", "), bytesText(c.Fetch), count(c.NumChunks, "chunk"))
}
