package transfer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// upToDate returns the result of an update for which there is nothing to do: what
// lies at path is the share, and nothing but the share. Nothing is read if sizes
// and times differ, as they nearly always do then. With a part beside it, an update
// that was interrupted is gone on with first, unless ended says that it was.
func (g *getter) upToDate(path string, ended bool) (*Result, error) {
	if g.sel != nil {
		return nil, errors.New("get: an update is of all of a share")
	}
	if _, err := os.Lstat(path + store.PartSuffix); !ended && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if !g.looksSame(path) {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	same := true
	err := manifest.Verify(ctx, g.m, nil, path, func(d manifest.Difference) {
		if d.Kind == manifest.WrongTime && (d.Entry < 0 || g.m.Entries()[d.Entry].Kind == manifest.Dir) {
			return // a file came and went
		}
		same = false
		cancel()
	})
	if g.ctx.Err() != nil {
		return nil, context.Cause(g.ctx)
	}
	if err != nil || !same {
		return nil, nil
	}
	res := g.result(path)
	res.Already, res.Kept, res.Fetched = true, res.Size, 0
	g.emit(Finished{Result: res})
	return res, nil
}

// looksSame reports whether each file of the share lies at path with its size and
// its time.
func (g *getter) looksSame(path string) bool {
	for _, e := range g.m.Entries() {
		if e.Kind != manifest.File {
			continue
		}
		name := path
		if !g.m.IsFile() {
			name = filepath.Join(path, filepath.FromSlash(e.Path))
		}
		fi, err := os.Lstat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Size() != e.Size || !fi.ModTime().Equal(e.ModTime()) {
			return false
		}
	}
	return true
}
