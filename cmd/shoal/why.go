package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/chunk/crew"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

func (a *app) whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "say what limits the speed of what runs now",
		ArgsUsage: "[PID|PATH]",
		Description: "Asks each get and share that runs for this user, or the one with this process number or\n" +
			"place: what limits it, and for each peer how it is reached, its round trip, waste, and the\n" +
			"rate of the last two to three seconds.\n\n" +
			"shoal why\n" +
			"shoal why 4711\n" +
			"shoal why /data/photos --json",
		Flags:  []cli.Flag{boolFlag("json", "print JSON lines")},
		Action: a.why,
	}
}

func (a *app) why(cc *cli.Context) error {
	args, err := arguments(cc, 0, 1)
	if err != nil {
		return err
	}
	pid, place := 0, ""
	if len(args) == 1 {
		if pid, err = strconv.Atoi(args[0]); err != nil {
			if place, err = filepath.Abs(strings.TrimSuffix(filepath.Clean(args[0]), manifest.PartSuffix)); err != nil {
				return err
			}
		}
	}
	answers := askRunning(runFolder(), pid)
	if place != "" {
		answers = slices.DeleteFunc(answers, func(w *answer) bool { return w.Place != place })
	}
	if len(answers) == 0 && len(args) == 1 {
		return refuse(codeOther, "shoal why alone tells of all that run, and shoal status lists what was interrupted", "no get or share that could be asked runs at %q", args[0])
	}
	if len(answers) == 0 {
		return refuse(codeOther, "shoal status lists what was interrupted", "no get or share runs here that could be asked")
	}
	for _, w := range answers {
		if cc.Bool("json") {
			err = a.event("why", map[string]any{
				"pid": w.PID, "verb": w.Verb, "name": w.Name, "place": w.Place, "done": w.Done, "total": w.Total,
				"limit": w.Limit, "text": w.Text, "rate": w.Rate, "wasted": w.Wasted, "peers": w.Peers,
			})
		} else {
			err = a.print(func(out io.Writer) { w.print(out) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// An answer is what a running process says of itself.
type answer struct {
	PID    int          `json:"pid"`
	Verb   string       `json:"verb"` // get or share
	Name   string       `json:"name"`
	Place  string       `json:"place"` // where it goes, or "" for a share
	Done   int64        `json:"done"`
	Total  int64        `json:"total"`
	Limit  string       `json:"limit"` // disk, cpu, limit, peer, line, nobody, nothing
	Text   string       `json:"text"`
	Rate   float64      `json:"rate"` // bytes/s, in or, for a share, out
	Wasted int64        `json:"wasted"`
	Peers  []peerAnswer `json:"peers"`
}

type peerAnswer struct {
	Addr   string  `json:"addr"`
	Path   string  `json:"path"`
	RTT    float64 `json:"rtt"` // seconds
	Lines  int     `json:"connections"`
	Rate   float64 `json:"rate"`  // bytes/s that it gives
	Out    float64 `json:"out"`   // and takes
	Bytes  int64   `json:"bytes"` // came
	Sent   int64   `json:"sent"`
	Wasted int64   `json:"wasted"` // came, and was of no use
}

func (w *answer) print(out io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintln(out, escape(fmt.Sprintf(format, args...))) }
	what := fmt.Sprintf("%s of %q (process %d)", w.Verb, w.Name, w.PID)
	if w.Total > 0 {
		what += fmt.Sprintf(", %d %%", percent(w.Done, w.Total))
	}
	if len(w.Peers) > 0 { // what is left of the rate of those who have gone says nothing
		what += fmt.Sprintf(", %s/s", bytesText(int64(w.Rate)))
	}
	line("%s: %s", what, w.Text)
	for _, p := range w.Peers {
		s := fmt.Sprintf("  %s  %s", p.Addr, p.Path)
		if p.RTT > 0 {
			s += fmt.Sprintf(", round trip %.1f ms", p.RTT*1000)
		}
		if p.Lines > 1 {
			s += fmt.Sprintf(", %d connections", p.Lines)
		}
		if p.Bytes > 0 || p.Rate > 0 {
			s += fmt.Sprintf(", gives %s/s, gave %s", bytesText(int64(p.Rate)), bytesText(p.Bytes))
		}
		if p.Sent > 0 {
			s += fmt.Sprintf(", takes %s/s, took %s", bytesText(int64(p.Out)), bytesText(p.Sent))
		}
		if p.Wasted > 0 {
			s += fmt.Sprintf(", %s of no use", bytesText(p.Wasted))
		}
		line("%s", s)
	}
}

// A watch looks at a transfer every second, so that it can say what limits it.
type watch struct {
	a       *app
	inspect *transfer.Inspector
	about   func() answer // verb, name and place
	first   sample
	recent  []sample // the last few seconds, oldest first
}

// A sample is a snapshot with the time that the processors worked for us.
type sample struct {
	transfer.Snapshot
	cpu time.Duration
}

func (w *watch) sample() (s sample, ok bool) {
	s.Snapshot, ok = w.inspect.Now()
	s.cpu = cpuTime()
	return s, ok
}

// watchSpan is how many samples are kept, one a second: a rate is that of the last
// two to three seconds, and less at the beginning.
const watchSpan = 3

// explainRun looks at a transfer and answers why, until stop is called.
func (a *app) explainRun(inspect *transfer.Inspector, about func() answer) (w *watch, stop func()) {
	w = &watch{a: a, inspect: inspect, about: about}
	done := make(chan struct{})
	var c crew.Crew
	requests, closeSocket, err := serveRun(&c)
	if err != nil {
		a.debugf("shoal why cannot ask this process: %v", err)
	}
	c.Go(func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				w.tick()
			case r := <-requests:
				r <- w.answer()
			}
		}
	})
	return w, func() {
		close(done)
		if closeSocket != nil {
			closeSocket()
		}
		c.Wait()
	}
}

// begin notes that the fetching begins. A nil watch sees nothing.
func (w *watch) begin() {
	if w == nil {
		return
	}
	if s, ok := w.sample(); ok {
		w.first = s
	}
}

// overall says what limited the whole get, or "" if it was too short to tell.
func (w *watch) overall() (v verdict, ok bool) {
	if w == nil {
		return v, false
	}
	now, ok := w.sample()
	if !ok || w.first.At.IsZero() || now.At.Sub(w.first.At) < time.Second {
		return v, false
	}
	_, down := w.a.limitsNow()
	v = judgeGet(w.first, now, down, runtime.GOMAXPROCS(0), true)
	return v, v.limit != "nobody"
}

// beginning returns the sample that comes before the first one: a second earlier
// nothing had passed yet, as otherwise there would be one from then.
func beginning(first sample) sample {
	return sample{Snapshot: transfer.Snapshot{At: first.At.Add(-time.Second)}, cpu: first.cpu}
}

func (w *watch) tick() {
	s, ok := w.sample()
	if !ok {
		return
	}
	if len(w.recent) == 0 {
		w.recent = append(w.recent, beginning(s))
	}
	w.recent = append(w.recent, s)
	if len(w.recent) > watchSpan {
		w.recent = w.recent[1:]
	}
}

func (w *watch) answer() *answer {
	ans := w.about()
	now, ok := w.sample()
	if !ok {
		ans.Limit, ans.Text = "nothing", "it has not begun to fetch"
		return &ans
	}
	before := beginning(now)
	if len(w.recent) > 0 {
		before = w.recent[0]
	}
	up, down := w.a.limitsNow()
	v := judge(before, now, up, down, runtime.GOMAXPROCS(0))
	ans.Done, ans.Total, ans.Wasted = now.Done, now.Total, now.Wasted
	ans.Limit, ans.Text, ans.Rate = v.limit, v.text, v.rate
	ans.Peers = []peerAnswer{}
	local, err := net.InterfaceAddrs()
	if err != nil {
		local = nil // then everything is direct
	}
	d := now.At.Sub(before.At)
	for _, p := range now.Since(before.Snapshot) {
		if p.Lines == 0 {
			continue
		}
		ans.Peers = append(ans.Peers, peerAnswer{
			Addr: p.Addr, Path: pathTo(p.PeerNow, local), RTT: p.RTT.Seconds(), Lines: p.Lines, Rate: perSecond(p.Gave, d), Out: perSecond(p.Took, d),
			Bytes: p.Received, Sent: p.Sent, Wasted: max(0, p.Received-p.Used-int64(p.InFlight)),
		})
	}
	return &ans
}

// pathTo says how a peer is reached, given the addresses of this machine's interfaces.
func pathTo(p transfer.PeerNow, local []net.Addr) string {
	where := whereIs(p.Addr, local)
	switch {
	case p.Source:
		return "source"
	case p.Dialled:
		return where
	}
	return where + ", it called us"
}

// A verdict is what limits a transfer.
type verdict struct {
	limit, text string
	rate        float64
}

// perSecond returns the rate of n bytes in d, 0 if no time has passed.
func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(max(0, n)) / d.Seconds()
}

