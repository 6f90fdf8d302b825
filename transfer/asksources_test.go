package transfer

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A slowSource looks for the manifest until nobody waits any more.
type slowSource struct{ ended chan struct{} }

func (s *slowSource) Manifest(ctx context.Context, _ chunk.Hash) []byte {
	<-ctx.Done()
	close(s.ended)
	return nil
}

func (*slowSource) Open(context.Context, *manifest.Manifest) (*chunk.Bitfield, error) {
	return nil, &DeadSourceError{errors.New("has nothing")}
}
func (*slowSource) Fetch(context.Context, int, io.Writer) error { return errors.New("has nothing") }
func (*slowSource) Width() int                                  { return 1 }
func (*slowSource) String() string                              { return "/media/slow" }

// Peers are called while a source is still searched for the manifest.
func TestPeersBesideSlowSource(t *testing.T) {
	n, dir := newMemNet(), t.TempDir()
	s := serveTree(t, n, writeTree(t))
	src := &slowSource{make(chan struct{})}
	o := options(n, dir, s)
	o.Sources = []Source{src}
	if _, err := Get(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	same(t, s.Manifest(), filepath.Join(dir, "tree"))
	select {
	case <-src.ended:
	default:
		t.Error("the search goes on")
	}
}
