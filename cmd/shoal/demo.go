package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show on this machine what shoal does",
		Description: "Starts three peers that share a tree made for it, gets it from all of them, kills the\n" +
			"receiver midway, resumes, kills a peer, finishes, and compares. Takes some seconds and\n" +
			"about 700 MB in the folder for temporary files, and leaves nothing behind. The rate is\n" +
			"bounded, so that there is time for the kills: it says nothing of how fast shoal is.\n\n" +
			"shoal demo\n" +
			"shoal demo --quiet\n" +
			"shoal demo --debug",
		Flags:  []cli.Flag{intFlag("size", "make a tree of `N` MB, 50 to 100000", "300"), boolFlag("json", "print JSON lines")},
		Action: a.demo,
	}
}

// A demo is one run of the command. Everything it starts runs the same
// executable, each with a home of its own.
type demo struct {
	a    *app
	exe  string
	tmp  string
	size int64 // bytes of the tree

	mu   sync.Mutex
	cmds []*exec.Cmd
}

// A get takes demoSeconds at least: its rate is bounded, so that on a fast machine
// there is time to kill somebody midway. At maxDemoRate the trees that are larger
// give that time anyway.
const (
	demoSeconds = 2
	maxDemoRate = 1_000_000_000 // bytes/s
)

// demoTries is how often to start over when the receiver was too fast to be
// killed midway.
const demoTries = 5

func (a *app) demo(cc *cli.Context) (err error) {
	if _, err := arguments(cc, 0, 0); err != nil {
		return err
	}
	size := int64(300)
	if cc.IsSet("size") {
		if size = int64(cc.Int("size")); size < 50 || size > 100_000 {
			return usagef("--size %d: it is a number of MB from 50 to 100000", size)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "shoal-demo-")
	if err != nil {
		return err
	}
	d := &demo{a: a, exe: exe, tmp: tmp, size: size * 1e6}
	// A lost terminal or a fault anywhere must leave nothing behind.
	ctx, cancel := context.WithTimeout(cc.Context, 10*time.Minute+time.Duration(size)*time.Second/10)
	defer cancel()
	defer func() {
		d.killAll()
		if rerr := os.RemoveAll(tmp); err == nil {
			err = rerr
		}
		if err != nil {
			err = fmt.Errorf("demo: %w", err)
		}
	}()
	return d.run(ctx)
}

// say prints one line of the story. It is what the command is for, so it goes
// to standard output.
func (d *demo) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if d.a.json {
		_ = d.a.event("demo", map[string]any{"text": text}) // the story goes on without a reader
		return
	}
	fmt.Fprintln(d.a.stdout, escape(text))
}

func (d *demo) run(ctx context.Context) error {
	began := time.Now()
	src := filepath.Join(d.tmp, "source", "fish")
	files, bytes, err := makeTree(ctx, src, d.size)
	if err != nil {
		return fmt.Errorf("make the tree: %w", err)
	}
	d.say("made a tree of %s, %s, in %s", count(files, "file"), bytesText(bytes), durationText(time.Since(began)))

	start := time.Now()
	seeds, err := d.startSeeds(ctx, src)
	if err != nil {
		return err
	}
	d.say("three peers share it: %s; hashed in %s", strings.Join([]string{seeds[0].addr, seeds[1].addr, seeds[2].addr}, ", "), durationText(time.Since(start)))
	d.say("the receiver takes at most %s/s, so that there is time to kill it midway", bytesText(d.rate()))

	var (
		dest  string
		first *receiver
		keptB int64
	)
	for try := 1; ; try++ {
		dest = filepath.Join(d.tmp, fmt.Sprint("dest", try))
		first, err = d.get(ctx, dest, seeds)
		if err != nil {
			return err
		}
		at, err := d.killMidway(ctx, first, dest, bytes)
		if err == nil {
			keptB = at
			break
		}
		if !errors.Is(err, errTooLate) || try == demoTries {
			return err
		}
	}
	d.say("got it from all three at once; killed the receiver with SIGKILL at about %d %% after %s", percent(keptB, bytes), durationText(time.Since(first.began)))

	second, err := d.get(ctx, dest, seeds)
	if err != nil {
		return err
	}
	resumed, err := second.await(ctx, "resumed")
	if err != nil {
		return err
	}
	d.say("the same line again: resumed at %d %%, %s kept, %s after the start", percent(resumed.Kept, resumed.Total), bytesText(resumed.Kept), durationText(time.Since(second.began)))
	if resumed.Kept <= 0 || resumed.Kept >= bytes {
		return fmt.Errorf("resumed with %d of %d bytes: not midway", resumed.Kept, bytes)
	}

	victim := seeds[2]
	if err := d.killSeed(ctx, second, victim, dest, resumed.Kept, bytes); err != nil {
		return err
	}
	d.say("killed the peer %s in the middle of that", victim.addr)

	fin, err := second.await(ctx, "finished")
	if err != nil {
		return err
	}
	if err := second.wait(); err != nil {
		return err
	}
	if !second.lost(victim.addr) {
		return fmt.Errorf("the peer %s was killed too late: the receiver did not need it any more", victim.addr)
	}
	d.say("finished in %s: %s kept, %s fetched, %s of it in vain", durationText(time.Duration(fin.Seconds*float64(time.Second))), bytesText(fin.Kept), bytesText(fin.Fetched), bytesText(fin.Wasted))
	for _, p := range fin.Peers {
		note := ""
		if p.Addr == victim.addr {
			note = " (until it was killed)"
		}
		d.say("  %9s from %s%s", bytesText(p.Used), p.Addr, note)
	}
	if fin.Kept+fin.Fetched != bytes {
		return fmt.Errorf("%d bytes kept and %d fetched do not make %d", fin.Kept, fin.Fetched, bytes)
	}

	start = time.Now()
	if err := compareTrees(ctx, src, filepath.Join(dest, "fish")); err != nil {
		return err
	}
	if left, err := filepath.Glob(filepath.Join(dest, "*")); err != nil || len(left) != 1 {
		return fmt.Errorf("left behind beside the result: %q (%v)", left, err)
	}
	d.say("compared byte for byte, with modes, times and links, in %s: the same", durationText(time.Since(start)))
	d.say("all done in %s; nothing is left behind", durationText(time.Since(began)))
	return nil
}