// percentOf returns how much of d t is.
func percentOf(t, d time.Duration) int { return int(100 * t.Seconds() / d.Seconds()) }

// busyBetween returns how much of the time all processors worked for us, in percent.
func busyBetween(before, now sample, cpus int) int {
	return percentOf(now.cpu-before.cpu, now.At.Sub(before.At)) / max(cpus, 1)
}

func isConnected(p transfer.PeerSince) bool { return p.Lines > 0 }

// judge says what limits a transfer, by the last two samples. up and down are the
// limits that were set, in bytes/s, or 0.
func judge(before, now sample, up, down int64, cpus int) verdict {
	if now.Workers > 0 && now.Wanting {
		return judgeGet(before, now, down, cpus, false)
	}
	d := now.At.Sub(before.At)
	if d <= 0 {
		return nothingMeasured
	}
	v := verdict{rate: perSecond(now.Sent-before.Sent, d)}
	busy := busyBetween(before, now, cpus)
	switch {
	case !slices.ContainsFunc(now.Since(before.Snapshot), isConnected):
		v.limit, v.text = "nobody", "nobody is connected"
	case up > 0 && v.rate > 0.85*float64(up):
		v.limit, v.text = "limit", fmt.Sprintf("limited by --limit-up %s/s", bytesText(up))
	case busy >= 80:
		v.limit, v.text = "cpu", fmt.Sprintf("limited by this CPU: it is busy %d %% of the time", busy)
	case v.rate == 0:
		v.limit, v.text = "nothing", "nobody asks for anything"
	default:
		v.limit, v.text = "line", "limited by the line, or by those who take"
	}
	return v
}

