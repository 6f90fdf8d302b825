package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/state"
)

func (a *app) getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "fetch a share from all peers that have it",
		ArgsUsage: "TICKET|FILE.shoal [DIR]",
		Description: "The share appears, complete and checked, as DIR/NAME; DIR is the current folder unless\n" +
			"given. Whatever stops it, the same line goes on from where it was.\n\n" +
			"shoal get shoal:...\n" +
			"shoal get shoal:... /data --peer 192.0.2.7:7420 --seed\n" +
			"shoal get photos.shoal -o pictures --only '*.jpg' --peer laptop:7420",
		Flags: append(
			[]cli.Flag{
				stringFlag("output", "the share becomes exactly `PATH`", "o"),
				listFlag("only", "fetch only what matches `GLOB`; may be repeated"),
				listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
				boolFlag("any-name", "allow names that other systems refuse"),
			},
			getFlags()...,
		),
		Action: a.get,
	}
}

// getFlags are those of get and resume.
func getFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("peer", "also fetch from the peer at `HOST:PORT`; may be repeated"),
		boolFlag("seed", "go on serving when it is complete, until Ctrl-C"),
		stringFlag("listen", "`HOST:PORT`, :PORT or PORT to serve at meanwhile; \"off\" for not at all (default: any free port)"),
		&cli.DurationFlag{Name: "timeout", Usage: "give up when nothing has come for `TIME`", Value: 30 * time.Minute, EnvVars: env("timeout")},
		boolFlag("recheck", "hash again what an interrupted get has left"),
		boolFlag("json", "print JSON lines on standard output"),
	}
}

