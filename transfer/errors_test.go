package transfer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// An error is one line that somebody reads, however many peers it speaks of.
func TestErrorsAreShort(t *testing.T) {
	var peers []string
	for i := range 300 {
		peers = append(peers, fmt.Sprintf("192.0.2.%d:7420: connection refused", i))
	}
	for _, err := range []error{
		&NoPeerError{Timeout: time.Minute, Reasons: peers},
		&StalledError{Timeout: time.Minute, Done: 1, Total: 2, Reasons: peers},
		&IntegrityError{Chunk: 3, Peers: peers},
	} {
		text := err.Error()
		if !strings.Contains(text, peers[0]) || !strings.HasSuffix(text, " and 292 more") || len(text) > 500 {
			t.Errorf("%d bytes: %s", len(text), text)
		}
	}
	two := (&StalledError{Timeout: time.Minute, Reasons: peers[:2]}).Error()
	if !strings.HasSuffix(two, peers[0]+"; "+peers[1]) {
		t.Error(two)
	}
}
