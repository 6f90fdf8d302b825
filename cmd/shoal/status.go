package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "list interrupted gets",
		ArgsUsage: "[DIR]",
		Description: "One line each: how much is there, since when, where it goes, from whom, and whether a\n" +
			"process is at work on it. Looks in DIR, the current folder unless given, and wherever an\n" +
			"earlier get was. One that was moved is found again when DIR names the folder it is in.\n\n" +
			"shoal status\n" +
			"shoal status /data\n" +
			"shoal status --json",
		Flags:  []cli.Flag{boolFlag("json", "print JSON lines")},
		Action: a.status,
	}
}

func (a *app) status(cc *cli.Context) error {
	args, err := arguments(cc, 0, 1)
	if err != nil {
		return err
	}
	dir := append(args, ".")[0]
	if err := existingFolder(dir); err != nil {
		return err
	}
	all, err := a.pending(dir)
	if err != nil {
		return err
	}
	gone := 0
	for _, p := range all {
		if p.gone {
			gone++
		}
		if err := a.showPending(p, cc.Bool("json")); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		a.sayf("no get is interrupted")
	}
	if gone > 0 && !cc.Bool("json") {
		a.sayf("gone: the part is not there any more. If the folder was moved: shoal status DIR, with its new place; else: shoal forget --gone")
	}
	return nil
}

func (a *app) showPending(p *pending, asJSON bool) error {
	dest, err := filepath.Abs(p.dest())
	if err != nil {
		dest = p.dest()
	}
	state := "interrupted"
	switch {
	case p.gone:
		state = "gone"
	case p.running:
		state = "running"
	}
	if asJSON {
		from := p.from()
		if from == nil {
			from = []string{}
		}
		return a.event("interrupted", map[string]any{
			"dest": dest, "kept": p.part.Kept, "total": p.total(), "since": p.since().UTC(), "from": from, "state": state, "owner": p.owner,
		})
	}
	var b strings.Builder
	if p.gone {
		fmt.Fprintf(&b, " gone  of %s", bytesText(p.total()))
	} else {
		fmt.Fprintf(&b, "%3d %%  %s of %s", percent(p.part.Kept, p.part.Total), bytesText(p.part.Kept), bytesText(p.part.Total))
	}
	fmt.Fprintf(&b, "  begun %s  %s", humanize.Time(p.since()), dest)
	if from := p.from(); len(from) > 0 {
		fmt.Fprintf(&b, "  from %s", strings.Join(from, ", "))
	}
	if p.running {
		fmt.Fprintf(&b, "  (running: %s)", strings.TrimSpace(p.owner))
	}
	_, err = fmt.Fprintln(a.stdout, escape(b.String()))
	return err
}
