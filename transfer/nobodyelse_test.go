//go:build !race

// As sim_test.go.

package transfer

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// A lastlessSource has all chunks but the last, all of zeros.
type lastlessSource struct{ m *manifest.Manifest }

func (s *lastlessSource) Open(_ context.Context, m *manifest.Manifest) (*chunk.Bitfield, error) {
	s.m = m
	have := chunk.NewBitfield(m.NumChunks())
	have.Fill()
	have.Clear(m.NumChunks() - 1)
	return have, nil
}

func (s *lastlessSource) Fetch(_ context.Context, i int, w io.Writer) error {
	_, err := w.Write(make([]byte, s.m.ChunkLen(i)))
	return err
}
func (*lastlessSource) Width() int     { return 1 }
func (*lastlessSource) String() string { return "/media/part" }

// Where a folder lacks a chunk and nobody else can come, nothing is waited for until
// the patience with peers ends.
func TestNobodyElseCanCome(t *testing.T) {
	m := zeroShare(t, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		o := GetOptions{Manifest: m, Sources: []Source{&lastlessSource{}}, Timeout: time.Hour, Network: newMemNet().node()}
		_, err := Stream(t.Context(), o, io.Discard)
		var stalled *StalledError
		if took := time.Since(began); !errors.As(err, &stalled) || took > 30*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}
