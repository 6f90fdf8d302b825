package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

func (a *app) shareCommand() *cli.Command {
	return &cli.Command{
		Name:      "share",
		Usage:     "serve files and folders, and print the ticket for them",
		ArgsUsage: "PATH...",
		Description: "Hashes what the PATHs hold, prints one ticket, and serves until Ctrl-C, straight from\n" +
			"the files. Several PATHs become one share; - is standard input. What was hashed before and\n" +
			"has not changed is not hashed again.\n\n" +
			"shoal share photos\n" +
			"tar c photos | shoal share - --name photos.tar\n" +
			"shoal share photos notes.txt --name backup --exclude '*.tmp'\n" +
			"shoal share disk.img --listen 192.0.2.7:7420 --write disk.shoal",
		Flags: append(
			append(buildFlags(), limitFlags()...),
			stringFlag("listen", "`HOST:PORT`, :PORT or PORT to serve at (default: :7420, or any free port if it is taken)"),
			listFlag("advertise", "`HOST[:PORT]` to put into the ticket instead of this machine's addresses; without PORT it is the one that is served at; may be repeated"),
			stringFlag("write", "also write the manifest to `FILE.shoal`"),
			boolFlag("qr", "draw the ticket as a QR code, too"),
			noLANFlag(),
			boolFlag("json", "print JSON lines on standard output instead of the ticket"),
		),
		Action: a.share,
	}
}

// buildFlags are those of the commands that hash a tree.
func buildFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("name", "`NAME` of the share (default: that of the PATH)"),
		listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
		boolFlag("strict", "fail instead of skipping what cannot be shared"),
		boolFlag("any-name", "allow names that other systems refuse"),
		boolFlag("rehash", "hash everything, whatever was hashed before"),
		stringFlag("cutter", "how to cut files into chunks: `KIND` is fixed or fastcdc"),
		stringFlag("chunk-size", "`SIZE` of a chunk, a power of two from 128K to 16M (default: by the size of the share)"),
		listFlag("web", "say in the manifest that the web server at `URL` has the files too; may be repeated"),
		intFlag("workers", "`N` files or parts hashed at once", "one for each CPU"),
	}
}

// buildOptions reads the flags of buildFlags.
func buildOptions(cc *cli.Context) (manifest.BuildOptions, error) {
	o := manifest.BuildOptions{
		Name:    cc.String("name"),
		Cutter:  cc.String("cutter"),
		Exclude: cc.StringSlice("exclude"),
		Strict:  cc.Bool("strict"),
		AnyName: cc.Bool("any-name"),
		Rehash:  cc.Bool("rehash"),
		Workers: cc.Int("workers"),
	}
	var err error
	if o.Web, err = webFlag(cc); err != nil {
		return o, err
	}
	if cc.IsSet("workers") && o.Workers < 1 {
		return o, usagef("--workers %d: it must be at least 1", o.Workers)
	}
	if cc.IsSet("name") {
		if err := manifest.CheckName(o.Name); err != nil {
			return o, usagef("--name: %v", err)
		}
	}
	if cc.IsSet("cutter") && o.Cutter != chunk.Fixed && o.Cutter != chunk.FastCDC {
		return o, usagef("--cutter %q: it is %s or %s", o.Cutter, chunk.Fixed, chunk.FastCDC)
	}
	if s := cc.String("chunk-size"); cc.IsSet("chunk-size") {
		n, err := parseSize(s)
		if err != nil || n < chunk.MinSize || n > chunk.MaxSize || n&(n-1) != 0 {
			return o, usagef("--chunk-size %q: it is a power of two from 128K to 16M", s)
		}
		o.ChunkSize = int(n)
	}
	return o, nil
}

// parseSize reads a number of bytes with an optional K, M or G (of 1024).
func parseSize(s string) (int64, error) {
	shift := 0
	t := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	switch {
	case strings.HasSuffix(t, "K"):
		shift = 10
	case strings.HasSuffix(t, "M"):
		shift = 20
	case strings.HasSuffix(t, "G"):
		shift = 30
	}
	if shift > 0 {
		t = t[:len(t)-1]
	}
	n, err := strconv.ParseUint(t, 10, 31)
	return int64(n) << shift, err
}

