package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (a *app) forgetCommand() *cli.Command {
	return &cli.Command{
		Name:      "forget",
		Usage:     "drop an interrupted get and what it has fetched",
		ArgsUsage: "PATH...",
		Description: "PATH is what status shows: where the share was to go, or that with .shoal-part behind it.\n" +
			"Removes only what shoal has made; what others have put there stays. A get that runs is\n" +
			"not forgotten: end it first.\n\n" +
			"shoal forget photos\n" +
			"shoal forget /data/photos.shoal-part\n" +
			"shoal forget --gone",
		Flags: []cli.Flag{
			boolFlag("gone", "drop those whose part is not there any more"),
			boolFlag("json", "print JSON lines"),
		},
		Action: a.forget,
	}
}

func (a *app) forget(cc *cli.Context) error {
	gone := cc.Bool("gone")
	lo := 1
	if gone {
		lo = 0
	}
	args, err := arguments(cc, lo, -1)
	if err != nil {
		return err
	}
	for _, arg := range args {
		if err := a.forgetPath(cc, arg); err != nil {
			return err
		}
	}
	if !gone {
		return nil
	}
	all, err := a.pending(".")
	if err != nil {
		return err
	}
	n := 0
	for _, p := range all {
		if !p.gone {
			continue
		}
		if err := a.state().Remove(p.record.Part); err != nil {
			return err
		}
		n++
		if err := a.forgotten(cc, p.record.Dest, true, 0); err != nil {
			return err
		}
	}
	if n == 0 {
		a.sayf("no interrupted get is gone")
	}
	return nil
}

// forgetPath drops the get whose share was to be at path.
func (a *app) forgetPath(cc *cli.Context, path string) error {
	dest, err := filepath.Abs(strings.TrimSuffix(filepath.Clean(path), manifest.PartSuffix))
	if err != nil {
		return err
	}
	part := dest + manifest.PartSuffix
	made, listed := "", false
	ts, err := a.state().Transfers()
	if err != nil {
		a.debugf("list of transfers: %v", err)
	}
	for _, t := range ts {
		if t.Part == part || sameFile(t.Part, part) {
			made, listed, part = t.Made, true, t.Part
		}
	}
	left, gone := 0, false
	d, err := store.OpenDisk(filepath.Dir(dest))
	if err == nil {
		left, err = store.Discard(d, filepath.Base(dest))
		_ = d.Close() // its error would say nothing that Discard's does not
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && listed:
		gone = true
	case errors.Is(err, fs.ErrNotExist):
		return refuse(codeOther, "shoal status lists them", "there is no interrupted get at %q", path)
	case err != nil:
		return err
	}
	if listed {
		if err := a.state().Remove(part); err != nil {
			return err
		}
	}
	removeMade(filepath.Dir(dest), made)
	return a.forgotten(cc, dest, gone, left)
}

// removeMade removes the folders that were made for a get, up to top, if they are
// empty. If one of them is a symlink by now, what it leads to is not ours, nor is it.
func removeMade(dir, top string) {
	var made []string
	for d := dir; top != "" && (d == top || strings.HasPrefix(d, top+string(filepath.Separator))); d = filepath.Dir(d) {
		if i, err := os.Lstat(d); err != nil || !i.IsDir() {
			return
		}
		made = append(made, d)
	}
	for _, d := range made {
		if os.Remove(d) != nil {
			return // something is in it
		}
	}
}

func (a *app) forgotten(cc *cli.Context, dest string, gone bool, left int) error {
	if cc.Bool("json") {
		return a.event("forgotten", map[string]any{"dest": dest, "gone": gone, "left": left})
	}
	if left > 0 {
		a.warnf("%s in %s: not made by shoal; it stays", count(left, "thing"), dest+manifest.PartSuffix)
	}
	a.sayf("forgotten: %s", dest)
	return nil
}
