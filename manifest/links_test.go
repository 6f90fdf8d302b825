package manifest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseLinks(t *testing.T) {
	chain := func(n int) []string {
		var paths []string
		for i := range n {
			paths = append(paths, fmt.Sprintf("l%04d -> l%04d", i, i+1))
		}
		return paths
	}
	for _, test := range []struct {
		name  string
		paths []string
		want  string // "" is success
	}{
		{"beside", []string{"a", "b -> a"}, ""},
		{"missing", []string{"b -> a"}, ""},
		{"to the top", []string{"b -> ."}, ""},
		{"down", []string{"a/", "a/x", "b -> a/x"}, ""},
		{"up", []string{"a/", "a/l -> ../b", "b"}, ""},
		{"to the top from below", []string{"a/", "a/l -> .."}, ""},
		{"slash behind", []string{"a/", "b -> a/"}, ""},
		{"slashes and dots", []string{"a/", "b -> .//a/./"}, ""},
		{"colon later", []string{"b -> x/C:"}, ""},
		{"out", []string{"l -> .."}, "leads out of the share"},
		{"out and in again", []string{"l -> ../x/l"}, "leads out of the share"},
		{"out below", []string{"a/", "a/l -> ../../x"}, "leads out of the share"},
		{"out late", []string{"l -> a/b/../../../x"}, "leads out of the share"},
		{"absolute", []string{"l -> /etc/passwd"}, "absolute path"},
		{"two slashes", []string{"l -> //host/x"}, "absolute path"},
		{"drive", []string{`l -> C:\x`}, "drive letter"},
		{"UNC", []string{`l -> \\host\x`}, "backslash"},
		{"empty", []string{"link -> "}, "has no target"},
		{"control", []string{"l -> a\x1bb"}, "control character"},
		{"not UTF-8", []string{"l -> a\xff"}, "not valid UTF-8"},
		{"of 4096 bytes", []string{"l -> " + strings.Repeat("x", 4096)}, ""},
		{"of 4097 bytes", []string{"l -> " + strings.Repeat("x", 4097)}, "target of 4097 bytes, the limit is 4096"},
		// through other links
		{"through a link", []string{"a/", "a/b/", "a/b/x", "l -> a", "m -> l/b/x"}, ""},
		{"out through a link, on disk", []string{"a/", "a/b/", "a/b/up -> ../..", "l -> a/b/up/../x"}, "leads out of the share"},
		{"out through a link, by text", []string{"a/", "a/b/", "a/b/c/", "l -> a/b/c", "m -> l/../../x"}, "leads out of the share"},
		{"out by a link in another case", []string{"a/", "a/b/", "a/b/Top -> ../..", "a/b/x -> TOP/../../y"}, "leads out of the share"},
		{"deep into a link", []string{"a/", "a/b/", "l -> a/b", "m -> l/../b"}, ""},
		{"behind what is missing", []string{"l -> x/../../y"}, "leads out of the share"},
		{"itself", []string{"l -> l"}, "goes round in a circle"},
		{"itself below", []string{"l -> l/x"}, "goes round in a circle"},
		{"two", []string{"a -> b", "b -> a"}, "circle"},
		{"three", []string{"a -> b", "b -> c", "c -> a"}, "circle"},
		{"into a circle", []string{"a -> b/x", "b -> c", "c -> b"}, "circle"},
		{"to a link that is refused", []string{"a -> b", "b -> /etc"}, "leads through a link that leads to an absolute path"},
		{"40 links", chain(40), ""},
		{"41 links", chain(41), "more than 40 links"},
		{"1000 links", chain(1000), "more than 40 links"},
		{"40 in one target", []string{"a -> " + strings.Repeat("d/", 39), "d -> ."}, ""},
		{"41 in one target", []string{"a -> " + strings.Repeat("d/", 40), "d -> ."}, "more than 40 links"},
	} {
		t.Run(test.name, func(t *testing.T) { checkRefused(t, withPaths(test.paths...), test.want) })
	}
}

// Long targets and many links must not cost more than their length.
func TestParseLinksCost(t *testing.T) {
	var paths []string
	for i := range 5000 {
		paths = append(paths, fmt.Sprintf("l%04d -> %s", i, strings.Repeat("a/../", 800)))
	}
	text := withPaths(paths...)
	start := time.Now()
	if _, err := Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("%d bytes took %v", len(text), d)
	}
}