func (a *app) share(cc *cli.Context) (err error) {
	paths, err := arguments(cc, 1, -1)
	if err != nil {
		return err
	}
	build, err := buildOptions(cc)
	if err != nil {
		return err
	}
	stdin := len(paths) == 1 && paths[0] == fromStdin
	if !stdin {
		if err := checkPaths(paths); err != nil {
			return err
		}
	}
	addr, host := "", ""
	if cc.IsSet("listen") {
		if addr, host, err = parseListen(cc.String("listen")); err != nil {
			return err
		}
	}
	limits, maxPeers, err := a.readLimits(cc)
	if err != nil {
		return err
	}

	a.warnOfNearWeb(build.Web)
	n, err := newNetwork()
	if err != nil {
		return err
	}
	defer n.Close()
	// Before the hashing, so that a port in use shows at once.
	at, fellBack, err := n.listen(addr)
	if err != nil {
		return err
	}
	advertise, err := parseAdvertise(cc.StringSlice("advertise"), at.Port())
	if err != nil {
		return err
	}
	if fellBack {
		a.warnf("port %d is in use; serving at port %d instead (choose one with --listen)", DefaultPort, at.Port())
	}

	ctx := cc.Context
	if stdin {
		in, serr := a.spoolStdin(ctx)
		if serr != nil {
			return serr
		}
		defer func() { err = errors.Join(err, in.remove()) }()
		paths, build.Name = []string{in.file}, cmp.Or(build.Name, "stdin")
	}
	h := a.newHashing()
	a.tells(h.status)
	cache := a.state().Cache()
	build.Cache = cache
	inspect := new(transfer.Inspector)
	s, err := transfer.NewShare(ctx, transfer.ShareOptions{
		Inspect: inspect,
		Paths:   paths, Build: build, Network: n, Port: int(at.Port()),
		Events: h.event, Limits: limits, MaxPeers: maxPeers,
	})
	h.end()
	if cerr := cache.Close(); cerr != nil {
		a.debugf("hash cache: %v", cerr)
	}
	if err != nil {
		return hashingError(ctx, err)
	}
	m := s.Manifest()
	if name := cc.String("write"); name != "" {
		if err := writeManifest(name, m); err != nil {
			return fmt.Errorf("write the manifest: %w", err)
		}
	}
	if len(advertise) == 0 {
		advertise = ticketAddrs(at, host)
	}
	t := manifest.Ticket{Root: m.Root(), Addrs: advertise}

	a.sayf("sharing %s, at %s; Ctrl-C ends it", describe(m), strings.Join(advertise, " and "))
	if cc.Bool("json") {
		err = a.event("ticket", map[string]any{"ticket": t.String(), "addrs": advertise, "listen": at.String(), "name": m.Name(), "size": m.Size(), "chunks": m.NumChunks()})
	} else {
		err = a.showTicket(t.String(), cc.Bool("qr"))
	}
	if err != nil {
		return fmt.Errorf("print the ticket: %w", err)
	}
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	var announcing crew.Crew
	defer announcing.Wait()
	defer cancel()
	if !cc.Bool("no-lan") {
		announcing.Go(func() { a.announce(ctx, m.Root(), at) })
	}
	a.tells(func() string { return servingText(s.Manifest().Size(), s.Stats(), time.Since(start)) })
	_, stop := a.explainRun(inspect, func() answer { return answer{PID: os.Getpid(), Verb: "share", Name: m.Name()} })
	defer stop()
	shown := (&receivers{a: a, size: m.Size(), stats: s.Stats}).watch(ctx)
	err = s.Serve(ctx)
	interrupted := ctx.Err() != nil
	cancel()
	shown()
	if err != nil && !interrupted {
		return err
	}
	st := s.Stats()
	if cc.Bool("json") {
		if err := a.event("summary", map[string]any{"sent": st.Sent, "peers": peersJSON(st.Peers), "seconds": time.Since(start).Seconds()}); err != nil {
			return err
		}
	}
	a.sayf("%s", sentSummary(m.Size(), st))
	return nil
}

// showTicket prints the ticket alone, for whoever reads standard output. A terminal
// gets the whole line that the other side has to type.
func (a *app) showTicket(ticket string, qr bool) error {
	line := ticket
	if !a.isQuiet() {
		if term.IsTerminal(int(a.stdout.Fd())) {
			a.sayf("on the other machine:")
			line = "shoal get " + ticket
		} else {
			a.sayf("on the other machine: shoal get TICKET, with this ticket:")
		}
	}
	if qr {
		a.qr(ticket)
	}
	_, err := fmt.Fprintln(a.stdout, escape(line))
	return err
}

