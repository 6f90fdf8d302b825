package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/state"
)

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
	waits       waitings
	peers       present
	jsonAt      time.Time
	latest      atomic.Pointer[transfer.Progress]
	look        look
	finishing   time.Time // when all had come
	limit       verdict   // what had limited it until then, if limited
	limited     bool
	result      *transfer.Result
	selErr      error  // why the globs choose nothing
	watch       *watch // says what limits it
	name        atomic.Pointer[string]
	part        string // as it is on the list of transfers

	// The list of transfers is kept in the background: another process may
	// have its file open.
	background crew.Crew
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
			a.sayf("getting %s of %s%s", countSize(sel.NumFiles, sel.Size), describe(e.Manifest), freeText(g.o))
		} else {
			a.sayf("getting %s%s", describe(e.Manifest), freeText(g.o))
		}
		name := e.Manifest.Name()
		g.name.Store(&name)
		g.watch.begin()
		g.remember(e.Manifest)
		g.emit("found", map[string]any{"name": e.Manifest.Name(), "size": e.Manifest.Size(), "chunks": e.Manifest.NumChunks(), "from": e.From})
	case transfer.Resumed:
		g.done, g.total = e.Kept, e.Total
		a.sayf("resumed at %d %%, %s kept", percent(e.Kept, e.Total), bytesText(e.Kept))
		g.emit("resumed", map[string]any{"kept": e.Kept, "total": e.Total})
	case transfer.Reusing:
		g.reusing(e)
	case transfer.Comparing:
		g.comparing(e, time.Now())
	case transfer.Merging:
		a.finishBar() // of the comparison
		g.looked(time.Now())
		g.total = e.FetchSize
		stay := "stay as they are"
		if e.Kept == 1 {
			stay = "stays as it is"
		}
		a.sayf("%s is there: %s %s (%s), %s to fetch (%s)", e.Path, count(e.Kept, "file"), stay, bytesText(e.KeptSize), count(e.Fetch, "file"), bytesText(e.FetchSize))
		g.emit("merging", map[string]any{"path": e.Path, "kept": e.Kept, "kept_size": e.KeptSize, "fetch": e.Fetch, "fetch_size": e.FetchSize})
	case transfer.Progress:
		g.progress(e)
	case transfer.PeerUp:
		g.peers.up(e.ID, e.Addr)
		a.debugf("%s is connected", e.Addr)
		g.emit("peer_up", map[string]any{"addr": e.Addr})
	case transfer.PeerDown:
		g.peers.down(e.ID)
		if errors.Is(e.Err, context.Canceled) {
			e.Err = nil // the get has ended, and the peer has done nothing
		}
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
		g.emit("waiting", map[string]any{"reasons": append([]string{}, e.Reasons...)})
		if text := g.waits.text(e.Reasons, len(g.peers.by), len(g.o.Addrs) > 0 || g.o.Discover == nil); text != "" {
			a.sayf("%s (giving up in %s)", text, durationText(max(0, time.Until(e.GivesUp))))
		}
	case transfer.Skipped:
		a.warnf("skipped %q: %s", e.Path, e.Why)
	case transfer.Warning:
		a.warnf("%s", e.Text)
		g.emit("warning", map[string]any{"text": e.Text})
	case transfer.Finishing:
		g.limit, g.limited = g.watch.overall()
		g.finishing = time.Now()
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
	return skippedError(res)
}

func (g *getting) progress(e transfer.Progress) {
	g.latest.Store(&e)
	if e.Done > g.done {
		g.waits = waitings{} // a wait that begins from now on is another one
	}
	g.done = e.Done
	if e.Total > 0 {
		g.total = e.Total
	}
	now := time.Now()
	if g.json && now.Sub(g.jsonAt) >= jsonEvery {
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
	text += ", " + g.peers.text(e.Peers)
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
		"path": res.Path, "size": res.Size, "already": res.Already, "kept": res.Kept, "reused": res.Reused, "old": res.Old, "fetched": res.Fetched,
		"received": res.Stats.Received, "wasted": res.Stats.Wasted, "seconds": res.Elapsed.Seconds(), "peers": peersJSON(res.Stats.Peers),
		"skipped": len(res.Skipped), "renamed": len(res.Renamed), "overwritten": res.Overwritten,
	}
	fetching := max(0, res.Elapsed-g.look.spent)
	limit, known := g.verdict(fetching, time.Now())
	fields["limit"] = limit.limit
	g.emit("finished", fields)
	if res.Already {
		a.sayf("%s is there already, complete and right (%s)", res.Path, bytesText(res.Size))
		return
	}
	s := fmt.Sprintf("got %s: %s in %s", res.Path, bytesText(res.Fetched), durationText(fetching))
	if d := fetching.Seconds(); res.Fetched > 0 && d > 0 {
		s += fmt.Sprintf(" (%s/s)", bytesText(int64(float64(res.Fetched)/d)))
	}
	if res.Kept > 0 {
		s += fmt.Sprintf(", %s kept from before", bytesText(res.Kept))
	}
	if res.Reused > 0 {
		s += fmt.Sprintf(", %s reused", bytesText(res.Reused))
	}
	a.sayf("%s", s)
	if known && res.Fetched > 0 {
		a.sayf("  %s", limit.text)
	}
	g.merged(res)
	if res.Old != "" {
		a.sayf("what lay there before is now %s", res.Old)
	}
	for _, p := range res.Stats.Peers {
		if p.Received > 0 || p.Banned {
			p.Time = min(p.Time, fetching) // it may have been there before
			a.sayf("%s", fromLine(p))
		}
	}
}

// verdict says what limited a get that took so long, without the look at what was
// there: mostly what did while it fetched, but sometimes the end takes longer.
func (g *getting) verdict(took time.Duration, now time.Time) (v verdict, ok bool) {
	if g.finishing.IsZero() {
		return g.watch.overall()
	}
	if d := now.Sub(g.finishing); d >= time.Second && d > took/2 {
		return verdict{limit: "disk", text: fmt.Sprintf("limited by this disk: when all was here, it took another %s to write it", durationText(d))}, true
	}
	return g.limit, g.limited
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

// about says which get this is.
func (g *getting) about() answer {
	w := answer{PID: os.Getpid(), Verb: "get", Place: g.o.Output}
	if name := g.name.Load(); name != nil {
		w.Name = *name
		if w.Place == "" {
			w.Place = filepath.Join(g.o.Dir, *name)
		}
	}
	if place, err := filepath.Abs(w.Place); err == nil && w.Place != "" {
		w.Place = place
	}
	return w
}

// remember puts the get on the list of transfers.
func (g *getting) remember(m *manifest.Manifest) {
	dest := g.o.Output
	if dest == "" {
		dest = filepath.Join(g.o.Dir, m.Name())
	}
	dest, err := filepath.Abs(dest)
	if err != nil || g.part != "" || g.o.Output == toStdout {
		return
	}
	g.part = dest + manifest.PartSuffix
	t := state.Transfer{Part: g.part, Dest: dest, Root: m.Root().String(), Size: m.Size(), Started: g.started, Made: topMissing(filepath.Dir(dest))}
	g.background.Go(func() {
		if err := g.state.Add(t); err != nil {
			g.a.debugf("list of transfers: %v", err)
		}
	})
}

// leave takes the get off the list if it has ended before it made anything.
func (g *getting) leave() {
	if _, err := os.Lstat(g.part); g.part != "" && g.result == nil && errors.Is(err, fs.ErrNotExist) {
		g.forget()
	}
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