var nothingMeasured = verdict{"nothing", "nothing was measured yet", 0}

// judgeGet says what limited a get between two samples. If that was all of it,
// those who gave may well be gone.
func judgeGet(before, now sample, down int64, cpus int, all bool) verdict {
	d := now.At.Sub(before.At)
	if d <= 0 {
		return nothingMeasured
	}
	v := verdict{rate: perSecond(now.Received-before.Received, d)}
	write := percentOf(now.Write-before.Write, d) / max(now.Workers, 1)
	flush := percentOf(now.Flush-before.Flush, d)
	busy := busyBetween(before, now, cpus)
	peers := now.Since(before.Snapshot)
	switch {
	case down > 0 && v.rate > 0.85*float64(down):
		v.limit, v.text = "limit", fmt.Sprintf("limited by --limit-down %s/s", bytesText(down))
	case write >= 50 || write >= 20 && flush >= 60:
		v.limit, v.text = "disk", fmt.Sprintf("limited by this disk: it is written to %d %%, and flushed %d %% of the time", write, flush)
	case busy >= 80:
		v.limit, v.text = "cpu", fmt.Sprintf("limited by this CPU: it is busy %d %% of the time", busy)
	case !slices.ContainsFunc(peers, isConnected) && (!all || v.rate == 0):
		v.limit, v.text = "nobody", "no peer is connected"
	default:
		v.limit, v.text = judgePeers(peers)
	}
	return v
}

// mostOfIt is the percentage of all bytes from which on the one that gave them is
// what a get waits for, whoever gave the rest.
const mostOfIt = 90

// judgePeers says which peers a get waits for, as it does for nothing else. What
// counts is who gave, and not who happens to be connected.
func judgePeers(peers []transfer.PeerSince) (limit, text string) {
	var most transfer.PeerSince
	var sum int64
	givers, asked := 0, 0
	for _, p := range peers {
		sum += p.Gave
		asked += p.InFlight
		if p.Gave > 0 {
			givers++
		}
		if p.Gave > most.Gave {
			most = p
		}
	}
	switch {
	case asked == 0 && sum == 0:
		return "nobody", "those who are connected have nothing that is missing here"
	case sum == 0:
		return "peer", "those who were asked send nothing"
	case percent(most.Gave, sum) < mostOfIt:
		return "line", fmt.Sprintf("limited by the line here, or by the %s together", count(givers, "peer"))
	}
	who, why := most.Addr+", or the line to it", "it is the only one"
	if most.Source && !strings.Contains(most.Addr, "://") { // a folder
		who, why = most.Addr, "it is the only source"
	}
	if len(peers) > 1 {
		why = fmt.Sprintf("%d %% came from it", percent(most.Gave, sum))
	}
	return "peer", fmt.Sprintf("limited by %s: %s", who, why)
}