// rate returns how much the receiver takes at most, in bytes/s.
func (d *demo) rate() int64 { return min(d.size/demoSeconds, maxDemoRate) }

// A seed is a process that shares the tree.
type seed struct {
	cmd          *exec.Cmd
	ticket, addr string
	root         chunk.Hash
}

func (d *demo) startSeeds(ctx context.Context, src string) ([3]seed, error) {
	var (
		seeds [3]seed
		errs  [3]error
		wg    sync.WaitGroup
	)
	for i := range seeds {
		wg.Go(func() { seeds[i], errs[i] = d.startSeed(ctx, src, i) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return seeds, err
	}
	for i := range seeds {
		t, err := manifest.ParseTicket(seeds[i].ticket)
		if err != nil {
			return seeds, fmt.Errorf("peer %d: %w", i+1, err)
		}
		if i > 0 && t.Root != seeds[0].root {
			return seeds, errors.New("two peers give one tree different roots")
		}
		seeds[i].root = t.Root
	}
	return seeds, nil
}

func (d *demo) startSeed(ctx context.Context, src string, i int) (seed, error) {
	cmd, out, err := d.start(ctx, fmt.Sprint("seed", i+1), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", src)
	if err != nil {
		return seed{}, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return seed{}, fmt.Errorf("peer %d ended: %w", i+1, cmd.wait())
	}
	var e demoEvent
	if err := json.Unmarshal(line, &e); err != nil || e.Event != "ticket" || len(e.Addrs) != 1 {
		return seed{}, fmt.Errorf("peer %d printed %q instead of its ticket", i+1, line)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return seed{cmd: cmd.Cmd, ticket: e.Ticket, addr: e.Addrs[0]}, nil
}

// A child is a process of this demo.
type child struct {
	*exec.Cmd
	stderr *tail
}

// wait returns why the child ended, with what it said about it.
func (c child) wait() error {
	err := c.Wait()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(c.stderr.String()))
}

// start runs the own executable. It does not inherit what the user has set for
// shoal.
func (d *demo) start(ctx context.Context, home string, args ...string) (child, io.Reader, error) {
	cmd := exec.CommandContext(ctx, d.exe, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SHOAL_") && !strings.HasPrefix(v, "SHOAL_TEST_") }),
		"SHOAL_HOME="+filepath.Join(d.tmp, home), "SHOAL_NO_LAN=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return child{}, nil, err
	}
	c := child{cmd, &tail{}}
	cmd.Stderr = c.stderr
	if err := cmd.Start(); err != nil {
		return child{}, nil, err
	}
	d.mu.Lock()
	d.cmds = append(d.cmds, cmd)
	d.mu.Unlock()
	return c, out, nil
}

// killAll ends every process that the demo has started.
func (d *demo) killAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.cmds {
		_ = c.Process.Kill() // an error says that it has ended
		_ = c.Wait()         // one that somebody waits for already returns at once
	}
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-2000):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// A demoEvent is what the demo reads of the lines that --json prints.
type demoEvent struct {
	Event   string
	Ticket  string
	Addrs   []string
	Addr    string
	Done    int64
	Total   int64
	Kept    int64
	Fetched int64
	Wasted  int64
	Seconds float64
	Peers   demoPeers
}

type demoPeer struct {
	Addr string
	Used int64
}

// demoPeers is the list of peers in the event "finished"; in "progress" the
// field is their number.
type demoPeers []demoPeer

func (p *demoPeers) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '[' {
		return nil
	}
	return json.Unmarshal(b, (*[]demoPeer)(p))
}

// A receiver is a process that gets the tree.
type receiver struct {
	child
	began time.Time

	mu      sync.Mutex
	events  []demoEvent
	changed chan struct{} // closed and replaced when events grow, or at the end
	ended   bool
}

func (d *demo) get(ctx context.Context, dest string, seeds [3]seed) (*receiver, error) {
	began := time.Now()
	c, out, err := d.start(ctx, "receiver", "get", "--json", "--quiet", "--listen", "127.0.0.1:0", "--timeout", "30s", "--stall-timeout", "30s", "--limit-down", strconv.FormatInt(d.rate(), 10),
		"--peer", seeds[1].addr, "--peer", seeds[2].addr, seeds[0].ticket, dest)
	if err != nil {
		return nil, err
	}
	r := &receiver{child: c, began: began, changed: make(chan struct{})}
	go func() {
		in := bufio.NewScanner(out)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			var e demoEvent
			if json.Unmarshal(in.Bytes(), &e) == nil {
				r.note(func() { r.events = append(r.events, e) })
			}
		}
		r.note(func() { r.ended = true })
	}()
	return r, nil
}

