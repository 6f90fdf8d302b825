package main

import (
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
)

// What cannot be checked for one reason is one line, however many chunks it has.
func TestVerifySameReason(t *testing.T) {
	t.Parallel()
	var (
		out strings.Builder
		r   sameReason
	)
	for _, d := range []manifest.Difference{
		{Kind: manifest.WrongSize, Path: "a", Chunk: -1, Why: "has 2 bytes, want 1"},
		{Kind: manifest.Unchecked, Path: "a", Chunk: 4, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.Unchecked, Path: "a", Chunk: 5, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.Unchecked, Path: "a", Chunk: 6, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.Unchecked, Path: "a", Chunk: 8, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.Unchecked, Path: "b", Chunk: 9, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.WrongContent, Path: "c", Chunk: 10, Num: 1, Why: "differs"},
		{Kind: manifest.WrongContent, Path: "c", Chunk: 11, Num: 1, Why: "differs"},
		{Kind: manifest.Unchecked, Path: "c", Chunk: 12, Num: 1, Why: "cannot be checked"},
		{Kind: manifest.Unchecked, Path: "c", Chunk: 13, Num: 1, Why: "cannot be checked"},
	} {
		if err := r.print(&out, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.flush(&out); err != nil {
		t.Fatal(err)
	}
	want := `"a": has 2 bytes, want 1
"a": chunk 4 cannot be checked
and 2 chunks behind it, to chunk 6
"a": chunk 8 cannot be checked
"b": chunk 9 cannot be checked
"c": chunk 10 differs
"c": chunk 11 differs
"c": chunk 12 cannot be checked
and 1 chunk behind it, to chunk 13
`
	if out.String() != want {
		t.Errorf("printed:\n%swant:\n%s", &out, want)
	}
}
