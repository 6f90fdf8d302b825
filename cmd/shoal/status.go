package main

import (
	"fmt"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "list interrupted gets",
		Description: "One line each: how much is there, since when, and where it goes. resume goes on with them.\n\n" +
			"shoal status",
		Flags:  []cli.Flag{boolFlag("json", "print JSON lines")},
		Action: a.status,
	}
}

func (a *app) status(cc *cli.Context) error {
	if _, err := arguments(cc, 0, 0); err != nil {
		return err
	}
	parts, err := a.allParts(".")
	if err != nil {
		return err
	}
	for _, f := range parts {
		dest, err := filepath.Abs(f.dest())
		if err != nil {
			dest = f.dest()
		}
		if cc.Bool("json") {
			err = a.event("interrupted", map[string]any{"dest": dest, "kept": f.part.Kept, "total": f.part.Total, "since": f.part.ModTime.UTC()})
		} else {
			_, err = fmt.Fprintf(a.stdout, "%3d %%  %s of %s  %s  %s\n", percent(f.part.Kept, f.part.Total), bytesText(f.part.Kept), bytesText(f.part.Total), humanize.Time(f.part.ModTime), escape(dest))
		}
		if err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		a.sayf("no get is interrupted")
	}
	return nil
}
