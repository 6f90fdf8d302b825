package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shoal-p2p/shoal/transfer"
)

// toStdout is the -o that means standard output.
const toStdout = "-"

// checkStream refuses what cannot go with -o -.
func (a *app) checkStream(cc *cli.Context) error {
	a.json = false // whoever reads the file wants no lines of it
	for flag, why := range map[string]string{
		"json": "both write to standard output", "seed": "nothing of it is kept that could be served",
		"plan": "a plan is of files", "overwrite": "there is no file", "rename": "there is no file", "skip": "there is no file",
	} {
		if cc.Bool(flag) {
			return usagef("--%s does not go with -o -: %s", flag, why)
		}
	}
	if term.IsTerminal(int(a.stdout.Fd())) {
		return usagef("-o - does not write to a terminal, where the file could do harm; send it on with | or >")
	}
	return nil
}

// move carries out a get, to a place or to standard output.
func (a *app) move(ctx context.Context, o transfer.GetOptions) (*transfer.Result, error) {
	if o.Output == toStdout {
		return transfer.Stream(ctx, o, a.stdout)
	}
	return transfer.Get(ctx, o)
}
