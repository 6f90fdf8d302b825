package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// fakeManifest returns the manifest of files of these sizes, 100 in a
// directory, whose hashes are of nothing: the store does not look at them when
// it writes. One size is a share that is a file.
func fakeManifest(t testing.TB, chunkSize int, sizes ...int64) *manifest.Manifest {
	t.Helper()
	return fakeTree(t, chunkSize, 100, 1, sizes...)
}

// fakeTree is fakeManifest with so many files in each of the lowest folders, which
// lie in so many others.
func fakeTree(t testing.TB, chunkSize, perDir, depth int, sizes ...int64) *manifest.Manifest {
	t.Helper()
	var entries, chunks strings.Builder
	total, numEntries, numChunks := int64(0), 0, 0
	cut := func(n int64) {
		for ; n > 0; n -= int64(chunkSize) {
			numChunks++
			fmt.Fprintf(&chunks, "%d %s\n", min(n, int64(chunkSize)), chunk.Hash{1}.String())
		}
	}
	small, top := int64(0), "dir 0755 1700000000.000000000"
	for i, n := range sizes {
		dir := ""
		for level := range depth {
			n := perDir // files in a folder of this level: 20 folders in each above the lowest
			for range depth - 1 - level {
				n *= 20
			}
			dir += fmt.Sprintf("d%06d/", i/n)
			if len(sizes) > 1 && i%n == 0 {
				numEntries++
				fmt.Fprintf(&entries, "dir 0755 1700000000.000000000 %s\n", strings.TrimSuffix(dir, "/"))
			}
		}
		name := fmt.Sprintf("%sf%06d", dir, i)
		if len(sizes) == 1 {
			name, top = "share", "file"
		}
		numEntries++
		fmt.Fprintf(&entries, "file 0644 1700000000.000000000 %d %s\n", n, name)
		total += n
		if n >= int64(chunkSize) {
			cut(small)
			small = 0
			cut(n)
		} else {
			small += n
		}
	}
	cut(small)
	m, err := manifest.Parse([]byte(fmt.Sprintf("shoal-manifest 1\nname share\ntop %s\ncutter fixed %d\nsize %d\nentries %d\nchunks %d\n%s%s",
		top, chunkSize, total, numEntries, numChunks, &entries, &chunks)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// smallSizes are n sizes of 4 KiB in the mean.
func smallSizes(n int) []int64 {
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := make([]int64, n)
	for i := range sizes {
		sizes[i] = rnd.Int64N(8192) + 1
	}
	return sizes
}

func openAt(t testing.TB, d Disk, m *manifest.Manifest) *Store {
	t.Helper()
	st, err := Open(context.Background(), d, Options{Final: "share", Manifest: m})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func openFolder(t testing.TB, dir string) *OSDisk {
	t.Helper()
	d, err := OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A gigabyte in one file, with barriers as a get has them, until it is flushed
// and has its name.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{256 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("chunk=%dKiB", size>>10), func(b *testing.B) {
			total := int64(1 << 30)
			if testing.Short() {
				total = 64 << 20
			}
			m := fakeManifest(b, size, total)
			p := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(p)
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				dir := b.TempDir()
				st := openAt(b, openFolder(b, dir), m)
				perBarrier := (64 << 20) / size
				for i := range m.NumChunks() {
					if err := st.Write(i, p); err != nil {
						b.Fatal(err)
					}
					if i%perBarrier == perBarrier-1 {
						if err := st.Barrier(); err != nil {
							b.Fatal(err)
						}
					}
				}
				if err := st.Finish(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// R06: many small files, from one goroutine and from two, as a get has them.
func BenchmarkSmallFiles(b *testing.B) {
	const n = 20_000
	for _, tree := range []struct {
		name          string
		perDir, depth int
	}{{"flat", 100, 1}, {"deep", 5, 3}} {
		for _, workers := range []int{1, 2} {
			smallFiles(b, fmt.Sprintf("files=%d/%s/workers=%d", n, tree.name, workers), workers,
				fakeTree(b, 128<<10, tree.perDir, tree.depth, smallSizes(n)...))
		}
	}
}

func smallFiles(b *testing.B, name string, workers int, m *manifest.Manifest) {
	for _, where := range []string{"disk", "shm"} {
		b.Run(name+"/"+where, func(b *testing.B) {
			p := make([]byte, 128<<10)
			rand.NewChaCha8([32]byte{}).Read(p)
			b.SetBytes(m.Size())
			b.ReportAllocs()
			var write, finish float64
			for b.Loop() {
				b.StopTimer()
				dir := b.TempDir()
				if where == "shm" {
					var err error
					if dir, err = os.MkdirTemp("/dev/shm", "shoal"); err != nil {
						b.Skip(err)
					}
				}
				b.StartTimer()
				st := openAt(b, openFolder(b, dir), m)
				done := make(chan error, workers)
				before := b.Elapsed()
				for w := range workers {
					go func() {
						for i := w; i < m.NumChunks(); i += workers {
							if err := st.Write(i, p[:m.ChunkLen(i)]); err != nil {
								done <- err
								return
							}
						}
						done <- nil
					}()
				}
				for range workers {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
				written := b.Elapsed()
				if err := st.Finish(context.Background()); err != nil {
					b.Fatal(err)
				}
				write += (written - before).Seconds()
				finish += (b.Elapsed() - written).Seconds()
				b.StopTimer()
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(write/float64(b.N), "write-s/op")
			b.ReportMetric(finish/float64(b.N), "finish-s/op")
		})
	}
}

func BenchmarkJournalAppend(b *testing.B) {
	m := fakeManifest(b, 128<<10, 1<<20)
	st := openAt(b, openFolder(b, b.TempDir()), m)
	b.SetBytes(recordLen)
	b.ReportAllocs()
	for b.Loop() {
		if err := st.record(recWritten, 1); err != nil {
			b.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		b.Fatal(err)
	}
}

// A sparseDisk reserves no space.
type sparseDisk struct{ *OSDisk }

type sparseFile struct{ File }

func (f sparseFile) Allocate(size int64) error { return f.Truncate(size) }

func (d sparseDisk) OpenFile(name string, flag int) (File, error) {
	f, err := d.OSDisk.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return sparseFile{f}, nil
}

// Open of a part of which all but one chunk was fetched: nothing is read but
// the manifest and the journal, so it takes as long for 128 GiB as for 1.
func BenchmarkOpenResume(b *testing.B) {
	for _, c := range []struct {
		name      string
		chunkSize int
		sizes     []int64
	}{
		{"chunks=65536", 128 << 10, []int64{65536 * 128 << 10}},
		{"chunks=1000000", 128 << 10, []int64{1_000_000 * 128 << 10}},
		{"files=20000", 128 << 10, smallSizes(20_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := fakeManifest(b, c.chunkSize, c.sizes...)
			dir := b.TempDir()
			st := openAt(b, bigDisk{openFolder(b, dir)}, m)
			p := make([]byte, c.chunkSize)
			for i := range m.NumChunks() - 1 {
				if m.IsFile() { // the content does not matter
					if err := st.record(recWritten, uint32(i)); err != nil {
						b.Fatal(err)
					}
				} else if err := st.Write(i, p[:m.ChunkLen(i)]); err != nil {
					b.Fatal(err)
				}
			}
			if err := st.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(m.Size())
			b.ReportAllocs()
			for b.Loop() {
				st := openAt(b, bigDisk{openFolder(b, dir)}, m)
				if n, _ := st.Kept(); n != m.NumChunks()-1 {
					b.Fatalf("%d of %d chunks kept", n, m.NumChunks()-1)
				}
				b.StopTimer()
				if err := st.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(dir, "share"+PartSuffix)); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// A bigDisk has room for everything.
type bigDisk struct{ *OSDisk }

func (d bigDisk) Free() (size, files int64) { return 1 << 60, -1 }
func (d bigDisk) OpenFile(name string, flag int) (File, error) {
	return sparseDisk(d).OpenFile(name, flag)
}