func (r *receiver) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// await returns the first event of that name.
func (r *receiver) await(ctx context.Context, name string) (demoEvent, error) {
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.events, func(e demoEvent) bool { return e.Event == name })
		var e demoEvent
		if i >= 0 {
			e = r.events[i]
		}
		ended, changed := r.ended, r.changed
		r.mu.Unlock()
		switch {
		case i >= 0:
			return e, nil
		case ended:
			return e, fmt.Errorf("the receiver ended without having %s: %w", name, cmpErr(r.wait()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e, context.Cause(ctx)
		}
	}
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// lost reports whether the connection to addr broke while the get ran.
func (r *receiver) lost(addr string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		switch {
		case e.Event == "finished":
			return false
		case e.Event == "peer_down" && e.Addr == addr:
			return true
		}
	}
	return false
}

var errTooLate = errors.New("this machine is too fast: the receiver had everything before it could be killed")

// killMidway kills r when it has between 30 and 50 % or so on disk, and
// returns how much it had.
func (d *demo) killMidway(ctx context.Context, r *receiver, dest string, total int64) (int64, error) {
	for {
		kept := partKept(dest)
		if kept*100 >= total*35 {
			if err := r.Process.Kill(); err != nil {
				return 0, errTooLate
			}
			_ = r.Wait()
			if kept = partKept(dest); kept <= 0 || kept*100 > total*90 {
				return 0, errTooLate
			}
			return kept, nil
		}
		r.mu.Lock()
		ended := r.ended
		r.mu.Unlock()
		if ended {
			if err := r.wait(); err != nil {
				return 0, fmt.Errorf("the receiver failed: %w", err)
			}
			return 0, errTooLate
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// killSeed kills s as soon as r is connected to it and has fetched something more.
func (d *demo) killSeed(ctx context.Context, r *receiver, s seed, dest string, kept, total int64) error {
	for {
		now := partKept(dest)
		r.mu.Lock()
		up := slices.ContainsFunc(r.events, func(e demoEvent) bool { return e.Event == "peer_up" && e.Addr == s.addr })
		ended := r.ended
		r.mu.Unlock()
		if up && now > kept+total/50 {
			return s.cmd.Process.Kill()
		}
		if ended {
			return fmt.Errorf("the receiver ended before a peer could be killed: %w", cmpErr(r.wait()))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// partKept returns how many bytes the interrupted, or running, get in dest has.
func partKept(dest string) int64 {
	parts, err := pendingIn(dest)
	if err != nil || len(parts) != 1 {
		return 0
	}
	return parts[0].part.Kept
}
