package main

import (
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

// tells sets what is asked for the line that SIGUSR1, or SIGINFO, wants. f may
// be called from any goroutine.
func (a *app) tells(f func() string) { a.toTell.Store(&f) }

// status says how far a get is.
func (g *getting) status() string {
	p, look := g.latest.Load(), g.look.latest.Load()
	switch {
	case look != nil:
		return *look
	case p == nil:
		return "looking for a peer"
	case p.Total == 0:
		return "waiting for the list of what is shared; " + count(p.Peers, "peer")
	}
	text := fmt.Sprintf("%d %%: %s of %s", percent(p.Done, p.Total), bytesText(p.Done), bytesText(p.Total))
	if p.Rate > 0 {
		text += fmt.Sprintf(", %s/s, %s left", bytesText(int64(p.Rate)), durationText(time.Duration(float64(p.Total-p.Done)/p.Rate*float64(time.Second))))
	}
	return text + ", " + count(p.Peers, "peer")
}

// status says how far the hashing of a tree is.
func (h *hashing) status() string {
	if text := h.latest.Load(); text != nil {
		return *text
	}
	return "looking what there is to hash"
}

// servingText says what a share has sent.
func servingText(size int64, st transfer.Stats, d time.Duration) string {
	text := fmt.Sprintf("serving for %s; sent %s to %s", durationText(d), bytesText(st.Sent), count(numTaking(st), "peer"))
	if size > 0 {
		text += fmt.Sprintf(", %.2f times the share", float64(st.Sent)/float64(size))
	}
	return text
}

// numTaking returns how many peers have taken something.
func numTaking(st transfer.Stats) (n int) {
	for _, p := range st.Peers {
		if p.Sent > 0 {
			n++
		}
	}
	return n
}
