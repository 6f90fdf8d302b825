package main

import (
	"fmt"
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
	if !e.Done {
		g.a.progress(e.Found, g.total, text)
		return
	}
	if e.Shared > 0 {
		text += fmt.Sprintf(", %s take no new space", bytesText(e.Shared))
	}
	g.a.sayf("%s", text)
}
