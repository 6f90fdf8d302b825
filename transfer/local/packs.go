package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/transfer/pack"
)

const (
	maxPacks  = 256          // of one folder that are opened
	maxListed = chunk.MaxNum // records in them that are kept in mind
)

// A packed is a pack of the share.
type packed struct {
	f     *os.File
	index *pack.Index
}

// openPacks opens the packs in the folder and adds to have what they list. lack says
// what the others hold instead; "" if there are none. Called with mu held.
func (s *Source) openPacks(ctx context.Context, have *chunk.Bitfield) (lack string, err error) {
	listed := 0
	err = eachPack(s.root, func(f *os.File, size int64) (keep bool, err error) {
		x, err := pack.Read(ctx, f, size, s.m.Root(), func(i, n int) bool {
			ok := i < s.m.NumChunks() && n == s.m.ChunkLen(i) && listed < maxListed
			if ok {
				listed++
			}
			return ok
		})
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		switch {
		case err != nil: // what else is there may do
			lack = "a pack that cannot be read (" + reason(err) + ")"
			return false, nil
		case len(x.Chunks) == 0 && x.Others > 0:
			lack = "packs of another share"
			return false, nil
		case len(x.Chunks) == 0:
			lack = "a pack in which no chunk is whole"
			return false, nil
		}
		for i := range x.Chunks {
			have.Set(i)
		}
		s.packs = append(s.packs, packed{f, x})
		return true, nil
	})
	return lack, err
}

// reason returns the part of a file error that says why.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// eachPack calls f for each pack at the top of root, until it returns an error.
func eachPack(root *os.Root, f func(f *os.File, size int64) (keep bool, err error)) error {
	names, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	n := 0
	for _, e := range names {
		if !e.Type().IsRegular() || !strings.HasSuffix(strings.ToLower(path.Ext(e.Name())), pack.Suffix) || n == maxPacks {
			continue
		}
		file, err := root.Open(e.Name())
		if err != nil {
			continue // as if it were not there
		}
		n++
		fi, err := file.Stat()
		keep := false
		if err == nil && fi.Mode().IsRegular() && pack.IsPack(file) {
			keep, err = f(file, fi.Size())
		} else {
			err = nil
		}
		if !keep {
			_ = file.Close() // it was only read
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// closePacks is called with mu held.
func (s *Source) closePacks() {
	for _, p := range s.packs {
		_ = p.f.Close() // it was only read
	}
	s.packs = nil
}

// fromPacks returns the bytes of chunk i from the first pack in which they are
// right, or nil and why none has it.
func (s *Source) fromPacks(i int) ([]byte, error) {
	s.mu.Lock()
	packs := s.packs
	s.mu.Unlock()
	err := fmt.Errorf("chunk %d is not there", i)
	for _, p := range packs {
		item, ok := p.index.Chunks[i]
		if !ok {
			continue
		}
		buf := make([]byte, item.Len)
		if _, rerr := p.f.ReadAt(buf, item.Off); rerr != nil {
			err = rerr
			continue
		}
		if chunk.Sum(buf) == s.m.ChunkHash(i) {
			return buf, nil
		}
		err = fmt.Errorf("chunk %d is damaged there", i)
	}
	return nil, err
}

var errFound = errors.New("found")

// Manifest returns the text of the manifest with the given root from a pack in
// the folder, or nil.
func (s *Source) Manifest(ctx context.Context, root chunk.Hash) []byte {
	dir, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil
	}
	defer dir.Close()
	var text []byte
	_ = eachPack(dir, func(f *os.File, size int64) (bool, error) { // it ends with errFound or with nothing
		x, err := pack.Read(ctx, f, size, root, nil)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil || x.Manifest.Len == 0 {
			return false, nil
		}
		p := make([]byte, x.Manifest.Len)
		if _, err := f.ReadAt(p, x.Manifest.Off); err != nil || chunk.Sum(p) != root {
			return false, nil
		}
		text = p
		return false, errFound
	})
	return text
}
