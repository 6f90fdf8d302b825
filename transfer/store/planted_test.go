//go:build unix

package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-p2p/shoal/transfer/store"
)

// P10: the files that we keep in a part may have another name, outside. Nothing is
// written to them, and what is told of them is not lost.
func TestP10LinkedOwnFiles(t *testing.T) {
	for _, name := range []string{"journal", "manifest", "request", "lock"} {
		t.Run(name, func(t *testing.T) {
			s, dir := newShare(t), t.TempDir()
			d, err := store.OpenDisk(dir)
			must(t, err)
			st, err := s.open(d)
			must(t, err)
			must(t, st.Write(0, s.chunk(t, 0)))
			must(t, st.Close())
			ours := filepath.Join(dir, "tree"+store.PartSuffix, name)
			outside := filepath.Join(t.TempDir(), "outside")
			must(t, os.Link(ours, outside))
			before, err := os.ReadFile(outside)
			must(t, err)

			d, err = store.OpenDisk(dir)
			must(t, err)
			st, err = s.open(d)
			if err != nil {
				if name != "lock" {
					t.Error(err)
				}
				must(t, d.Close())
			} else {
				must(t, s.fill(t, st))
				d, err = store.OpenDisk(dir)
				must(t, err)
				s.finished(t, d)
				must(t, d.Close())
			}
			if after, err := os.ReadFile(outside); err != nil || !bytes.Equal(before, after) {
				t.Errorf("what has the other name is now %.100q, %v", after, err)
			}
		})
	}
}
