package manifest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/shoal-p2p/shoal/chunk"
)

// A Selection is a part of a share. A nil *Selection is all of it.
type Selection struct {
	Entries  *chunk.Bitfield // the chosen entries, with the directories above them
	Chunks   *chunk.Bitfield // the chunks that hold any of their content
	NumFiles int
	Size     int64 // of the chosen files, in bytes
}

// Select returns the entries that match one of the globs in only (all, if there are
// none) and none of those in exclude. A glob is as in doublestar: "**" spans
// directories. One without a slash is matched with base names at any depth, any
// other with whole paths. What matches a directory chooses, or excludes, all that
// is beneath it. A text that is exactly a path matches it, whatever it means as a
// glob. It is an error if a glob is malformed, if one of only matches nothing, or if
// nothing is left.
func (m *Manifest) Select(only, exclude []string) (*Selection, error) {
	if len(only) == 0 && len(exclude) == 0 {
		return nil, nil
	}
	want, err := newGlobs(only)
	if err != nil {
		return nil, err
	}
	not, err := newGlobs(exclude)
	if err != nil {
		return nil, err
	}
	sel := &Selection{Entries: chunk.NewBitfield(len(m.entries)), Chunks: chunk.NewBitfield(m.NumChunks())}
	var dirs []int    // indexes of the directories above the entry
	in, out := "", "" // the last directory that was chosen, or excluded, whole
	chosen := 0
	for i := range m.entries {
		e := &m.entries[i]
		for len(dirs) > 0 && !beneath(e.Path, m.entries[dirs[len(dirs)-1]].Path) {
			dirs = dirs[:len(dirs)-1]
		}
		excluded := beneath(e.Path, out)
		if !excluded && not.match(e.Path) {
			excluded = true
			if e.Kind == Dir {
				out = e.Path
			}
		}
		matches := want.match(e.Path) // also what is chosen already, to see which globs match nothing
		if matches && e.Kind == Dir && !beneath(e.Path, in) {
			in = e.Path
		}
		if !excluded && (matches || len(only) == 0 || beneath(e.Path, in)) {
			chosen++
			sel.add(m, i)
			for _, d := range dirs {
				sel.Entries.Set(d)
			}
		}
		if e.Kind == Dir {
			dirs = append(dirs, i)
		}
	}
	if g := want.unused(); g != "" {
		return nil, fmt.Errorf("nothing in the share matches %s", quote(g))
	}
	if chosen == 0 {
		return nil, errors.New("nothing is left of the share: everything is excluded")
	}
	return sel, nil
}

// Choose returns the selection of some entries, by index, with the directories above
// them. It may be empty.
func (m *Manifest) Choose(entries *chunk.Bitfield) *Selection {
	sel := &Selection{Entries: chunk.NewBitfield(len(m.entries)), Chunks: chunk.NewBitfield(m.NumChunks())}
	var dirs []int // indexes of the directories above the entry
	for i := range m.entries {
		e := &m.entries[i]
		for len(dirs) > 0 && !beneath(e.Path, m.entries[dirs[len(dirs)-1]].Path) {
			dirs = dirs[:len(dirs)-1]
		}
		if entries.Has(i) {
			sel.add(m, i)
			for _, d := range dirs {
				sel.Entries.Set(d)
			}
		}
		if e.Kind == Dir {
			dirs = append(dirs, i)
		}
	}
	return sel
}

// Find returns the index of the entry with a path.
func (m *Manifest) Find(path string) (entry int, ok bool) {
	return slices.BinarySearchFunc(m.entries, path, func(e Entry, path string) int { return ComparePaths(e.Path, path) })
}

// add adds entry i and its chunks.
func (s *Selection) add(m *Manifest, i int) {
	s.Entries.Set(i)
	e := &m.entries[i]
	if e.Kind != File {
		return
	}
	s.NumFiles++
	s.Size += e.Size
	first, end := m.Chunks(i)
	s.Chunks.SetRange(first, end-first)
}

// beneath reports whether path is in dir or deeper; nothing is beneath "".
func beneath(path, dir string) bool {
	return dir != "" && len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// globs match paths of a share.
type globs []glob

type glob struct {
	text    string // as the user gave it
	pattern string
	byName  bool // matched with base names
	used    bool
}

// IsGlob reports whether s is well formed as a glob.
func IsGlob(s string) bool { return doublestar.ValidatePattern(s) }

func newGlobs(texts []string) (globs, error) {
	gs := make(globs, 0, len(texts))
	for _, text := range texts {
		pattern := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(text, "./"), "/"), "/")
		if pattern == "" || !IsGlob(pattern) {
			return nil, fmt.Errorf("glob %s: %w", quote(text), path.ErrBadPattern)
		}
		gs = append(gs, glob{text: text, pattern: pattern, byName: !strings.Contains(pattern, "/")})
	}
	return gs, nil
}

// match reports whether any glob matches, and marks all those that do as used.
func (gs globs) match(path string) bool {
	matched := false
	for i := range gs {
		g := &gs[i]
		name := path
		if g.byName {
			name = base(path)
		}
		if name == g.pattern || doublestar.MatchUnvalidated(g.pattern, name) {
			g.used, matched = true, true
		}
	}
	return matched
}

// unused returns a glob that never matched, or "".
func (gs globs) unused() string {
	for _, g := range gs {
		if !g.used {
			return g.text
		}
	}
	return ""
}
