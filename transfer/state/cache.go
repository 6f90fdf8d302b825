package state

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/shoal-p2p/shoal/chunk"
)

const (
	// cacheLimit is how many bytes of hashes are kept: those of about 200 GiB
	// in chunks of 128 KiB, or of 25 TiB in chunks of 16 MiB.
	cacheLimit = 64 << 20
	// batchLimit is how many bytes wait in memory before they are written.
	batchLimit = 4 << 20
	// touchAfter is the age at which a value that is still in use is marked
	// as used, which costs a write.
	touchAfter = 24 * time.Hour
)

// A stored value is the time of its last use in Unix seconds (8 bytes), the
// CRC-32C of the value (4 bytes), and the value.
const cacheHeader = 8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Cache remembers what files hashed to. It is a manifest.Cache. Its methods
// may be called from any goroutine.
type Cache struct {
	s   *Store
	now func() time.Time

	mu       sync.Mutex
	off      error // why the file is not asked any more in this run
	put      map[chunk.Hash][]byte
	putSize  int
	used     map[chunk.Hash]struct{} // to be marked as used
	loaded   map[chunk.Hash][]byte   // as stored, read ahead of Get; nil until the first one
	loadSize int
}

// Cache returns the hash cache. Its Close writes what was put into it.
func (s *Store) Cache() *Cache {
	return &Cache{s: s, now: time.Now, put: map[chunk.Hash][]byte{}, used: map[chunk.Hash]struct{}{}}
}

// Get returns the value of key. It returns false, too, when the file cannot be
// read now: Err says why.
func (c *Cache) Get(key chunk.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.put[key]; ok {
		return slices.Clone(v), true
	}
	if c.off != nil {
		return nil, false
	}
	if err := c.load(); err != nil {
		c.off = err
		return nil, false
	}
	if stored, ok := c.loaded[key]; ok {
		v, ok := c.check(key, stored)
		return slices.Clone(v), ok
	}
	if c.loadSize <= loadLimit {
		return nil, false // all of the file is in loaded
	}
	var stored []byte
	if err := c.s.view(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketHashes); b != nil {
			stored = slices.Clone(b.Get(key[:]))
		}
		return nil
	}); err != nil {
		c.off = err
		return nil, false
	}
	return c.check(key, stored)
}

// loadLimit is how much of the file is read at the first Get. Nearly always
// that is all: a tree of large files asks for thousands of keys, and opening
// the file for each would cost more than hashing a small file does.
const loadLimit = 16 << 20

// load fills c.loaded. c.mu is held.
func (c *Cache) load() error {
	if c.loaded != nil {
		return nil
	}
	c.loaded = map[chunk.Hash][]byte{}
	return c.s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketHashes)
		if b == nil {
			return nil
		}
		cur := b.Cursor()
		for k, stored := cur.First(); k != nil; k, stored = cur.Next() {
			if len(k) != len(chunk.Hash{}) {
				continue
			}
			if c.loadSize += len(stored); c.loadSize > loadLimit {
				return nil
			}
			c.loaded[chunk.Hash(k)] = slices.Clone(stored)
		}
		return nil
	})
}

// check returns the value in stored, if it is whole. c.mu is held.
func (c *Cache) check(key chunk.Hash, stored []byte) ([]byte, bool) {
	if len(stored) < cacheHeader {
		return nil, false
	}
	v := stored[cacheHeader:]
	if binary.BigEndian.Uint32(stored[8:]) != crc32.Checksum(v, castagnoli) {
		return nil, false
	}
	last := time.Unix(int64(binary.BigEndian.Uint64(stored)), 0)
	if age := c.now().Sub(last); age > touchAfter || age < -touchAfter {
		c.used[key] = struct{}{}
	}
	return v, true
}

// Put stores value under key: now or later, or not at all if the file cannot
// be written.
func (c *Cache) Put(key chunk.Hash, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putSize += len(value) - len(c.put[key])
	c.put[key] = slices.Clone(value)
	if c.putSize >= batchLimit {
		c.flush()
	}
}

// Err returns why the cache could not be read or written, or nil.
func (c *Cache) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

// Close writes what was put, and forgets the oldest values when there are too
// many. The cache can be used again afterwards.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	c.loaded, c.loadSize = nil, 0
	return c.off
}

// flush writes c.put and marks c.used. c.mu is held.
func (c *Cache) flush() {
	if len(c.put)+len(c.used) == 0 {
		return
	}
	now := uint64(c.now().Unix())
	if !errors.Is(c.off, ErrBusy) { // it waited once
		err := c.s.update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucketHashes)
			if err != nil {
				return err
			}
			for key := range c.used {
				if stored := b.Get(key[:]); len(stored) >= cacheHeader {
					stored = slices.Clone(stored)
					binary.BigEndian.PutUint64(stored, now)
					if err := b.Put(key[:], stored); err != nil {
						return err
					}
				}
			}
			for key, v := range c.put {
				stored := make([]byte, cacheHeader, cacheHeader+len(v))
				binary.BigEndian.PutUint64(stored, now)
				binary.BigEndian.PutUint32(stored[8:], crc32.Checksum(v, castagnoli))
				if err := b.Put(key[:], append(stored, v...)); err != nil {
					return err
				}
			}
			return evict(b, c.s.limit)
		})
		if err != nil {
			c.off = err
		}
	}
	c.put, c.putSize = map[chunk.Hash][]byte{}, 0
	c.used = map[chunk.Hash]struct{}{}
}

// evict deletes the values that were not used for longest, until a quarter of
// limit is free, if there are more bytes than limit.
func evict(b *bbolt.Bucket, limit int64) error {
	type item struct {
		last uint64
		size int64
		key  []byte
	}
	var (
		items []item
		size  int64
	)
	err := b.ForEach(func(k, v []byte) error {
		it := item{size: int64(len(k) + len(v)), key: slices.Clone(k)}
		if len(v) >= 8 {
			it.last = binary.BigEndian.Uint64(v)
		}
		size += it.size
		items = append(items, it)
		return nil
	})
	if err != nil || size <= limit {
		return err
	}
	slices.SortFunc(items, func(a, b item) int {
		switch {
		case a.last < b.last:
			return -1
		case a.last > b.last:
			return 1
		}
		return 0
	})
	for _, it := range items {
		if size <= limit/4*3 {
			break
		}
		if err := b.Delete(it.key); err != nil {
			return err
		}
		size -= it.size
	}
	return nil
}
