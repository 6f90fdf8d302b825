package manifest

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A mapCache is a Cache in memory. get, if set, is called before each Get.
type mapCache struct {
	mu     sync.Mutex
	values map[chunk.Hash][]byte
	gets   int
	hits   int
	get    func()
}

func (c *mapCache) Get(key chunk.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.get != nil {
		c.get()
	}
	v, ok := c.values[key]
	c.gets++
	if ok {
		c.hits++
	}
	return v, ok
}

func (c *mapCache) Put(key chunk.Hash, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil {
		c.values = make(map[chunk.Hash][]byte)
	}
	c.values[key] = slices.Clone(value)
}

// settle waits until files that were just written can be cached.
func settle() { time.Sleep(racyTime + 30*time.Millisecond) }

func TestBuildCache(t *testing.T) {
	for _, cutter := range cutters {
		t.Run(cutter, func(t *testing.T) {
			top := plant(t, []node{
				{path: "a big", text: randomText(400_000, 1)},
				{path: "b small", text: "b"},
				{path: "c small", text: "c"},
				{path: "d big", text: randomText(500_000, 2)},
			})
			c := &mapCache{}
			o := BuildOptions{Cutter: cutter, Cache: c}
			first, src := build(t, top, o) // the files may be too young to be cached
			settle()
			m, _ := build(t, top, o)
			if m.Root() != first.Root() || src.Hashed.Count() != m.NumChunks() {
				t.Fatal("roots differ, or not all was hashed")
			}
			c.hits = 0
			m, src = build(t, top, o)
			if m.Root() != first.Root() || c.hits != 3 || src.Hashed.Count() != 0 {
				t.Errorf("%d hits, %d chunks hashed, same root: %v", c.hits, src.Hashed.Count(), m.Root() == first.Root())
			}
			// The other cutter does not take what this one has left.
			other := o
			other.Cutter = cutters[0]
			if cutter == cutters[0] {
				other.Cutter = cutters[1]
			}
			if m, src := build(t, top, other); src.Hashed.Count() != m.NumChunks() {
				t.Error("the other cutter takes cached chunks")
			}

			// Rehash reads all, and mends what is wrong in the cache.
			good := make(map[chunk.Hash][]byte)
			for key, value := range c.values {
				good[key] = slices.Clone(value)
				value[len(value)-1] ^= 1
			}
			if m, _ := build(t, top, o); m.Root() == first.Root() {
				t.Error("the cache is not used")
			}
			o.Rehash = true
			if m, src := build(t, top, o); m.Root() != first.Root() || src.Hashed.Count() != m.NumChunks() {
				t.Error("a rehash believes the cache")
			}
			o.Rehash = false
			if m, src := build(t, top, o); m.Root() != first.Root() || src.Hashed.Count() != 0 {
				t.Error("a rehash does not fill the cache")
			}

			// Values of the wrong form are not used.
			for name, spoil := range map[string]func([]byte) []byte{
				"empty":        func(v []byte) []byte { return nil },
				"cut":          func(v []byte) []byte { return v[:len(v)-1] },
				"one less":     func(v []byte) []byte { return v[cachedChunkLen:] },
				"one more":     func(v []byte) []byte { return append(slices.Clone(v), v[:cachedChunkLen]...) },
				"length 0":     func(v []byte) []byte { return append([]byte{0, 0, 0, 0}, v[4:]...) },
				"length large": func(v []byte) []byte { return append([]byte{255, 255, 255, 255}, v[4:]...) },
			} {
				for key, value := range good {
					c.values[key] = spoil(slices.Clone(value))
				}
				if m, _ := build(t, top, o); m.Root() != first.Root() {
					t.Errorf("a value is used that is %s", name)
				}
			}

			// What the stat shows to be different is read again; its neighbours are not.
			for key, value := range good {
				c.values[key] = value
			}
			path := filepath.Join(top, "a big")
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(randomText(400_000, 9)), 0o644); err != nil {
				t.Fatal(err)
			}
			os.Chtimes(path, fi.ModTime(), fi.ModTime()) // size and time as before
			m, src = build(t, top, o)
			if m.Root() == first.Root() {
				t.Error("a changed file has the hashes of the old one")
			}
			checkNaive(t, m, top)
			end := 0
			for i := range m.Entries() {
				if m.Entries()[i].Path == "a big" {
					_, end = m.Chunks(i)
				}
			}
			if src.Hashed.Count() != end {
				t.Errorf("%d chunks were hashed, the changed file has %d", src.Hashed.Count(), end)
			}
			// It is too young: it could change again without a sign.
			if _, src := build(t, top, o); src.Hashed.Count() != end {
				t.Errorf("a file that was written just now is cached")
			}
		})
	}
}
