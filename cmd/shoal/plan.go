package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A reached says whether a peer can be fetched from.
type reached struct {
	addr string
	rtt  time.Duration
	err  error
}

// planTime bounds how long a plan waits for a peer.
const planTime = 10 * time.Second

// plan prints what a get would do, and does nothing. It ends as that would, as far
// as this can be known.
func (a *app) plan(cc *cli.Context, o transfer.GetOptions) error {
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	defer closeSources(o.Sources)
	if o.Manifest == nil {
		o.Manifest = knownManifest(o)
	}
	if o.Manifest == nil {
		if o.Manifest, err = fetchManifest(cc.Context, n, transfer.GetOptions{Root: o.Root, Addrs: o.Addrs, Sources: o.Sources, Discover: a.discoverer(cc, o.Root, netip.AddrPort{}), Timeout: min(o.Timeout, 30*time.Second), Network: n}); err != nil {
			return err
		}
	}
	o.Root = o.Manifest.Root()
	peers := reach(cc.Context, n, o.Addrs, o.Root)
	p, err := transfer.PlanGet(cc.Context, o)
	if err != nil {
		if _, serr := choose(o.Manifest, o.Only, o.Exclude); serr != nil {
			return selectError(serr)
		}
		return err
	}
	var sources []string
	for _, s := range o.Sources {
		sources = append(sources, s.String())
	}
	if !cc.Bool("no-web") {
		sources = append(sources, o.Manifest.Web()...)
	}
	if cc.Bool("json") {
		err = a.planJSON(o, p, peers, sources)
	} else {
		err = a.print(func(w io.Writer) { writePlan(w, o, p, peers, sources) })
	}
	switch {
	case err != nil:
		return err
	case len(p.Problems) > 0: // the get would end with the same
		return p.Problems[0]
	case o.Existing == store.Skip && len(p.Differ) > 0:
		return refuse(codePartly, "", "%s would be left, though the share has other content for it", count(len(p.Differ), "file"))
	}
	return nil
}

// knownManifest returns the manifest that an interrupted get has left, or nil.
func knownManifest(o transfer.GetOptions) *manifest.Manifest {
	dir := o.Dir
	if o.Output != "" {
		dir = filepath.Dir(o.Output)
	}
	parts, err := pendingIn(dir)
	if err != nil {
		return nil // there is no such folder yet
	}
	for _, f := range parts {
		if f.part.Root == o.Root && (o.Output == "" || f.part.Final == filepath.Base(o.Output)) {
			if m, err := f.part.Manifest(); err == nil {
				return m
			}
		}
	}
	return nil
}

// reach calls all peers at once.
func reach(ctx context.Context, n network, addrs []string, root [32]byte) []reached {
	ctx, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	out := make([]reached, len(addrs))
	var wg crew.Crew
	for i, addr := range addrs {
		wg.Go(func() {
			began := time.Now()
			c, err := n.Dial(ctx, addr, root)
			out[i] = reached{addr: addr, err: err}
			if err == nil {
				if out[i].rtt = c.RTT(); out[i].rtt == 0 {
					out[i].rtt = time.Since(began) / 3 // TCP, TLS, admission
				}
				_ = c.Close(nil) // nothing was said
			}
		})
	}
	wg.Wait()
	return out
}

func writePlan(w io.Writer, o transfer.GetOptions, p *transfer.Plan, peers []reached, sources []string) {
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-7s %s\n", what, escape(fmt.Sprintf(format, args...)))
	}
	row("share", "%s", describe(o.Manifest))
	row("to", "%s", p.Path)
	row("want", "%s", countSize(p.Files, p.Size))
	if p.KeptFiles > 0 {
		row("kept", "%s, there already and the same", countSize(p.KeptFiles, p.KeptSize))
	}
	if p.Part > 0 {
		row("kept", "%s, from an interrupted get", bytesText(p.Part))
	}
	row("fetch", "%s", bytesText(p.Fetch))
	for _, r := range peers {
		if r.err != nil {
			row("from", "%s: %s", r.addr, oneLine(r.err))
			continue
		}
		row("from", "%s: reached, round trip %s", r.addr, r.rtt.Round(100*time.Microsecond))
	}
	for _, s := range sources {
		row("from", "%s: not looked into", s)
	}
	for _, dir := range o.Reuse {
		row("reuse", "%s: not looked into; what is there need not be fetched", dir)
	}
	if p.Free >= 0 {
		row("space", "needs %s, %s are free", bytesText(p.Space), bytesText(p.Free))
	} else {
		row("space", "needs %s", bytesText(p.Space))
	}
	for i, path := range p.Differ {
		if i == maxListed {
			row("differs", "and %s more", count(len(p.Differ)-i, "file"))
			break
		}
		row("differs", "%s", filepath.Join(p.Path, filepath.FromSlash(path)))
	}
	if p.Unsure > 0 {
		row("unsure", "%s can only be compared when fetched", count(p.Unsure, "file"))
	}
	for _, err := range p.Problems {
		_, msg := explain(err)
		row("problem", "%s", msg)
	}
}

func (a *app) planJSON(o transfer.GetOptions, p *transfer.Plan, peers []reached, sources []string) error {
	from := make([]map[string]any, 0, len(peers))
	for _, r := range peers {
		from = append(from, map[string]any{"addr": r.addr, "reached": r.err == nil, "error": errText(r.err), "rtt": r.rtt.Seconds()})
	}
	problems := make([]map[string]any, 0, len(p.Problems))
	for _, err := range p.Problems {
		code, msg := explain(err)
		problems = append(problems, map[string]any{"code": code, "text": msg})
	}
	for _, path := range p.Differ {
		if err := a.event("differs", map[string]any{"path": path}); err != nil {
			return err
		}
	}
	return a.event("plan", map[string]any{
		"name": o.Manifest.Name(), "path": p.Path, "files": p.Files, "size": p.Size, "kept_files": p.KeptFiles, "kept": p.KeptSize,
		"part": p.Part, "fetch": p.Fetch, "unsure": p.Unsure, "differ": len(p.Differ), "space": p.Space, "free": p.Free,
		"peers": from, "problems": problems,
		"sources": append([]string{}, sources...), "reuse": append([]string{}, o.Reuse...),
	})
}
