package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

// receivers shows who fetches from a share: on a terminal in one line that stays
// at the bottom, and everywhere with a line when one begins and when it ends.
type receivers struct {
	a     *app
	size  int64 // bytes of the share
	stats func() transfer.Stats
	at    map[[32]byte]*taker
	last  time.Time // of the last look
}

// A taker is one peer that has fetched something.
type taker struct {
	addr  string
	sent  int64   // as of the last look
	rate  float64 // bytes/s
	began int64   // what it had when this connection to it began,
	since time.Time
	here  bool // it is connected
}

// lookReceivers is how often to look what the receivers do.
const lookReceivers = 500 * time.Millisecond

// watch shows receivers until ctx ends; wait waits for that.
func (r *receivers) watch(ctx context.Context) (wait func()) {
	r.at = make(map[[32]byte]*taker)
	r.last = time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(lookReceivers)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				r.a.finishBar()
				return
			case now := <-t.C:
				r.look(now, r.stats())
				r.a.bottom(r.text())
			}
		}
	})
	return wg.Wait
}

// look takes the counters at one moment.
func (r *receivers) look(now time.Time, st transfer.Stats) {
	d := now.Sub(r.last).Seconds()
	r.last = now
	known := make(map[[32]byte]bool, len(st.Peers))
	for _, p := range st.Peers {
		known[p.ID] = true
		x := r.at[p.ID]
		if x == nil {
			if p.Sent == 0 {
				continue
			}
			x = &taker{}
			r.at[p.ID] = x
		}
		fresh := p.Sent - x.sent
		switch {
		case !x.here && p.Lines > 0 && fresh > 0:
			x.here, x.addr, x.began, x.since = true, p.Addr, x.sent, now
			r.a.sayf("%s fetches%s", p.Addr, inBrackets(whereNow(p.Addr)))
		case !x.here && fresh > 0: // it came and went between two looks
			r.ended(p.Addr, fresh, p.Time)
		case x.here && p.Lines == 0:
			x.here = false
			r.ended(x.addr, p.Sent-x.began, now.Sub(x.since))
		}
		if d > 0 {
			x.rate += (float64(fresh)/d - x.rate) / 3 // of the last looks
		}
		x.sent = p.Sent
	}
	for id := range r.at {
		if !known[id] { // too many came since
			delete(r.at, id)
		}
	}
}

func (r *receivers) ended(addr string, n int64, d time.Duration) {
	s := fmt.Sprintf("%s has ended: sent %s to it", addr, bytesText(n))
	if r.size > 0 {
		s += fmt.Sprintf(", %d %%", percent(n, r.size))
	}
	if rate := speedText(n, d); rate != "" {
		s += " (" + rate + ")"
	}
	r.a.sayf("%s", s)
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// text is the line at the bottom: those first to whom most goes.
func (r *receivers) text() string {
	var here []*taker
	sent := int64(0)
	for _, x := range r.at {
		sent += x.sent
		if x.here {
			here = append(here, x)
		}
	}
	if len(here) == 0 {
		if sent == 0 {
			return "nobody has fetched anything yet"
		}
		return "nobody is fetching; " + timesText(r.size, sent)
	}
	slices.SortFunc(here, func(a, b *taker) int {
		return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.addr, b.addr))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s", count(len(here), "receiver"), timesText(r.size, sent))
	for _, x := range here {
		fmt.Fprintf(&b, ", %s", x.addr)
		if r.size > 0 {
			fmt.Fprintf(&b, " %d %%", percent(x.sent, r.size))
		}
		fmt.Fprintf(&b, " %s/s", bytesText(int64(x.rate)))
	}
	return b.String()
}

// timesText says how often a share was sent.
func timesText(size, sent int64) string {
	if size <= 0 {
		return "sent " + bytesText(sent)
	}
	return fmt.Sprintf("sent %.2f × its size", float64(sent)/float64(size))
}

// sentSummary says what was sent in all.
func sentSummary(size int64, st transfer.Stats) string {
	n := numTaking(st)
	if n == 0 {
		return "ended; nobody fetched anything"
	}
	return fmt.Sprintf("ended; %s to %s (%s)", timesText(size, st.Sent), count(n, "receiver"), bytesText(st.Sent))
}
