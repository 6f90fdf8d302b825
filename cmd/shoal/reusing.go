package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/transfer"
)

// reusing shows how the search for what can be reused goes on.
func (g *getting) reusing(e transfer.Reusing) {
	now := time.Now()
	if e.Done || g.json && now.Sub(g.jsonAt) >= jsonEvery {
		g.jsonAt = now
		g.emit("reusing", map[string]any{"read": e.Read, "found": e.Found, "shared": e.Shared, "done": e.Done})
	}
	text := fmt.Sprintf("%s of what is there can be used, %s read", bytesText(e.Found), bytesText(e.Read))
	d, tell := g.looking(now, text)
	if !e.Done {
		g.a.progress(e.Found, g.total, text)
		if tell {
			g.a.sayf("%s so far", text)
		}
		return
	}
	g.looked(now)
	if d >= time.Second {
		text += " in " + durationText(d)
	}
	if e.Shared > 0 {
		text += fmt.Sprintf(", %s take no new space", bytesText(e.Shared))
	}
	g.a.sayf("%s", text)
}

// comparing shows how far the files that lie at the place of the share are compared.
func (g *getting) comparing(e transfer.Comparing, now time.Time) {
	if e.Done == 0 || g.json && now.Sub(g.jsonAt) >= jsonEvery {
		g.jsonAt = now
		g.emit("comparing", map[string]any{"done": e.Done, "total": e.Total})
	}
	g.compared(e.Done, e.Total, " that is there", now)
}

// compared shows how far a comparison is, and reports whether it did: one that is
// short is not shown.
func (g *getting) compared(done, total int64, of string, now time.Time) (shown bool) {
	text := "compared " + bytesText(done) + " of " + bytesText(total) + of
	d, tell := g.looking(now, text)
	if d < time.Second {
		return false
	}
	text += leftText(done, total, d)
	g.a.progress(done, total, text)
	if tell {
		g.a.sayf("%s", text)
	}
	return true
}

// A look is a pass over what lies on the disk already, which may take long.
type look struct {
	began, said time.Time // when it began, and when a line was last printed of it; 0: there is none
	latest      atomic.Pointer[string]
	spent       time.Duration // in all that have ended
}

// looking notes that a look goes on, and returns for how long it has. tell says
// that it is time for a line, where there is no bar: after some seconds, and then
// now and then.
func (g *getting) looking(now time.Time, text string) (d time.Duration, tell bool) {
	l := &g.look
	l.latest.Store(&text)
	if l.began.IsZero() {
		l.began, l.said = now, now
	}
	every := quietTime
	if l.said.Equal(l.began) {
		every = quietTime / 5
	}
	if tell = !g.a.tty && now.Sub(l.said) >= every; tell {
		l.said = now
	}
	return now.Sub(l.began), tell
}

// looked notes that a look has ended. What limits a get is asked of the time in
// which it fetches.
func (g *getting) looked(now time.Time) {
	l := &g.look
	if !l.began.IsZero() {
		l.spent += now.Sub(l.began)
	}
	l.began = time.Time{}
	l.latest.Store(nil)
	g.watch.begin()
}