// checkPaths reports a PATH that is not there before anything is started.
func checkPaths(paths []string) error {
	for _, p := range paths {
		_, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if strings.HasPrefix(p, "shoal:") {
				return usagef("share needs a file or a folder, not a ticket; to fetch, use shoal get")
			}
			return usagef("there is no file or folder %q", p)
		case err != nil:
			return err
		}
	}
	return nil
}

// hashingError makes an interruption of NewShare or manifest.Build readable.
func hashingError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w while hashing; what was hashed is remembered", cause)
	}
	return err
}

// describe names a share: "photos" (12 files, 3.2 GB).
func describe(m *manifest.Manifest) string {
	files := 0
	for i := range m.Entries() {
		if m.Entries()[i].Kind == manifest.File {
			files++
		}
	}
	if m.IsFile() {
		return fmt.Sprintf("%q (%s)", m.Name(), bytesText(m.Size()))
	}
	return fmt.Sprintf("%q (%s)", m.Name(), countSize(files, m.Size()))
}

func countSize(files int, size int64) string { return count(files, "file") + ", " + bytesText(size) }

// peersJSON returns the peers as --json prints them.
func peersJSON(ps []transfer.PeerStats) []map[string]any {
	out := make([]map[string]any, 0, len(ps))
	for _, p := range ps {
		out = append(out, map[string]any{"addr": p.Addr, "received": p.Received, "used": p.Used, "sent": p.Sent, "banned": p.Banned})
	}
	return out
}

// A hashing shows how far a tree is hashed and what in it is skipped.
type hashing struct {
	a       *app
	start   time.Time
	skipped int
	latest  atomic.Pointer[string] // what was last shown
	stop    func()
}

// mostSkipped is how many skipped files are named.
const mostSkipped = 10

func (a *app) newHashing() *hashing {
	h := &hashing{a: a, start: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.watch(ctx, 500*time.Millisecond) })
	h.stop = func() { cancel(); wg.Wait() }
	return h
}

// quietTime is how often there is a sign of life where there is no terminal.
const quietTime = 10 * time.Second

// watch says what is going on while a tree is listed, which tells nothing by
// itself, and where there is no bar: after a second, and then now and then.
func (h *hashing) watch(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	next := h.start.Add(time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			text := h.status()
			if h.latest.Load() == nil {
				h.a.bottom(text + " (" + durationText(now.Sub(h.start)) + ")")
			}
			if !h.a.tty && now.After(next) {
				next = now.Add(quietTime)
				h.a.sayf("%s", text)
			}
		}
	}
}

func (h *hashing) event(e transfer.Event) {
	switch e := e.(type) {
	case transfer.Hashing:
		h.progress(e.Done, e.Total)
	case transfer.Skipped:
		h.skip(e.Path, e.Why)
	case transfer.Warning:
		h.a.warnf("%s", e.Text)
	case transfer.PeerUp:
		h.a.debugf("%s is connected", e.Addr)
	case transfer.PeerDown:
		h.a.debugf("%s is gone: %v", e.Addr, e.Err)
	}
}

func (h *hashing) progress(done, total int64) {
	text := bytesText(done) + " of " + bytesText(total) + " hashed"
	if d := time.Since(h.start); d > time.Second {
		text += leftText(done, total, d)
	}
	h.latest.Store(&text)
	h.a.progress(done, total, text)
}

// leftText says how fast something goes that has taken d so far, and how long it will.
func leftText(done, total int64, d time.Duration) string {
	if done <= 0 {
		return ""
	}
	rate := float64(done) / d.Seconds()
	return fmt.Sprintf(", %s/s, %s left", bytesText(int64(rate)), durationText(time.Duration(float64(total-done)/rate*float64(time.Second))))
}

func (h *hashing) skip(path, why string) {
	if h.skipped++; h.skipped <= mostSkipped {
		h.a.warnf("skipped %q: %s", path, why)
	}
}

func (h *hashing) end() {
	h.stop()
	h.a.finishBar()
	if more := h.skipped - mostSkipped; more > 0 {
		h.a.warnf("skipped %d more; --strict makes that an error", more)
	}
}
