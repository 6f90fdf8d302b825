package manifest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
)

// manyChunks returns a manifest of one file that has n chunks.
func manyChunks(n int) []byte {
	size := int64(n) * chunk.MinSize
	b := []byte(head(1, n, size))
	b = fmt.Appendf(b, "file 0644 0.000000000 %d a\n", size)
	for i := range n {
		b = append(b, "131072 "...)
		b, _ = chunk.Hash{byte(i), byte(i >> 8), byte(i >> 16)}.AppendText(b)
		b = append(b, '\n')
	}
	return b
}

// manyEntries returns a manifest of n entries: files of a byte, a thousand to a
// directory.
func manyEntries(n int) []byte {
	dirs := n/1001 + 1
	files := n - dirs
	numChunks := (files + chunk.MinSize - 1) / chunk.MinSize
	b := []byte(head(n, numChunks, int64(files)))
	for i, d := 0, 0; i < n; i++ {
		if i%1001 == 0 {
			d = i / 1001
			b = fmt.Appendf(b, "dir 0755 1700000000.000000000 d%03d\n", d)
		} else {
			b = fmt.Appendf(b, "file 0644 1700000000.123456789 1 d%03d/Name %03d.txt\n", d, i%1001-1)
		}
	}
	for left := files; left > 0; left -= chunk.MinSize {
		b = fmt.Appendf(b, "%d %s\n", min(left, chunk.MinSize), chunk.Hash{})
	}
	return b
}

func BenchmarkParse(b *testing.B) {
	for _, bench := range []struct {
		name string
		text []byte
	}{
		{"1048576chunks", manyChunks(chunk.MaxNum)},
		{"1000000entries", manyEntries(MaxEntries)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bench.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncode writes the text of a large manifest, as Build does.
func BenchmarkEncode(b *testing.B) {
	for _, bench := range []struct {
		name string
		text []byte
	}{
		{"1048576chunks", manyChunks(chunk.MaxNum)},
		{"1000000entries", manyEntries(MaxEntries)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			m, err := Parse(bench.text)
			if err != nil {
				b.Fatal(err)
			}
			h := &hashing{b: &walker{entries: m.entries}, cutter: m.cutter, fixed: true}
			h.plan(m.segments())
			copy(h.hashes, m.hashes)
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				text, _, err := h.text(m.name, m.top, m.size)
				if err != nil || len(text) != len(bench.text) {
					b.Fatal(len(text), err)
				}
			}
		})
	}
}

// BenchmarkNames looks for collisions among a million names.
func BenchmarkNames(b *testing.B) {
	for _, bench := range []struct{ name, format string }{
		{"ascii", "Name %06d.txt"},
		{"unicode", "Größe %06d.txt"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			entries := make([]Entry, MaxEntries)
			size := 0
			for i := range entries {
				entries[i].Path = fmt.Sprintf(bench.format, i)
				size += len(entries[i].Path)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s := newNameSet(len(entries))
				for i := range entries {
					s.add(-1, entries[i].Path)
				}
				if _, _, ok := s.collision(entries); ok {
					b.Fatal("collision")
				}
			}
		})
	}
}

// writeRandom writes size bytes that are the same each time.
func writeRandom(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{byte(size)})
	p := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(p)))
		r.Read(p[:n])
		if _, err := f.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		size -= n
	}
}

// BenchmarkBuild hashes a file of 1 GiB, and 20,000 files of 4 KiB, that are in the
// system's cache.
func BenchmarkBuild(b *testing.B) {
	top := b.TempDir()
	big, small := filepath.Join(top, "big"), filepath.Join(top, "small")
	for _, bench := range []struct {
		name, path, cutter string
		size               int64
	}{
		{"1GiB/fixed", big, chunk.Fixed, 1 << 30},
		{"1GiB/fastcdc", big, chunk.FastCDC, 1 << 30},
		{"20000files/fixed", small, chunk.Fixed, 20_000 * 4096},
		{"20000files/fastcdc", small, chunk.FastCDC, 20_000 * 4096},
	} {
		b.Run(bench.name, func(b *testing.B) {
			if _, err := os.Stat(bench.path); err != nil {
				if bench.path == big {
					writeRandom(b, big, bench.size)
				} else {
					p := make([]byte, 4096)
					for i := range 20_000 {
						p[0], p[1] = byte(i), byte(i>>8)
						dir := filepath.Join(small, fmt.Sprint(i%100))
						os.MkdirAll(dir, 0o755)
						if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), p, 0o644); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			b.SetBytes(bench.size)
			b.ReportAllocs()
			for b.Loop() {
				if m, _ := build(b, bench.path, BuildOptions{Cutter: bench.cutter}); m.Size() != bench.size {
					b.Fatal(m.Size())
				}
			}
		})
	}
}