// A request is what a get was asked for. It is kept with what it has fetched,
// so that resume can go on.
type request struct {
	Version int      `json:"shoal"`
	Addrs   []string `json:"addrs,omitempty"`
	Only    []string `json:"only,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	AnyName bool     `json:"any_name,omitempty"`
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
	case output == "-":
		return usagef("-o - is not supported yet; name a file")
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
	timeout, err := timeoutOf(cc)
	if err != nil {
		return err
	}
	if err := checkFolder(dir); err != nil {
		return err
	}
	addrs := merge(src.addrs, peers)
	if len(addrs) == 0 && !cc.IsSet("listen") {
		return usagef("no peer is known: %s names none; add --peer HOST:PORT, or use the ticket that share prints", src.name)
	}
	req := request{Version: 1, Addrs: addrs, Only: cc.StringSlice("only"), Exclude: cc.StringSlice("exclude"), AnyName: cc.Bool("any-name")}
	return a.fetch(cc, transfer.GetOptions{
		Root: src.root, Manifest: src.manifest, Addrs: addrs, Dir: dir, Output: output,
		Only: req.Only, Exclude: req.Exclude, AnyName: req.AnyName, Timeout: timeout,
	}, req, quoteLine(a.args))
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
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	if listen := cc.String("listen"); listen != "off" {
		addr := ":0"
		if cc.IsSet("listen") {
			if addr, _, err = parseListen(listen); err != nil {
				return err
			}
		}
		at, _, err := n.listen(addr)
		switch {
		case err == nil:
			o.Port = int(at.Port())
			a.debugf("listening at %s", at)
		case cc.IsSet("listen"):
			return err
		default:
			a.debugf("serving nobody: %v", err)
		}
	} else if o.Seed {
		return usagef("--seed serves, and --listen off does not; leave one of them out")
	}

	ctx, cancel := context.WithCancelCause(cc.Context)
	defer cancel(nil)
	g := &getting{a: a, o: &o, json: cc.Bool("json"), abort: cancel, started: time.Now(), state: a.state()}
	o.Network, o.Events = n, g.event
	defer g.background.Wait()

	res, err := transfer.Get(ctx, o)
	a.finishBar()
	switch {
	case err == nil:
		return g.ended(res)
	case g.result != nil && ctx.Err() != nil: // it was only serving any more
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return &interruptedError{cause: context.Cause(ctx), done: g.done, total: g.total, line: line}
	case g.selErr != nil:
		return selectError(g.selErr)
	}
	return err
}

// A getting shows what a get does.
type getting struct {
	a     *app
	o     *transfer.GetOptions
	json  bool
	abort context.CancelCauseFunc
	state *state.Store

	started     time.Time
	done, total int64
	shown       time.Time // when a line was last printed
	waitShown   time.Time
	jsonAt      time.Time
	result      *transfer.Result
	selErr      error  // why the globs choose nothing
	part        string // as it is on the list of transfers

	// The list of transfers is kept in the background: another process may
	// have its file open.
	background sync.WaitGroup
}

// event is called by Get, one at a time.
func (g *getting) event(e transfer.Event) {
	a := g.a
	switch e := e.(type) {
	case transfer.Found:
		sel, err := choose(e.Manifest, g.o.Only, g.o.Exclude)
		if err != nil {
			g.selErr = err // Get is about to find the same
			break
		}
		g.total = e.Manifest.Size()
		if sel != nil {
			g.total = sel.Size
			a.sayf("getting %s of %s", countSize(sel.NumFiles, sel.Size), describe(e.Manifest))
		} else {
			a.sayf("getting %s", describe(e.Manifest))
		}
		g.remember(e.Manifest)
		g.emit("found", map[string]any{"name": e.Manifest.Name(), "size": e.Manifest.Size(), "chunks": e.Manifest.NumChunks(), "from": e.From})
	case transfer.Resumed:
		g.done, g.total = e.Kept, e.Total
		a.sayf("resumed at %d %%, %s kept", percent(e.Kept, e.Total), bytesText(e.Kept))
		g.emit("resumed", map[string]any{"kept": e.Kept, "total": e.Total})
	case transfer.Progress:
		g.progress(e)
	case transfer.PeerUp:
		a.debugf("%s is connected", e.Addr)
		g.emit("peer_up", map[string]any{"addr": e.Addr})
	case transfer.PeerDown:
		switch {
		case e.Banned:
			a.warnf("%s sent wrong bytes and is not asked again: %v", e.Addr, e.Err)
		case e.Err != nil:
			a.debugf("%s is gone: %v", e.Addr, e.Err)
		default:
			a.debugf("%s is gone", e.Addr)
		}
		g.emit("peer_down", map[string]any{"addr": e.Addr, "error": errText(e.Err), "banned": e.Banned})
	case transfer.Waiting:
		g.emit("waiting", map[string]any{"reasons": e.Reasons})
		if time.Since(g.waitShown) < 10*time.Second {
			break
		}
		g.waitShown = time.Now()
		left := durationText(max(0, g.o.Timeout-time.Since(e.Since)))
		if len(e.Reasons) == 0 {
			a.sayf("waiting for a peer to connect (giving up in %s)", left)
			break
		}
		a.sayf("waiting: %s (giving up in %s)", strings.Join(e.Reasons, "; "), left)
	case transfer.Skipped:
		a.warnf("skipped %q: %s", e.Path, e.Why)
	case transfer.Warning:
		a.warnf("%s", e.Text)
		g.emit("warning", map[string]any{"text": e.Text})
	case transfer.Finishing:
		a.progress(g.total, g.total, "writing the last of it to disk")
		g.emit("finishing", nil)
	case transfer.Finished:
		a.finishBar()
		g.result = e.Result
		g.summary(e.Result)
		if g.o.Seed && !e.Result.Already {
			a.sayf("serving it at port %d; Ctrl-C ends it", g.o.Port)
		}
	}
}

// ended tells what is only known when nothing runs any more.
func (g *getting) ended(res *transfer.Result) error {
	if g.result == nil {
		g.summary(res)
	}
	if g.o.Seed && res.Stats.Sent > 0 {
		g.a.sayf("%s", sentSummary(res.Size, res.Stats))
	}
	return nil
}

func (g *getting) progress(e transfer.Progress) {
	g.done = e.Done
	if e.Total > 0 {
		g.total = e.Total
	}
	now := time.Now()
	if g.json && now.Sub(g.jsonAt) >= 450*time.Millisecond {
		g.jsonAt = now
		g.emit("progress", map[string]any{"done": e.Done, "total": e.Total, "rate": e.Rate, "peers": e.Peers})
	}
	if e.Total <= 0 {
		return
	}
	text := bytesText(e.Done) + " of " + bytesText(e.Total)
	if e.Rate > 0 {
		text += fmt.Sprintf(", %s/s, %s left", bytesText(int64(e.Rate)), durationText(time.Duration(float64(e.Total-e.Done)/e.Rate*float64(time.Second))))
	}
	text += ", " + count(e.Peers, "peer")
	g.a.progress(e.Done, e.Total, text)
	if g.shown.IsZero() {
		g.shown = now
	}
	if !g.a.tty && now.Sub(g.shown) >= time.Minute {
		g.shown = now
		g.a.sayf("%d %%: %s", percent(e.Done, e.Total), text)
	}
}

// summary tells how a get went, and takes it off the list of transfers.
func (g *getting) summary(res *transfer.Result) {
	a := g.a
	g.result = res
	g.forget()
	fields := map[string]any{
		"path": res.Path, "size": res.Size, "already": res.Already, "kept": res.Kept, "fetched": res.Fetched,
		"received": res.Stats.Received, "wasted": res.Stats.Wasted, "seconds": res.Elapsed.Seconds(), "peers": peersJSON(res.Stats.Peers),
	}
	g.emit("finished", fields)
	if res.Already {
		a.sayf("%s is there already, complete and right (%s)", res.Path, bytesText(res.Size))
		return
	}
	s := fmt.Sprintf("got %s: %s in %s", res.Path, bytesText(res.Fetched), durationText(res.Elapsed))
	if d := res.Elapsed.Seconds(); res.Fetched > 0 && d > 0 {
		s += fmt.Sprintf(" (%s/s)", bytesText(int64(float64(res.Fetched)/d)))
	}
	if res.Kept > 0 {
		s += fmt.Sprintf(", %s kept from before", bytesText(res.Kept))
	}
	a.sayf("%s", s)
	for _, p := range res.Stats.Peers {
		switch {
		case p.Banned:
			a.sayf("  %9s from %s, which sent wrong bytes", bytesText(p.Used), p.Addr)
		case p.Received > 0:
			a.sayf("  %9s from %s", bytesText(p.Used), p.Addr)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (g *getting) emit(name string, fields map[string]any) {
	if !g.json {
		return
	}
	if err := g.a.event(name, fields); err != nil {
		g.json = false
		g.abort(fmt.Errorf("%w: %w", errStdout, err))
	}
}

// remember puts the get on the list of transfers.
func (g *getting) remember(m *manifest.Manifest) {
	dest := g.o.Output
	if dest == "" {
		dest = filepath.Join(g.o.Dir, m.Name())
	}
	dest, err := filepath.Abs(dest)
	if err != nil || g.part != "" {
		return
	}
	g.part = dest + manifest.PartSuffix
	t := state.Transfer{Part: g.part, Dest: dest, Root: m.Root().String(), Size: m.Size(), Started: g.started}
	g.background.Go(func() {
		if err := g.state.Add(t); err != nil {
			g.a.debugf("list of transfers: %v", err)
		}
	})
}

// forget takes the get off the list.
func (g *getting) forget() {
	part := g.part
	if part == "" {
		return
	}
	g.background.Wait() // for the Add
	g.background.Go(func() {
		if err := g.state.Remove(part); err != nil {
			g.a.debugf("list of transfers: %v", err)
		}
	})
}
