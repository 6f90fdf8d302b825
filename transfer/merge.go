package transfer

import (
	"errors"
	"path/filepath"

	"github.com/shoal-p2p/shoal/transfer/store"
)

// merge is prepare for a share at whose final name there is something already:
// what is the same is kept, and o.Existing says what becomes of the rest. The
// result is not nil if nothing has to be fetched.
func (g *getter) merge(dir, name string, o store.Options) (*Result, error) {
	d, err := store.OpenDisk(dir)
	if err != nil {
		return nil, err
	}
	v, err := store.LookAndTell(g.ctx, d, name, g.m, g.sel, g.o.Existing, func(done, total int64) {
		g.emit(Comparing{Done: done, Total: total})
	})
	if err == nil {
		err = v.Refused()
	}
	if err != nil || v.Complete() {
		_ = d.Close() // only read from
		if err != nil {
			return nil, err
		}
		return g.already(filepath.Join(dir, name), v), nil
	}
	g.survey, g.sel = v, v.Selection()
	o.Merge, o.Selection = v, g.sel
	if g.store, err = store.Open(g.ctx, d, o); err != nil {
		_ = d.Close() // nothing is open in it
		return nil, err
	}
	files, bytes := v.Kept()
	g.emit(Merging{Path: filepath.Join(dir, name), Kept: files, KeptSize: bytes, Fetch: g.sel.NumFiles, FetchSize: g.sel.Size})
	if !g.store.Placing() {
		return nil, nil
	}
	g.kept = g.size()
	if err := g.store.Finish(g.ctx); err != nil {
		return nil, errors.Join(err, g.store.Close())
	}
	res := g.result(filepath.Join(dir, name))
	g.merged(res)
	g.emit(Finished{Result: res})
	return res, nil
}

// already returns the result for a share of which all that is wanted lies at its
// final place.
func (g *getter) already(path string, v *store.Survey) *Result {
	res := g.result(path)
	for p := range v.Collisions { // Skip, or it would not be complete
		res.Skipped = append(res.Skipped, p)
	}
	_, res.Kept = v.Kept()
	res.Fetched = 0
	res.Already = len(res.Skipped) == 0
	g.emit(Finished{Result: res})
	return res
}

// merged tells what became of the files that were there.
func (g *getter) merged(res *Result) {
	p := g.store.Placed()
	if p == nil {
		return
	}
	res.Skipped, res.Renamed, res.Overwritten = p.Skipped, p.Renamed, p.Overwritten
	if g.o.Existing == store.Skip {
		for path := range g.survey.Collisions {
			res.Skipped = append(res.Skipped, path)
		}
	}
	res.Merged = true
	res.There, _ = g.survey.Kept()
	if to, ok := p.Renamed[""]; ok {
		res.Path = filepath.Join(filepath.Dir(res.Path), to)
	}
}
