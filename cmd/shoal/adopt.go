package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (a *app) adoptCommand() *cli.Command {
	flags := slices.DeleteFunc(getFlags(), func(f cli.Flag) bool {
		return slices.Contains([]string{"overwrite", "rename", "skip"}, f.Names()[0])
	})
	return &cli.Command{
		Name:      "adopt",
		Usage:     "complete a share from what lies on disk already",
		ArgsUsage: "DIR",
		Description: "DIR holds some of a share: the half download of another tool, a copy, an older version,\n" +
			"files under other names. What fits is kept, by its hash and nothing else; the rest is\n" +
			"fetched, and what is there is served meanwhile. DIR is the share's own folder or file, or\n" +
			"the folder that holds it, or shall. Files that lie at their place and differ are completed:\n" +
			"each is replaced in one step when it is whole. Other files are not touched.\n\n" +
			"shoal adopt Downloads/photos --manifest photos.shoal --peer laptop:7420\n" +
			"shoal adopt Downloads --manifest shoal:... --seed\n" +
			"shoal adopt /backup --manifest photos.shoal --no-fetch",
		Flags: append([]cli.Flag{
			stringFlag("manifest", "the share, as its manifest or its ticket: `FILE.shoal|TICKET`"),
			boolFlag("no-fetch", "only say what is there; exits with 9 if anything is missing"),
		}, flags...),
		Action: a.adopt,
	}
}

func (a *app) adopt(cc *cli.Context) error {
	args, err := arguments(cc, 1, 1)
	if err != nil {
		return err
	}
	dir := args[0]
	if cc.String("manifest") == "" {
		return usagef("adopt needs --manifest FILE.shoal or --manifest TICKET")
	}
	src, err := parseSource(cc.String("manifest"))
	if err != nil {
		return err
	}
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return usagef("there is no file or folder %q", dir)
	case err != nil:
		return err
	case !fi.IsDir() && !fi.Mode().IsRegular():
		return usagef("%q is neither a file nor a folder", dir)
	}
	m, err := a.resolve(cc.Context, cc, src)
	if err != nil {
		return err
	}
	if cc.Bool("no-fetch") {
		return a.takeStock(cc, m, dir)
	}
	dest, err := adopted(m, dir)
	if err != nil {
		return err
	}
	return a.complete(cc, src, m, dest, dir)
}

// complete makes dest the share, from what lies at old and from peers. Files that
// are there and differ are replaced one by one.
func (a *app) complete(cc *cli.Context, src source, m *manifest.Manifest, dest, old string) error {
	peers, err := parsePeers("peer", cc.StringSlice("peer"))
	if err != nil {
		return err
	}
	timeout, stall, err := timeoutsOf(cc)
	if err != nil {
		return err
	}
	var req request
	sources, err := fromSources(cc.StringSlice("from"), &req)
	if err != nil {
		return err
	}
	reuse, err := reusePaths([]string{old})
	if err != nil {
		return err
	}
	req.Version, req.Addrs, req.Reuse, req.Existing = 1, merge(src.addrs, peers), reuse, store.Overwrite
	return a.fetch(cc, transfer.GetOptions{
		Root: m.Root(), Manifest: m, Addrs: req.Addrs, Sources: sources, Output: dest,
		Timeout: timeout, StallTimeout: stall, Existing: req.Existing,
	}, req, a.sameLine())
}

// adopted returns where the share is, or shall be, when dir is given for it.
func adopted(m *manifest.Manifest, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	in := filepath.Join(dir, m.Name())
	fi, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", err
	case !fi.IsDir():
		if !m.IsFile() {
			return "", refuse(codeRefused, "name the folder that it lies in", "%q is a file, and the share is a folder", dir)
		}
		return dir, nil
	case m.IsFile():
		return in, nil
	}
	if sub, err := os.Lstat(in); err == nil && sub.IsDir() && !has(m, m.Name()) {
		return in, nil
	}
	if filepath.Base(dir) == m.Name() {
		return dir, nil
	}
	for i := range m.Entries() {
		e := &m.Entries()[i]
		if e.Kind != manifest.File {
			continue
		}
		if fi, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(e.Path))); err == nil && fi.Mode().IsRegular() {
			return dir, nil
		}
	}
	return in, nil
}

// takeStock says how much of a share lies in dir.
func (a *app) takeStock(cc *cli.Context, m *manifest.Manifest, dir string) error {
	g := &getting{a: a, json: cc.Bool("json"), total: m.Size(), abort: func(error) {}}
	cache := a.state().Cache()
	stock, err := transfer.TakeStock(cc.Context, m, []string{dir}, cache, g.event)
	a.finishBar()
	if cerr := cache.Close(); cerr != nil {
		a.debugf("hash cache: %v", cerr)
	}
	if err != nil {
		return err
	}
	g.emit("stock", map[string]any{"size": m.Size(), "there": stock.Size, "files": stock.NumFiles, "whole": stock.Whole})
	if stock.Size == m.Size() {
		a.sayf("all of %s is in %q", describe(m), dir)
		return nil
	}
	return refuse(codePartly, "without --no-fetch the rest is fetched", "%d %% of %q is in %q: %s of %s, with %d of %s whole",
		percent(stock.Size, m.Size()), m.Name(), dir, bytesText(stock.Size), bytesText(m.Size()), stock.Whole, count(stock.NumFiles, "file"))
}
