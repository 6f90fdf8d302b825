package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/local"
	"github.com/shoal-p2p/shoal/transfer/pack"
)

func (a *app) packCommand() *cli.Command {
	flags := []cli.Flag{
		stringFlag("output", "the `PACK` to make, such as /media/stick/photos.shoalpack", "o"),
		stringFlag("size", "at most `SIZE` bytes, with K, M or G of 1024, such as 4G (default: no limit)"),
		listFlag("missing-of", "leave out what the folder `DIR` has, as files, in packs or in an unfinished get; may be repeated"),
		listFlag("peer", "also fetch from the peer at `HOST:PORT`; may be repeated"),
		noLANFlag(),
		boolFlag("json", "print JSON lines on standard output"),
	}
	for _, f := range limitFlags() {
		if f.Names()[0] != "limit-up" { // it serves nobody
			flags = append(flags, f)
		}
	}
	return &cli.Command{
		Name:      "pack",
		Usage:     "write a share, or what somebody lacks of it, into a file for a stick",
		ArgsUsage: "TICKET|FILE.shoal",
		Description: "Fetches chunks from peers and other sources into one file that get --from DIR takes them\n" +
			"from. Several packs, on one stick or on many, carry one share together.\n\n" +
			"shoal pack photos.shoal --from photos -o /media/stick/1.shoalpack --size 4G\n" +
			"shoal pack photos.shoal --from photos --missing-of /media/stick -o /media/other/2.shoalpack\n" +
			"shoal get photos.shoal --from /media/stick --from /media/other",
		Flags:  append(append(flags, fromFlags()...), waitFlags()...),
		Action: a.pack,
	}
}

func (a *app) pack(cc *cli.Context) error {
	args, err := arguments(cc, 1, 1)
	if err != nil {
		return err
	}
	o, err := a.packOptions(cc)
	if err != nil {
		return err
	}
	src, err := parseSource(args[0])
	if err != nil {
		return err
	}
	peers, err := parsePeers("peer", cc.StringSlice("peer"))
	if err != nil {
		return err
	}
	get := &o.Get
	get.Root, get.Manifest, get.Addrs = src.root, src.manifest, merge(src.addrs, peers)
	if get.Timeout, get.StallTimeout, err = timeoutsOf(cc); err != nil {
		return err
	}
	if get.Limits, get.MaxPeers, err = a.readLimits(cc); err != nil {
		return err
	}
	if get.Sources, err = fromSources(cc.StringSlice("from"), new(request)); err != nil {
		return err
	}
	defer closeSources(get.Sources)
	defer closeSources(o.MissingOf)
	if !cc.Bool("no-web") {
		get.WebSource = webSource(get.Addrs)
	}
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	get.Network = n
	get.Discover = a.discoverer(cc, get.Root, netip.AddrPort{})

	ctx, cancel := context.WithCancelCause(cc.Context)
	defer cancel(nil)
	p := &packing{getting{a: a, o: get, json: cc.Bool("json"), abort: cancel, started: time.Now()}}
	get.Events = p.event
	res, err := transfer.Pack(ctx, o)
	a.finishBar()
	switch {
	case err == nil:
		return p.end(res)
	case errors.Is(err, transfer.ErrNothingMissing):
		a.sayf("%s; no pack was made", err)
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return &interruptedError{cause: context.Cause(ctx), done: p.done, total: p.total, line: a.sameLine()}
	}
	return packError(err, o.Path)
}

// packOptions reads the flags that get does not have.
func (a *app) packOptions(cc *cli.Context) (o transfer.PackOptions, err error) {
	if o.Path = cc.String("output"); o.Path == "" {
		return o, usagef("pack needs -o PACK, the file to make")
	}
	if !strings.HasSuffix(strings.ToLower(o.Path), pack.Suffix) {
		return o, usagef("-o %q: a pack's name ends in %s, by which get finds it", o.Path, pack.Suffix)
	}
	if o.Path, err = filepath.Abs(o.Path); err != nil {
		return o, err
	}
	if s := cc.String("size"); cc.IsSet("size") {
		if o.Size, err = parseSize(s); err != nil || o.Size <= 0 {
			return o, usagef("--size %q: it is a number of bytes of at least 1, such as 700M or 4G", s)
		}
	}
	for _, dir := range cc.StringSlice("missing-of") {
		s, err := local.New(dir)
		if err != nil {
			return o, usagef("--missing-of: %v", err)
		}
		o.MissingOf = append(o.MissingOf, s)
	}
	return o, nil
}

// packError says what to do about an error of package pack.
func packError(err error, path string) error {
	switch {
	case errors.Is(err, pack.ErrExists):
		return refuse(codeRefused, "choose another name, or move it away", "%q exists already", path)
	case errors.Is(err, pack.ErrLocked):
		return refuse(codeRunning, "wait for that, or end it", "%q is being written by another program", path+pack.PartSuffix)
	case errors.Is(err, pack.ErrOther):
		return refuse(codeRefused, "choose another name, or move it away", "%q is no beginning of this pack: it is something else, or of a pack of another share or with other chunks", path+pack.PartSuffix)
	case errors.Is(err, pack.ErrTooSmall):
		return usagef("--size: %v", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return &codedError{
			code: codeDisk, err: fmt.Errorf("no space for %q: %w", path, err),
			hint: "what was written is kept; free some space and run the same line again, or make the pack smaller with --size",
		}
	case errors.Is(err, fs.ErrNotExist) && !isSourceError(err):
		return &codedError{code: codeDisk, err: err, hint: "the folder of the pack must be there"}
	}
	return err
}

// isSourceError reports whether an error tells of peers and sources, in whose
// reasons any error may be.
func isSourceError(err error) bool {
	var noPeer *transfer.NoPeerError
	var stalled *transfer.StalledError
	return errors.As(err, &noPeer) || errors.As(err, &stalled)
}

// A packing shows what Pack does: most of it as get does.
type packing struct{ getting }

func (p *packing) event(e transfer.Event) {
	if f, ok := e.(transfer.Found); ok {
		p.total = f.Manifest.Size()
		p.a.sayf("packing %s", describe(f.Manifest))
		p.emit("found", map[string]any{"name": f.Manifest.Name(), "size": f.Manifest.Size(), "chunks": f.Manifest.NumChunks(), "from": f.From})
		return
	}
	p.getting.event(e)
}

// end tells how it went.
func (p *packing) end(res *transfer.PackResult) error {
	p.emit("packed", map[string]any{
		"path": res.Path, "length": res.Length, "chunks": res.Chunks, "bytes": res.Bytes, "rest": res.Rest, "peers": peersJSON(res.Stats.Peers),
	})
	p.a.sayf("packed %s into %s (%s of %s)", count(res.Chunks, "chunk"), res.Path, bytesText(res.Bytes), bytesText(res.Manifest.Size()))
	if res.Rest > 0 {
		p.a.sayf("%s for another pack: the same line with another -o, and --missing-of %s as well", count(res.Rest, "chunk"), quoteArg(filepath.Dir(res.Path)))
	}
	return nil
}
