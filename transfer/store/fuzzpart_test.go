package store_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/shoal-p2p/shoal/transfer/store"
	"github.com/shoal-p2p/shoal/transfer/store/memdisk"
)

// partFiles are the small files of a part.
var partFiles = []string{"journal", "manifest", "request", "lock"}

// FuzzPart: whatever lies in a part, a get that goes on with it takes no chunk for
// good that is not, and finishes.
func FuzzPart(f *testing.F) {
	s := newShare(f)
	d := memdisk.New()
	st, err := s.open(d)
	must(f, err)
	for _, i := range []int{0, 2} {
		must(f, st.Write(i, s.chunk(f, i)))
	}
	must(f, st.Barrier())
	must(f, st.Write(1, s.chunk(f, 1)))
	must(f, st.Close())
	num := d.NumOps()
	for k, name := range partFiles {
		p := readAll(d, "tree"+store.PartSuffix+"/"+name)
		f.Add(byte(k), p)
		f.Add(byte(k), p[:len(p)/2])
		f.Add(byte(k), append(bytes.Clone(p), 0))
		if len(p) > 40 {
			q := bytes.Clone(p)
			q[len(q)-20] ^= 4
			f.Add(byte(k), q)
		}
		f.Add(byte(k), []byte{})
	}
	f.Fuzz(func(t *testing.T, which byte, p []byte) {
		if len(p) > 1<<20 {
			return
		}
		d := d.Killed(num)
		name := "tree" + store.PartSuffix + "/" + partFiles[int(which)%len(partFiles)]
		file, err := d.OpenFile(name, os.O_RDWR)
		must(t, err)
		must(t, file.Truncate(0))
		_, err = file.WriteAt(p, 0)
		must(t, err)
		must(t, file.Close())
		st, err := s.open(d)
		if err != nil {
			return // it says that this is no part of this share
		}
		have := st.Have()
		for i := range s.m.NumChunks() {
			if have.Has(i) && !s.right(st, i) {
				t.Errorf("chunk %d is taken for good", i)
			}
		}
		must(t, s.fill(t, st))
		s.finished(t, d)
	})
}
