package transfer

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A Plan is what a Get would do.
type Plan struct {
	Path      string // where the share would be
	Files     int    // that are wanted,
	Size      int64  // and their bytes
	KeptFiles int    // that lie at their place already, the same,
	KeptSize  int64  // and their bytes
	Part      int64  // bytes that an interrupted get has left
	Unsure    int    // files of the right size that can only be compared when they are here
	Fetch     int64  // bytes that would be asked for
	Space     int64  // bytes that the disk must have,
	Free      int64  // and those it has; -1: not known

	Differ   []string // paths of files that are there with other content
	Problems []error  // why the get would end before it fetches anything
}

// PlanGet returns what a Get with these options would do, whose Manifest must be
// set. It calls nobody and changes nothing.
func PlanGet(ctx context.Context, o GetOptions) (*Plan, error) {
	g := &getter{o: o, m: o.Manifest}
	var err error
	if len(o.Only)+len(o.Exclude) > 0 {
		if g.sel, err = g.m.Select(o.Only, o.Exclude); err != nil {
			return nil, err
		}
	}
	p := &Plan{Files: numFiles(g.m), Size: g.size(), Fetch: g.size(), Free: -1}
	if g.sel != nil {
		p.Files = g.sel.NumFiles
	}
	if !o.AnyName || runtime.GOOS == "windows" {
		p.problem(g.m.CheckPortable())
	}
	dir, name := g.place()
	name = cmp.Or(name, g.m.Name())
	p.Path = filepath.Join(dir, name)
	d, there, err := nearest(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	p.Free, _ = d.Free()
	p.Space = p.Fetch
	if !there {
		p.checkSpace(d.Path())
		return p, nil
	}
	if _, err := d.Lstat(name); err == nil {
		v, err := store.Look(ctx, d, name, g.m, g.sel, o.Existing)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			p.problem(err)
			return p, nil
		}
		p.KeptFiles, p.KeptSize = v.Kept()
		p.Unsure = v.Unsure()
		for path := range v.Collisions {
			p.Differ = append(p.Differ, path)
		}
		p.problem(v.Refused())
		p.Fetch = v.Selection().Size
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, &store.DiskError{Op: "look at", Path: p.Path, Err: err}
	}
	parts, err := store.Find(d)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		switch {
		case part.Final != name:
		case part.Root != g.m.Root():
			p.problem(&store.BlockedError{Path: p.Path + store.PartSuffix, Why: store.ErrOtherShare.Error()})
		default:
			p.Part = min(part.Kept, p.Fetch)
		}
	}
	p.Fetch -= p.Part
	p.Space = p.Fetch
	p.checkSpace(d.Path())
	return p, nil
}

func (p *Plan) problem(err error) {
	if err != nil {
		p.Problems = append(p.Problems, err)
	}
}

func (p *Plan) checkSpace(dir string) {
	if p.Free >= 0 && p.Free < p.Space {
		p.problem(&store.NoSpaceError{Need: p.Space, Have: p.Free, Dir: dir})
	}
}

// nearest opens dir, or what there is of the way to it.
func nearest(dir string) (d *store.OSDisk, there bool, err error) {
	for there = true; ; there = false {
		fi, err := os.Stat(dir)
		if err == nil && fi.IsDir() || err != nil && !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			d, err := store.OpenDisk(dir)
			return d, there, err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, false, err
		}
		dir = filepath.Dir(dir)
	}
}

func numFiles(m *manifest.Manifest) (n int) {
	for i := range m.Entries() {
		if m.Entries()[i].Kind == manifest.File {
			n++
		}
	}
	return n
}
