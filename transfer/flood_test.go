//go:build !race

// As sim_test.go, not under the race detector.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever floods us with addresses makes us dial each host once a second at most,
// few of them at a time, and has nothing of it shown.
func TestDiscoverFlood(t *testing.T) {
	synctest.Test(t, flood)
}

func flood(t *testing.T) {
	us := &countingNetwork{Network: newMemNet().node()}
	waits := 0
	o := GetOptions{
		Root: [32]byte{1}, Dir: t.TempDir(), Timeout: 20 * time.Second, Network: us,
		Discover: func(ctx context.Context, found func(string)) {
			for k := 0; ctx.Err() == nil; k++ {
				for range 100 { // 10,000 a second
					found(fmt.Sprintf("198.51.100.7:%d", 1+k%65535))
					found(fmt.Sprintf("203.0.%d.%d:7420", k/256%256, k%256))
					k++
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
		Events: func(e Event) {
			if w, ok := e.(Waiting); ok {
				waits++
				if text := strings.Join(w.Reasons, "; "); len(text) > 100 {
					t.Errorf("it says %q", text)
				}
			}
		},
	}
	_, err := Get(t.Context(), o)
	var no *NoPeerError
	if !errors.As(err, &no) || len(err.Error()) > 200 {
		t.Errorf("it ends with %v", err)
	}
	if waits > 2 {
		t.Errorf("it said %d times what it waits for", waits)
	}
	if us.most > maxHints {
		t.Errorf("%d dials at a time", us.most)
	}
	for host, at := range us.at {
		for k := 1; k < len(at); k++ {
			if d := at[k].Sub(at[k-1]); d < hintInterval {
				t.Errorf("%s was dialled again after %v", host, d)
			}
		}
	}
}
