package pack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// share returns the manifest of a file of n bytes, and these.
func share(t testing.TB, n int) (*manifest.Manifest, []byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "data")
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	m, _, err := manifest.Build(t.Context(), []string{name}, manifest.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m, data
}

func bytesOf(m *manifest.Manifest, data []byte, i int) []byte {
	return data[m.ChunkOffset(i):m.ChunkOffset(i+1)]
}

// write makes a pack of all chunks but the first, the last one first.
func write(t testing.TB, path string, m *manifest.Manifest, data []byte) {
	t.Helper()
	w, err := Create(t.Context(), path, m)
	if err != nil {
		t.Fatal(err)
	}
	for i := m.NumChunks() - 1; i > 0; i-- {
		if err := w.Write(i, bytesOf(m, data, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Finish(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// right returns the chunks in a file that can be had from it.
func right(t *testing.T, p []byte, m *manifest.Manifest) (n int, x *Index) {
	t.Helper()
	x, err := Read(t.Context(), bytes.NewReader(p), int64(len(p)), m.Root(), func(int, int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range x.Chunks {
		if i < m.NumChunks() && chunk.Sum(p[item.Off:item.Off+int64(item.Len)]) == m.ChunkHash(i) {
			n++
		}
	}
	return n, x
}

// What is written is read, and two packs one behind the other are a pack.
func TestReadWhatIsWritten(t *testing.T) {
	m, data := share(t, 600_000)
	path := filepath.Join(t.TempDir(), "a.shoalpack")
	write(t, path, m, data)
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, x := right(t, p, m)
	if n != m.NumChunks()-1 || x.Damaged != 0 || x.Others != 0 || x.End != int64(len(p)) {
		t.Errorf("%d chunks, %+v", n, x)
	}
	if string(p[x.Manifest.Off:x.Manifest.Off+int64(x.Manifest.Len)]) != m.Text() {
		t.Error("the manifest is not there")
	}
	other, otherData := share(t, 300_000)
	write(t, filepath.Join(filepath.Dir(path), "b.shoalpack"), other, otherData)
	q, err := os.ReadFile(filepath.Join(filepath.Dir(path), "b.shoalpack"))
	if err != nil {
		t.Fatal(err)
	}
	both := append(bytes.Clone(q), p...)
	if n, x := right(t, both, m); n != m.NumChunks()-1 || x.Others == 0 {
		t.Errorf("of two packs: %d chunks, %+v", n, x)
	}
}

// Wherever a pack is damaged or cut, it costs the chunk that lies there.
func TestDamageCostsOneChunk(t *testing.T) {
	m, data := share(t, 600_000)
	path := filepath.Join(t.TempDir(), "a.shoalpack")
	write(t, path, m, data)
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := m.NumChunks() - 1
	for off := 0; off < len(p); off += 4999 {
		q := bytes.Clone(p)
		q[off] ^= 0x40
		if n, _ := right(t, q, m); n < all-1 {
			t.Fatalf("one bit at %d: %d of %d chunks are left", off, n, all)
		}
		whole := 0
		_, x := right(t, p, m)
		for _, item := range x.Chunks {
			if item.Off+int64(item.Len) <= int64(off) {
				whole++
			}
		}
		if n, _ := right(t, p[:off], m); n != whole {
			t.Fatalf("cut at %d: %d chunks, want %d", off, n, whole)
		}
	}
	for bit := range headerLen * 8 {
		h := bytes.Clone(p[:headerLen])
		h[bit/8] ^= 1 << (bit % 8)
		if _, ok := parseHeader(h); ok {
			t.Errorf("a header with bit %d flipped is taken", bit)
		}
	}
}

// A pack that was begun is gone on with: what is right is kept, what was being
// written at the end is not.
func TestGoesOn(t *testing.T) {
	m, data := share(t, 600_000)
	path := filepath.Join(t.TempDir(), "a.shoalpack")
	w, err := Create(t.Context(), path, m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := w.Write(i, bytesOf(m, data, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(t.Context(), path, m); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(path + PartSuffix)
	if err != nil {
		t.Fatal(err)
	}
	for cut, want := range map[int]int{len(p): 2, len(p) - 1000: 1, len(p) - 200_000: 0, 100: 0, 0: 0} {
		if err := os.WriteFile(path+PartSuffix, p[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		w, err := Create(t.Context(), path, m)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Has().Count(); got != want {
			t.Errorf("cut at %d: %d chunks are kept, want %d", cut, got, want)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w, err = Create(t.Context(), path, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(0, bytesOf(m, data, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); !errors.Is(err, ErrExists) {
		t.Errorf("Finish replaces: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := os.ReadFile(path); err != nil || string(p) != "mine" {
		t.Errorf("what was at the name is %q, %v", p, err)
	}
	if _, err := Create(t.Context(), path, m); !errors.Is(err, ErrExists) {
		t.Errorf("Create at a name that is taken: %v", err)
	}
}

// A file that says that it is huge, and has no record behind its first bytes, is
// left soon, and at once if nobody waits any more. Chunks that the share does not
// have take no memory.
func TestHugeAndEmpty(t *testing.T) {
	m, _ := share(t, 140_000)
	f := hole{begin: []byte(magic)}
	x, err := Read(t.Context(), &f, 1<<50, m.Root(), nil)
	if err != nil || len(x.Chunks) > 0 || f.read > 2*maxDamage {
		t.Errorf("%+v, %v, %d bytes read", x, err, f.read)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, &f, 1<<50, m.Root(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with nobody waiting: %v", err)
	}
	var p []byte
	for i := range 100 {
		p = append((&header{kindChunk, i, 1, m.Root()}).append(p), make([]byte, align-headerLen)...)
	}
	x, err = Read(t.Context(), bytes.NewReader(p), int64(len(p)), m.Root(), func(i, n int) bool {
		return i < m.NumChunks() && n == m.ChunkLen(i)
	})
	if err != nil || len(x.Chunks) > 0 {
		t.Errorf("%d chunks that the share does not have are listed, %v", len(x.Chunks), err)
	}
}

// A hole begins with some bytes, and nothing comes behind them.
type hole struct {
	begin []byte
	read  int64
}

func (h *hole) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(h.begin)) {
		copy(p, h.begin[off:])
	}
	h.read += int64(len(p))
	return len(p), nil
}

// What another pack has left under the same name, or anything else that is more
// than the torn end of a record, is not thrown away.
func TestLeavesOthers(t *testing.T) {
	m, data := share(t, 600_000)
	other, _ := share(t, 300_000)
	path := filepath.Join(t.TempDir(), "a.shoalpack")
	write(t, path, m, data)
	if err := os.Rename(path, path+PartSuffix); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + PartSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := Create(t.Context(), path, other); !errors.Is(err, ErrOther) {
		t.Errorf("%v", err)
		if err == nil {
			_ = w.Close()
		}
	}
	if after, err := os.ReadFile(path + PartSuffix); err != nil || !bytes.Equal(before, after) {
		t.Errorf("%d of %d bytes are left, %v", len(after), len(before), err)
	}
}

// A file of the user's that has the name of the part, itself or as another name
// of it, is not written to.
func TestLeavesWhatIsNoPack(t *testing.T) {
	m, data := share(t, 600_000)
	dir := t.TempDir()
	path, mine := filepath.Join(dir, "a.shoalpack"), filepath.Join(dir, "mine")
	for name, make := range map[string]func() error{
		"text":   func() error { return os.WriteFile(path+PartSuffix, []byte("something else"), 0o644) },
		"folder": func() error { return os.Mkdir(path+PartSuffix, 0o755) },
		"link":   func() error { return os.Symlink(mine, path+PartSuffix) },
		"hard link to a part": func() error {
			w, err := Create(t.Context(), mine, m)
			if err == nil {
				err = errors.Join(w.Write(0, bytesOf(m, data, 0)), w.Close())
			}
			return errors.Join(err, os.Link(mine+PartSuffix, path+PartSuffix))
		},
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path + PartSuffix)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := Create(t.Context(), path, m); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				_ = w.Close()
			}
		}
		if after, err := os.Lstat(path + PartSuffix); err != nil || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s was changed: %v", name, err)
		}
		if err := os.Remove(path + PartSuffix); err != nil {
			t.Fatal(err)
		}
	}
}

// A writer that was stopped between the two steps that give the pack its name is
// ended by the next one.
func TestSettle(t *testing.T) {
	m, data := share(t, 600_000)
	path := filepath.Join(t.TempDir(), "a.shoalpack")
	write(t, path, m, data)
	if w, err := Settle(t.Context(), path, m); w != nil || err != nil {
		t.Fatalf("nothing is to be ended: %v, %v", w, err)
	}
	if err := os.Link(path, path+PartSuffix); err != nil {
		t.Skipf("no hard links here: %v", err)
	}
	w, err := Settle(t.Context(), path, m)
	if err != nil || w == nil {
		t.Fatalf("%v, %v", w, err)
	}
	if n := w.Has().Count(); n != m.NumChunks()-1 {
		t.Errorf("%d chunks", n)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + PartSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the part is there: %v", err)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := right(t, p, m); n != m.NumChunks()-1 {
		t.Errorf("%d chunks are left in the pack", n)
	}
}

// Any bytes are read without harm, and what is listed lies within them.
func FuzzRead(f *testing.F) {
	m, data := share(f, 140_000)
	h := header{kindChunk, 1, 20, m.Root()}
	f.Add(append(h.append(nil), make([]byte, 512)...))
	f.Add(append(make([]byte, 512), h.append(nil)...))
	f.Add(append((&header{kind: kindManifest, n: 3, root: m.Root()}).append(nil), data[:600]...))
	f.Fuzz(func(t *testing.T, p []byte) {
		x, err := Read(t.Context(), bytes.NewReader(p), int64(len(p)), m.Root(), func(int, int) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range x.Chunks {
			if i < 0 || item.Off < headerLen || item.Len < 1 || item.Off+int64(item.Len) > int64(len(p)) {
				t.Errorf("chunk %d at %+v of %d bytes", i, item, len(p))
			}
		}
	})
}
