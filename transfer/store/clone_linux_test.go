package store_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// On a file system that shares blocks, what lies in another file at the same
// alignment takes no new space; what has changed there since it was hashed does
// not come along.
func TestWriteFromSharesSpace(t *testing.T) {
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 256<<20))
	must(t, os.Mkdir(disk, 0o755))
	skip := t.Skipf
	if os.Getenv("SHOAL_CI") != "" {
		skip = t.Fatalf
	}
	if out, err := exec.Command("mkfs.btrfs", "-q", image).CombinedOutput(); err != nil {
		skip("needs mkfs.btrfs: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, disk).CombinedOutput(); err != nil {
		skip("mounting a file needs root and a loop device: %v %s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })

	const size = 3<<20 + 1234
	data := noise(1, size)
	file := filepath.Join(disk, "src")
	must(t, os.WriteFile(file, data, 0o644))
	m, _, err := manifest.Build(t.Context(), []string{file}, manifest.BuildOptions{})
	must(t, err)
	d, err := store.OpenDisk(disk)
	must(t, err)
	st, err := store.Open(t.Context(), d, store.Options{Final: "copy", Manifest: m})
	must(t, err)
	from, err := store.OpenDisk(disk)
	must(t, err)
	defer from.Close()
	src, err := from.OpenFile("src", os.O_RDONLY)
	must(t, err)
	defer src.Close()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	for i := range m.NumChunks() {
		off := m.ChunkOffset(i)
		p := data[off:m.ChunkOffset(i+1)]
		if i == 3 { // after it was hashed, somebody writes to it
			_, err := f.WriteAt([]byte("changed"), off+100)
			must(t, err)
		}
		must(t, st.WriteFrom(i, p, src, off))
	}
	must(t, f.Close())
	if got := st.Cloned(); got < 3<<20 { // the last chunk is too short to be worth it
		t.Errorf("%d of %d bytes share their space", got, size)
	}
	must(t, st.Finish(t.Context()))
	got, err := os.ReadFile(filepath.Join(disk, "copy"))
	must(t, err)
	if string(got) != string(data) {
		t.Error("the copy differs from what was hashed")
	}
}
