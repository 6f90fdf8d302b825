package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

func (a *app) getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "fetch a share from all peers that have it",
		ArgsUsage: "TICKET|FILE.shoal [DIR]",
		Description: "The share appears, complete and checked, as DIR/NAME; DIR is the current folder unless\n" +
			"given. Whatever stops it, the same line goes on from where it was. TICKET may be\n" +
			"- for standard input or @FILE for the file it is in, or be left to SHOAL_TICKET.\n\n" +
			"shoal get shoal:...\n" +
			"shoal get shoal:... /data --peer 192.0.2.7:7420 --seed\n" +
			"shoal get shoal:... /data --update --keep-old\n" +
			"shoal get shoal:... --reuse ~/Downloads --reuse /old/photos\n" +
			"shoal get photos.shoal -o pictures --only '*.jpg' --peer laptop:7420\n" +
			"shoal get @ticket -o - | tar x",
		Flags: append(
			[]cli.Flag{
				stringFlag("output", "the share becomes exactly `PATH`; - writes one file to standard output", "o"),
				listFlag("only", "fetch only what matches `GLOB`; may be repeated"),
				listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
				boolFlag("any-name", "allow names that other systems refuse"),
				boolFlag("plan", "print what would be kept, fetched, from whom and where, and do nothing"),
				listFlag("reuse", "take what can be used from the files in `DIR`, or from one file; may be repeated"),
				boolFlag("update", "replace what has the name already, in one step, and fetch only what has changed"),
				boolFlag("keep-old", "with --update: keep what was replaced, as NAME.old"),
			},
			getFlags()...,
		),
		Action: a.get,
	}
}

// getFlags are those of get and resume.
func getFlags() []cli.Flag {
	flags := []cli.Flag{
		listFlag("peer", "also fetch from the peer at `HOST:PORT`; may be repeated"),
		boolFlag("seed", "go on serving when it is complete, until Ctrl-C"),
		stringFlag("listen", "`HOST:PORT`, :PORT or PORT to serve at meanwhile; \"off\" for not at all (default: any free port)"),
		boolFlag("overwrite", "replace files that are there and differ"),
		boolFlag("rename", "put files beside those that are there and differ, as NAME.1"),
		boolFlag("skip", "leave files that are there and differ as they are"),
		noLANFlag(),
		boolFlag("recheck", "hash again what an interrupted get has left"),
		boolFlag("json", "print JSON lines on standard output"),
	}
	return slices.Concat(flags, fromFlags(), waitFlags(), limitFlags())
}

