package main

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"

	"github.com/shoal-p2p/shoal/transfer"
)

// maxListed bounds the files that are named one by one, of each kind.
const maxListed = 20

// merged tells what became of the files that were there before a get.
func (g *getting) merged(res *transfer.Result) {
	a := g.a
	if res.Overwritten > 0 {
		a.sayf("  %s replaced", were(res.Overwritten, "file"))
	}
	g.list("skipped", "left as it is, though it differs: %s", res.Skipped, func(path string) string { return at(res, path) }, nil)
	from := slices.Sorted(maps.Keys(res.Renamed))
	g.list("renamed", "put beside the one that is there, as %s", from, func(path string) string { return filepath.Join(filepath.Dir(g.place(res)), res.Renamed[path]) }, res.Renamed)
}

// place returns where the share was to go.
func (g *getting) place(res *transfer.Result) string {
	return cmp.Or(g.o.Output, filepath.Join(g.o.Dir, res.Manifest.Name()))
}

func at(res *transfer.Result, path string) string {
	return filepath.Join(res.Path, filepath.FromSlash(path))
}

// list names some of the paths, and says how many there are more.
func (g *getting) list(event, format string, paths []string, name func(string) string, to map[string]string) {
	for i, p := range paths {
		fields := map[string]any{"path": p}
		if to != nil {
			fields["to"] = to[p]
		}
		g.emit(event, fields)
		if i < maxListed {
			g.a.sayf("  "+format, name(p))
		}
	}
	if n := len(paths) - maxListed; n > 0 {
		g.a.sayf("  and %s more like this", count(n, "file"))
	}
}

func were(n int, noun string) string {
	if n == 1 {
		return count(n, noun) + " was"
	}
	return count(n, noun) + " were"
}

// skippedError ends a get that has left files as they are although they differ.
func skippedError(res *transfer.Result) error {
	if len(res.Skipped) == 0 {
		return nil
	}
	return refuse(codePartly, "to replace them, run the same line with --overwrite instead of --skip", "%s left, though other than in the share; the rest of %q is complete", were(len(res.Skipped), "file"), res.Manifest.Name())
}
