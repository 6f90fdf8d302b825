package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
			"shoal resume /data --peer 192.0.2.7:7420",
		Flags:  getFlags(),
		Action: a.resume,
	}
}

// A found is an interrupted get: a part on disk.
type found struct {
	dir  string
	part store.Part
}

func (f found) dest() string { return filepath.Join(f.dir, f.part.Final) }

func (a *app) resume(cc *cli.Context) error {
	args, err := arguments(cc, 0, 1)
	if err != nil {
		return err
	}
	peers, err := parsePeers("peer", cc.StringSlice("peer"))
	if err != nil {
		return err
	}
	timeout, err := timeoutOf(cc)
	if err != nil {
		return err
	}
	var parts []found
	if len(args) == 1 {
		if _, err := os.Stat(args[0]); errors.Is(err, fs.ErrNotExist) {
			return usagef("there is no folder %q", args[0])
		}
		if err := checkFolder(args[0]); err != nil {
			return err
		}
		if parts, err = findParts(args[0]); err != nil {
			return err
		}
		if len(parts) == 0 {
			a.sayf("nothing to resume in %q", args[0])
			return nil
		}
	} else {
		if parts, err = a.allParts("."); err != nil {
			return err
		}
		if len(parts) == 0 {
			a.sayf("nothing to resume")
			return nil
		}
	}
	if cc.Bool("seed") && len(parts) > 1 {
		return usagef("--seed serves until Ctrl-C, and there are %d gets to resume; name the DIR of one, or leave it out", len(parts))
	}

	var errs []error
	for _, f := range parts {
		err := a.resumePart(cc, f, peers, timeout)
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
		return refuse(codePartly, "the same line goes on", "%d of %d gets are not complete", len(errs), len(parts))
	}
	return errs[0]
}

func (a *app) resumePart(cc *cli.Context, f found, peers []string, timeout time.Duration) error {
	m, err := f.part.Manifest()
	if err != nil {
		return &codedError{code: codeOther, err: fmt.Errorf("%q: %w", f.dest()+manifest.PartSuffix, err), hint: "run the get line itself again: it fetches what is damaged"}
	}
	var req request
	if err := json.Unmarshal(f.part.Request, &req); err != nil || req.Version != 1 {
		return refuse(codeOther, "run the get line itself again", "%q does not say what was asked for", f.dest()+manifest.PartSuffix)
	}
	req.Addrs = merge(peers, req.Addrs)
	if len(req.Addrs) == 0 && !cc.IsSet("listen") {
		return usagef("no peer is known for %q; add --peer HOST:PORT", f.dest())
	}
	a.sayf("resuming %s", f.dest())
	return a.fetch(cc, transfer.GetOptions{
		Root: m.Root(), Manifest: m, Addrs: req.Addrs, Output: f.dest(),
		Only: req.Only, Exclude: req.Exclude, AnyName: req.AnyName, Timeout: timeout,
	}, req, quoteLine(a.args))
}

// findParts returns the interrupted gets in dir.
func findParts(dir string) ([]found, error) {
	d, err := store.OpenDisk(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	parts, err := store.Find(d)
	if err != nil {
		return nil, err
	}
	var out []found
	for _, p := range parts {
		out = append(out, found{dir, p})
	}
	return out, nil
}

// allParts returns the interrupted gets in dir, and those on the list of
// transfers that are still there.
func (a *app) allParts(dir string) ([]found, error) {
	var out []found
	if dir != "" {
		var err error
		if out, err = findParts(dir); err != nil {
			return nil, err
		}
	}
	listed, err := a.state().Transfers()
	if err != nil {
		a.debugf("list of transfers: %v", err)
	}
	for _, t := range listed {
		if slices.ContainsFunc(out, func(f found) bool { return sameFile(f.dest()+manifest.PartSuffix, t.Part) }) {
			continue
		}
		in, err := findParts(filepath.Dir(t.Part))
		if err != nil {
			a.debugf("%s: %v", t.Dest, err)
			continue
		}
		for _, f := range in {
			if f.part.Final+manifest.PartSuffix == filepath.Base(t.Part) {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}
