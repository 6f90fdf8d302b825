package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (a *app) resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "go on with interrupted gets",
		ArgsUsage: "[DIR]",
		Description: "With DIR, those whose result would lie in DIR; else those in the current folder, and\n" +
			"all others that are on the list that status shows. They run one after the other.\n\n" +
			"shoal resume\n" +
			"shoal resume /data\n" +
			"shoal resume /data --peer 192.0.2.7:7420",
		Flags:  getFlags(),
		Action: a.resume,
	}
}

func (a *app) resume(cc *cli.Context) error {
	args, err := arguments(cc, 0, 1)
	if err != nil {
		return err
	}
	peers, err := parsePeers("peer", cc.StringSlice("peer"))
	if err != nil {
		return err
	}
	timeout, stall, err := timeoutsOf(cc)
	if err != nil {
		return err
	}
	dir, where := ".", ""
	if len(args) == 1 {
		dir, where = args[0], fmt.Sprintf(" in %q", args[0])
	}
	if err := existingFolder(dir); err != nil {
		return err
	}
	all, err := a.pending(dir)
	if err != nil {
		return err
	}
	var parts, running []*pending
	for _, p := range all {
		switch {
		case len(args) == 1 && p.dir != dir:
		case p.gone:
			a.sayf("%s is not there any more; if it was moved, name its folder; else: shoal forget --gone", p.record.Dest)
		case p.running:
			running = append(running, p)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts)+len(running) == 0 {
		a.sayf("nothing to resume%s", where)
		return nil
	}
	if len(parts) == 0 && (len(args) == 1 || len(all) == 1) { // it was meant
		for _, p := range running[1:] {
			a.sayf("%v", p.locked())
		}
		return running[0].locked()
	}
	for _, p := range running {
		a.sayf("%v", p.locked())
	}
	if len(parts) == 0 {
		a.sayf("nothing else to resume")
		return nil
	}
	if cc.Bool("seed") && len(parts) > 1 {
		return usagef("--seed serves until Ctrl-C, and there are %d gets to resume; name the DIR of one, or leave it out", len(parts))
	}

	var errs []error
	for _, f := range parts {
		err := a.resumePart(cc, f, peers, timeout, stall)
		if cc.Context.Err() != nil {
			return err
		}
		if err != nil {
			if len(parts) == 1 {
				return err
			}
			_, msg := explain(err)
			a.warnf("%s: %s", f.dest(), msg)
			errs = append(errs, err)
		}
	}
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) < len(parts):
		are := "are"
		if len(errs) == 1 {
			are = "is"
		}
		return refuse(codePartly, "the same line goes on", "%d of %d gets %s not complete", len(errs), len(parts), are)
	}
	return errs[0]
}

func (a *app) resumePart(cc *cli.Context, f *pending, peers []string, timeout, stall time.Duration) error {
	m, err := f.part.Manifest()
	if err != nil {
		return &codedError{code: codeOther, err: fmt.Errorf("%q: %w", f.dest()+manifest.PartSuffix, err), hint: "run the get line itself again: it fetches what is damaged"}
	}
	var req request
	if err := json.Unmarshal(f.part.Request, &req); err != nil || req.Version != 1 {
		return refuse(codeOther, "run the get line itself again", "%q does not say what was asked for", f.dest()+manifest.PartSuffix)
	}
	req.Addrs = merge(peers, req.Addrs)
	sources, err := a.resumedSources(cc.StringSlice("from"), &req)
	if err != nil {
		return err
	}
	if len(req.Addrs)+len(sources)+len(m.Web()) == 0 && !cc.IsSet("listen") && cc.Bool("no-lan") {
		return usagef("no peer is known for %q; add --peer HOST:PORT", f.dest())
	}
	existing, err := existingOf(cc)
	if err != nil {
		return err
	}
	if existing != store.Refuse {
		req.Existing = existing
	}
	a.sayf("resuming %s", f.dest())
	return a.fetch(cc, transfer.GetOptions{
		Root: m.Root(), Manifest: m, Addrs: req.Addrs, Sources: sources, Output: f.dest(),
		Only: req.Only, Exclude: req.Exclude, AnyName: req.AnyName, Timeout: timeout, StallTimeout: stall,
		Existing: req.Existing,
	}, req, a.sameLine())
}

// existingFolder reports a DIR that is no folder.
func existingFolder(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no folder %q", dir)
	}
	return checkFolder(dir)
}
