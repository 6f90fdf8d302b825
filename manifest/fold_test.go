package manifest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// Folding is what SPEC.md says, on names of all kinds, and in buffers that are used again.
func TestP06FoldAsSpecified(t *testing.T) {
	var f folding
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.String(),
			rapid.StringOf(rapid.SampledFrom([]rune("aAßẞéÉıİΣςσſﬁŉǰΐᾳ\u0301\u0323\u0345\u200d\u00ad\ufe0fＡ각.-"))),
		).Draw(t, "name")
		got := string(f.append([]byte("before"), name))
		want := name
		for _, x := range ignorable {
			want = strings.Map(func(r rune) rune {
				if x[0] <= r && r <= x[1] {
					return -1
				}
				return r
			}, want)
		}
		want = norm.NFD.String(want)
		want = cases.Fold().String(want)
		want = strings.Map(func(r rune) rune { // what the library gets wrong, rune by rune
			if up := unicode.ToUpper(r); unicode.Is(unicode.Cherokee, r) {
				return up
			}
			return r
		}, want)
		want = norm.NFD.String(want)
		if got != "before"+want || fold(name) != want {
			t.Fatalf("%+q folds to %+q and %+q, want %+q", name, got, fold(name), want)
		}
		for _, other := range []string{want, norm.NFC.String(name), norm.NFD.String(name)} {
			if fold(other) != want {
				t.Fatalf("%+q folds to %+q, but %+q to %+q", name, want, other, fold(other))
			}
		}
	})
}

// No character has another case that folds differently.
func TestP06FoldAllRunes(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want := fold(string(r))
		if again := fold(want); again != want {
			t.Errorf("%U folds to %+q, and that to %+q", r, want, again)
		}
		for _, other := range []rune{unicode.SimpleFold(r), unicode.ToLower(r), unicode.ToUpper(r)} {
			// The dotted and dotless I of Turkish are letters of their own.
			if got := fold(string(other)); got != want && r != '\u0130' && r != '\u0131' {
				t.Errorf("%U folds to %+q, %U to %+q", r, want, other, got)
			}
		}
	}
}

// The tables of folding may be used by many goroutines at once.
func TestP06FoldAtOnce(t *testing.T) {
	var paths []string
	for i := range 300 {
		paths = append(paths, fmt.Sprintf("Größe %03d ΐ", i))
	}
	text := []byte(withPaths(paths...))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Parse(text); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