// A request is what a get was asked for. It is kept with what it has fetched,
// so that resume can go on.
type request struct {
	Version int      `json:"shoal"`
	Addrs   []string `json:"addrs,omitempty"`
	Only    []string `json:"only,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	AnyName bool     `json:"any_name,omitempty"`
	Reuse   []string `json:"reuse,omitempty"`  // absolute
	From    []string `json:"from,omitempty"`   // absolute, or URLs
	Hidden  []string `json:"hidden,omitempty"` // those URLs of From that had a user or a query

	Existing store.Existing `json:"existing,omitempty"`
	Update   bool           `json:"update,omitempty"`
	KeepOld  bool           `json:"keep_old,omitempty"`
}

func (a *app) get(cc *cli.Context) error {
	args, err := arguments(cc, 1, 2)
	if err != nil {
		return err
	}
	dir, output := ".", cc.String("output")
	switch {
	case len(args) == 2 && output != "":
		return usagef("both DIR and -o say where the share goes; give one of them")
	case len(args) == 2:
		dir = args[1]
	case output == toStdout:
		if err := a.checkStream(cc); err != nil {
			return err
		}
	case cc.IsSet("output") && output == "":
		return usagef("-o needs a path")
	case output != "":
		output = filepath.Clean(output) // x/ is x
		if err := manifest.CheckName(filepath.Base(output)); err != nil {
			return usagef("-o names the file or folder that is made, and %q cannot be one: %v", output, err)
		}
	}
	src, err := parseSource(args[0])
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
	existing, err := existingOf(cc)
	if err != nil {
		return err
	}
	if err := checkFolder(dir); err != nil {
		return err
	}
	old, err := reusePaths(cc.StringSlice("reuse"))
	if err != nil {
		return err
	}
	var req request
	sources, err := fromSources(cc.StringSlice("from"), &req)
	if err != nil {
		return err
	}
	addrs := merge(src.addrs, peers)
	known := len(addrs) > 0 || src.manifest != nil && len(sources)+len(src.manifest.Web()) > 0
	if !known && !cc.IsSet("listen") && cc.Bool("no-lan") {
		return usagef("no peer is known: %s names none; add --peer HOST:PORT, use the ticket that share prints, or leave out --no-lan", src.name)
	}
	req = request{
		Version: 1, Addrs: addrs, Only: cc.StringSlice("only"), Exclude: cc.StringSlice("exclude"), AnyName: cc.Bool("any-name"),
		Reuse: old, From: req.From, Hidden: req.Hidden, Existing: existing,
		Update: cc.Bool("update"), KeepOld: cc.Bool("keep-old"),
	}
	switch {
	case req.Update && len(req.Only)+len(req.Exclude) > 0:
		return usagef("--update replaces all that is there, and --only or --exclude would leave out a part; use --overwrite")
	case req.Update && existing != store.Refuse:
		return usagef("--update replaces all that is there; leave out --overwrite, --rename and --skip")
	case req.Update && cc.Bool("plan"):
		return usagef("--plan says what a get without --update would do; shoal manifest diff OLD NEW says what an update changes and fetches")
	case req.KeepOld && !req.Update:
		return usagef("--keep-old belongs to --update: nothing else replaces all that is there")
	}
	o := transfer.GetOptions{
		Root: src.root, Manifest: src.manifest, Addrs: addrs, Sources: sources, Dir: dir, Output: output,
		Only: req.Only, Exclude: req.Exclude, AnyName: req.AnyName, Timeout: timeout, StallTimeout: stall,
		Existing: existing,
	}
	if cc.Bool("plan") {
		o.Reuse = req.Reuse
		return a.plan(cc, o)
	}
	return a.fetch(cc, o, req, a.sameLine())
}

// reusePaths checks the values of --reuse and makes them absolute.
func reusePaths(values []string) ([]string, error) {
	var paths []string
	for _, v := range values {
		fi, err := os.Stat(v)
		switch {
		case v == "" || errors.Is(err, fs.ErrNotExist):
			return nil, usagef("--reuse: there is no file or folder %q", v)
		case err != nil:
			return nil, err
		case !fi.IsDir() && !fi.Mode().IsRegular():
			return nil, usagef("--reuse: %q is neither a file nor a folder", v)
		}
		if v, err = filepath.Abs(v); err != nil {
			return nil, err
		}
		paths = append(paths, v)
	}
	return paths, nil
}

// existingOf returns what the user wants of files that are there and differ.
func existingOf(cc *cli.Context) (how store.Existing, err error) {
	given := 0
	for name, h := range map[string]store.Existing{"overwrite": store.Overwrite, "rename": store.Rename, "skip": store.Skip} {
		if cc.Bool(name) {
			how = h
			given++
		}
	}
	if given > 1 {
		return 0, usagef("--overwrite, --rename and --skip are three ways to treat a file that is there; give one of them")
	}
	return how, nil
}

// checkFolder reports a DIR that cannot be one. A missing one is made later.
func checkFolder(dir string) error {
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !fi.IsDir() {
		return refuse(codeRefused, "name a folder, or the result with -o PATH", "%q is a file, not a folder", dir)
	}
	return err
}

// fetch carries out a get. line is what the user types to resume it.
func (a *app) fetch(cc *cli.Context, o transfer.GetOptions, req request, line string) (err error) {
	if o.Request, err = json.Marshal(req); err != nil {
		return err
	}
	o.Seed, o.Recheck = cc.Bool("seed"), cc.Bool("recheck")
	if o.Limits, o.MaxPeers, err = a.readLimits(cc); err != nil {
		return err
	}
	o.Reuse, o.Update, o.KeepOld = req.Reuse, req.Update, req.KeepOld
	defer closeSources(o.Sources)
	if !cc.Bool("no-web") {
		o.WebSource = webSource(o.Addrs)
	}
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	var at netip.AddrPort
	if listen := cc.String("listen"); listen != "off" && o.Output != toStdout {
		addr := ":0"
		if cc.IsSet("listen") {
			if addr, _, err = parseListen(listen); err != nil {
				return err
			}
		}
		at, _, err = n.listen(addr)
		switch {
		case err == nil:
			o.Port = int(at.Port())
			a.debugf("listening at %s", at)
		case cc.IsSet("listen"):
			return err
		default:
			a.debugf("serving nobody: %v", err)
		}
	} else if o.Seed { // a stream never does
		return usagef("--seed serves, and --listen off does not; leave one of them out")
	}

	ctx, cancel := context.WithCancelCause(cc.Context)
	defer cancel(nil)
	if len(o.Reuse) > 0 || o.Update {
		cache := a.state().Cache()
		o.Cache = cache
		defer func() {
			if cerr := cache.Close(); cerr != nil {
				a.debugf("hash cache: %v", cerr)
			}
		}()
	}
	g := &getting{a: a, o: &o, json: cc.Bool("json"), abort: cancel, started: time.Now(), state: a.state()}
	o.Network, o.Events = n, g.event
	a.tells(g.status)
	o.Discover = a.discoverer(cc, o.Root, at)
	defer g.background.Wait()
	defer g.leave()

	o.Inspect = new(transfer.Inspector)
	w, stop := a.explainRun(o.Inspect, g.about)
	defer stop()
	g.watch = w

	res, err := a.move(ctx, o)
	a.finishBar()
	switch {
	case err == nil:
		return g.ended(res)
	case g.result != nil && ctx.Err() != nil: // it was only serving any more
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		if o.Output == toStdout {
			return fmt.Errorf("%w; of what goes to standard output nothing is kept", err)
		}
		return &interruptedError{cause: context.Cause(ctx), done: g.done, total: g.total, line: line}
	case g.selErr != nil:
		return selectError(g.selErr)
	}
	return err
}
