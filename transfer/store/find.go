package store

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A Part is an unfinished share that Find has found.
type Part struct {
	Final   string // the name that it will get
	Root    chunk.Hash
	Request []byte    // as given to Open
	ModTime time.Time // when it was last written to
	Kept    int64     // bytes of the chunks that its journal counts
	Total   int64     // bytes of the share

	m *manifest.Manifest
}

// Manifest returns the copy of the manifest that is kept in the part.
func (p Part) Manifest() (*manifest.Manifest, error) { return p.m, nil }

// maxParts bounds how many names of a folder are looked at.
const maxParts = 100_000

// Find returns the parts in a folder, by name. What cannot be read as one is
// left out.
func Find(d Disk) ([]Part, error) {
	names, err := d.Names(".", maxParts)
	if err != nil {
		return nil, &DiskError{Op: "list", Path: d.Path(), Err: err}
	}
	slices.Sort(names)
	var parts []Part
	for _, name := range names {
		final, is := strings.CutSuffix(name, PartSuffix)
		if !is || manifest.CheckName(final) != nil {
			continue
		}
		if p, err := look(d, final, name); err == nil {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

func look(d Disk, final, part string) (p Part, err error) {
	i, err := d.Lstat(part)
	if err != nil || !i.Mode.IsDir() {
		return p, errors.Join(err, errNotDir)
	}
	if _, err := d.Lstat(part + "/" + dataName); errors.Is(err, fs.ErrNotExist) {
		if _, rerr := d.Lstat(part + "/" + replaceName); rerr != nil {
			return p, err // finished, or not begun
		}
	}
	text, err := readFile(d, part+"/"+manifestName, manifest.MaxText)
	if err != nil {
		return p, err
	}
	if p.m, err = manifest.Parse(text); err != nil {
		return p, err
	}
	p.Final, p.Root, p.Total, p.ModTime = final, p.m.Root(), p.m.Size(), time.Unix(0, i.MTime)
	if p.Request, err = readFile(d, part+"/"+requestName, MaxRequest); err != nil {
		p.Request = nil // it can still be gone on with by its ticket
	}
	if text, err := readFile(d, part+"/"+journalName, maxJournal(p.m.NumChunks())); err == nil {
		if h, err := parseHeader(text); err == nil && h.root == p.Root {
			have := replay(text[headerLen:], &h.id, p.m.NumChunks()).have
			for r := range have.Ranges() {
				p.Kept += p.m.ChunkOffset(r.End()) - p.m.ChunkOffset(r.First)
			}
		}
		if i, err := d.Lstat(part + "/" + journalName); err == nil {
			p.ModTime = time.Unix(0, i.MTime)
		}
	}
	return p, nil
}
