package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// An update of a tree in which 1 % was overwritten or inserted fetches what a store
// of the same chunks would fetch, and no more. Beside it stands an ideal store of
// the same mean chunk size, which cuts wherever the hash says so, however short or
// long a chunk becomes: its cuts meet again sooner behind a change. SHOAL_SOAK=1
// makes the tree 1 GiB.
func TestSoakUpdateFetchesLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 64 MiB")
	}
	numFiles, fileSize := 16, 4<<20
	if os.Getenv("SHOAL_SOAK") != "" {
		numFiles, fileSize = 64, 16<<20
	}
	const piece = 64 << 10
	total := numFiles * fileSize
	pieces := total / 100 / piece
	dir := t.TempDir()
	old, tree := filepath.Join(dir, "old", "tree"), filepath.Join(dir, "new", "tree")
	rnd, fill := rand.New(rand.NewPCG(8, 8)), rand.NewChaCha8([32]byte{8})
	for i := range numFiles {
		p := make([]byte, fileSize)
		_, _ = rand.NewChaCha8([32]byte{7, byte(i)}).Read(p)
		name := fmt.Sprintf("d%d/part-%02d", i%4, i)
		must(t, os.MkdirAll(filepath.Join(old, filepath.Dir(name)), 0o755))
		must(t, os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(old, name), p, 0o644))
		if i%8 == 3 { // in every eighth file, in half of those by insertion
			fresh := make([]byte, piece)
			for range pieces / (numFiles / 8) {
				_, _ = fill.Read(fresh)
				at := rnd.IntN(len(p) - piece)
				if i%16 == 3 {
					copy(p[at:], fresh)
				} else {
					p = slices.Insert(p, at, fresh...)
				}
			}
		}
		must(t, os.WriteFile(filepath.Join(tree, name), p, 0o644))
	}

	s := start(t, filepath.Join(dir, "seed"), "share", "--json", "--quiet", "--listen", "127.0.0.1:0", "--cutter", "fastcdc", "--write", filepath.Join(dir, "new.shoal"), tree)
	e := s.wait("ticket")
	if e == nil {
		t.Fatal("no ticket")
	}
	g := start(t, filepath.Join(dir, "home"), "get", "--json", "--quiet", "--listen", "off", "--update", e["ticket"].(string), filepath.Join(dir, "old"))
	done := g.wait("finished")
	if done == nil {
		t.Fatal("the update did not end well")
	}
	must(t, g.cmd.Wait())
	m, err := manifestFile(filepath.Join(dir, "new.shoal"))
	must(t, err)
	must(t, manifest.Verify(t.Context(), m, nil, old, func(d manifest.Difference) { t.Error(d) }))

	// The old version is gone by now; it was made of the same pieces.
	mean := int(m.Size()) / m.NumChunks()
	same, ideal := &cdStore{cut: m.Cutter().Next}, &cdStore{cut: func(p []byte) int { return ideally(p, mean) }}
	p := make([]byte, fileSize)
	for i := range numFiles {
		_, _ = rand.NewChaCha8([32]byte{7, byte(i)}).Read(p)
		same.add(p)
		ideal.add(p)
	}
	same.fresh, ideal.fresh = 0, 0
	for i := range m.Entries() {
		if m.Entries()[i].Kind != manifest.File {
			continue
		}
		p, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(m.Entries()[i].Path)))
		must(t, err)
		same.add(p)
		ideal.add(p)
	}
	received := done["received"].(float64)
	t.Logf("%d MiB, %d pieces of %d bytes changed; chunks of %d bytes in the mean; received %.2f MB; a store with the same cutter %.2f MB, an ideal one %.2f MB: %.3f times",
		total>>20, pieces, piece, mean, received/1e6, float64(same.fresh)/1e6, float64(ideal.fresh)/1e6, received/float64(ideal.fresh))
	if received > 1.01*float64(same.fresh) {
		t.Errorf("received %.0f bytes, and a store with the same cutter lacks %d", received, same.fresh)
	}
	if received > 1.2*float64(ideal.fresh) {
		t.Errorf("received %.0f bytes, and an ideal store lacks %d", received, ideal.fresh)
	}
}

// A cdStore is a content-defined store, as far as it knows what it has.
type cdStore struct {
	cut   func(p []byte) int
	known map[chunk.Hash]bool
	fresh int // bytes that came and were not known
}

func (s *cdStore) add(p []byte) {
	if s.known == nil {
		s.known = map[chunk.Hash]bool{}
	}
	for len(p) > 0 {
		n := s.cut(p)
		if h := chunk.Sum(p[:n]); !s.known[h] {
			s.known[h] = true
			s.fresh += n
		}
		p = p[n:]
	}
}

// ideally returns the end of the first chunk of p: behind the byte at which the
// hash of the last 64 is so small that chunks have mean bytes in the mean.
func ideally(p []byte, mean int) int {
	limit := ^uint64(0) / uint64(mean)
	fp := uint64(0)
	for i, b := range p {
		if fp = fp<<1 + fastcdc.G[b]; fp < limit && i >= 64 {
			return i + 1
		}
	}
	return len(p)
}
