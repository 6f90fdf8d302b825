package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/chunk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(i int) (h chunk.Hash) {
	binary.BigEndian.PutUint64(h[:], uint64(i))
	return h
}

func TestCacheKeepsValuesBetweenRuns(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "new", "home"), nil)
	c := s.Cache()
	if _, ok := c.Get(key(1)); ok {
		t.Fatal("an empty cache has a value")
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Get made the folder: %v", err)
	}
	c.Put(key(1), []byte("one"))
	c.Put(key(2), nil)
	if v, ok := c.Get(key(1)); !ok || string(v) != "one" {
		t.Fatalf("before Close: %q, %v", v, ok)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	c = New(s.dir, nil).Cache()
	for i, want := range []string{1: "one", 2: ""} {
		if i == 0 {
			continue
		}
		if v, ok := c.Get(key(i)); !ok || string(v) != want {
			t.Errorf("Get(%d) = %q, %v, want %q", i, v, ok, want)
		}
	}
	if _, ok := c.Get(key(3)); ok {
		t.Error("a value nobody put")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]fs.FileMode{s.dir: 0o700, s.Path(): 0o600} {
			if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != want {
				t.Errorf("%s has mode %v (%v), want %v", name, fi.Mode().Perm(), err, want)
			}
		}
	}
}

func TestCacheForgetsTheOldest(t *testing.T) {
	s := New(t.TempDir(), nil)
	s.limit = 100 << 10
	now := time.Unix(1_700_000_000, 0)
	for day := range 40 {
		c := s.Cache()
		c.now = func() time.Time { return now.Add(time.Duration(day) * 25 * time.Hour) }
		if day > 0 {
			if _, ok := c.Get(key(0)); !ok {
				t.Fatalf("day %d: the value that is used every day is gone", day)
			}
		}
		c.Put(key(day), make([]byte, 8<<10))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c := s.Cache()
	var have []int
	for day := range 40 {
		if _, ok := c.Get(key(day)); ok {
			have = append(have, day)
		}
	}
	if len(have) < 8 || len(have) > 12 || have[0] != 0 || have[1] < 28 || have[len(have)-1] != 39 {
		t.Errorf("left: %v", have)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCacheLargerThanWhatIsReadAhead(t *testing.T) {
	s := New(t.TempDir(), nil)
	c := s.Cache()
	const n, size = 40, 1 << 20
	for i := range n {
		c.Put(key(i), bytes.Repeat([]byte{byte(i)}, size))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = s.Cache()
	for i := range n {
		if v, ok := c.Get(key(i)); !ok || len(v) != size || v[size-1] != byte(i) {
			t.Errorf("Get(%d): %d bytes, %v", i, len(v), ok)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// Another process that has the file open costs a second, once, and no error.
func TestCacheWhileAnotherProcessHoldsTheFile(t *testing.T) {
	s := New(t.TempDir(), nil)
	c := s.Cache()
	c.Put(key(1), []byte("one"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(s.Path(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	start := time.Now()
	c = s.Cache()
	for i := range 100 {
		if _, ok := c.Get(key(i)); ok {
			t.Error("got a value from a locked file")
		}
		c.Put(key(i), []byte("x"))
	}
	if err := c.Close(); !errors.Is(err, ErrBusy) {
		t.Errorf("Close: %v, want ErrBusy", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestTransfers(t *testing.T) {
	s := New(t.TempDir(), nil)
	if ts, err := s.Transfers(); len(ts) != 0 || err != nil {
		t.Fatalf("at first: %v, %v", ts, err)
	}
	start := time.Unix(1_700_000_000, 0).UTC()
	for i := range 3 {
		err := s.Add(Transfer{Part: fmt.Sprintf("/dest/%d.shoal-part", i), Dest: fmt.Sprint("/dest/", i), Started: start.Add(-time.Duration(i) * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Remove("/dest/1.shoal-part"); err != nil {
			t.Fatal(err)
		}
	}
	ts, err := s.Transfers()
	if err != nil {
		t.Fatal(err)
	}
	var dests []string
	for _, tr := range ts {
		dests = append(dests, tr.Dest)
	}
	if !slices.Equal(dests, []string{"/dest/2", "/dest/0"}) || ts[0].Part != "/dest/2.shoal-part" || !ts[1].Started.Equal(start) {
		t.Errorf("got %+v", ts)
	}
}

func TestTransfersAreBounded(t *testing.T) {
	s := New(t.TempDir(), nil)
	if err := s.update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketTransfers)
		if err != nil {
			return err
		}
		for i := range 2 * maxTransfers {
			if err := b.Put(fmt.Appendf(nil, "/%04d", i), fmt.Appendf(nil, `{"started":"2026-01-01T00:00:00.%09dZ"}`, i)); err != nil {
				return err
			}
		}
		return b.Put([]byte("/not json"), []byte("{"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Transfer{Part: "/new", Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	ts, err := s.Transfers()
	if err != nil || len(ts) != maxTransfers || ts[len(ts)-1].Part != "/new" || ts[0].Part != "/1001" {
		t.Errorf("%d transfers, first %q, last %q, %v", len(ts), ts[0].Part, ts[len(ts)-1].Part, err)
	}
}

// Whatever is in the file, nothing fails, and afterwards it works again.
func TestDamagedFile(t *testing.T) {
	good := New(t.TempDir(), nil)
	c := good.Cache()
	for i := range 100 {
		c.Put(key(i), bytes.Repeat([]byte{1}, 1000))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := good.Add(Transfer{Part: "/a"}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good.Path())
	if err != nil {
		t.Fatal(err)
	}

	garbage := make([]byte, 100<<10)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	inputs := map[string][]byte{
		"empty": {}, "one byte": {1}, "text": []byte("not a database\n"),
		"garbage": garbage, "zeros": make([]byte, 1<<20),
	}
	for _, n := range []int{1000, 4096, 8192, 16384, 20000, len(whole) / 2, len(whole) - 1} {
		inputs[fmt.Sprintf("cut at %d", n)] = whole[:n]
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		b := slices.Clone(whole)
		for range 1 + i*3 {
			b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
		}
		inputs[fmt.Sprintf("flipped %d", i)] = b
	}
	for page := range 8 {
		b := slices.Clone(whole)
		clear(b[page*4096 : (page+1)*4096])
		inputs[fmt.Sprintf("page %d zero", page)] = b
		b = slices.Clone(whole)
		copy(b[page*4096+16:(page+1)*4096], garbage)
		inputs[fmt.Sprintf("page %d garbage", page)] = b
	}

	// A page number that leads back to where it stands: to follow it never ends.
	circles := 0
	for at := 0; at+4096 <= len(whole); at += 4096 {
		if page := whole[at:]; page[8] == flagBranch && page[9] == 0 {
			b := slices.Clone(whole)
			for k := range int(page[10]) {
				copy(b[at+pageHeader+k*element+8:], page[:8])
			}
			inputs[fmt.Sprintf("circle %d", at/4096)] = b
			circles++
		}
	}
	if circles == 0 {
		t.Fatal("the file has no branch page to damage")
	}

	for name, in := range inputs {
		t.Run(name, func(t *testing.T) {
			var warnings []string
			s := New(t.TempDir(), func(w string) { warnings = append(warnings, w) })
			if err := os.WriteFile(s.Path(), in, 0o600); err != nil {
				t.Fatal(err)
			}
			c := s.Cache()
			for i := range 100 {
				if v, ok := c.Get(key(i)); ok && len(v) != 1000 {
					t.Errorf("Get(%d) gave %d bytes", i, len(v))
				}
			}
			c.Put(key(1), []byte("new"))
			_ = c.Close()
			if _, err := s.Transfers(); err != nil {
				t.Errorf("Transfers: %v", err)
			}
			if err := s.Add(Transfer{Part: "/b"}); err != nil {
				t.Errorf("Add: %v", err)
			}
			ts, err := s.Transfers()
			if err != nil || !slices.ContainsFunc(ts, func(t Transfer) bool { return t.Part == "/b" }) {
				t.Errorf("Transfers after Add: %v, %v", ts, err)
			}
			for _, w := range warnings {
				if !strings.Contains(w, "damaged") || strings.Contains(w, "\n") {
					t.Errorf("warning %q", w)
				}
			}
		})
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(filepath.Join(file, "home"), nil)
	c := s.Cache()
	if _, ok := c.Get(key(1)); ok {
		t.Error("a value from nowhere")
	}
	c.Put(key(1), []byte("one"))
	if err := c.Close(); err == nil {
		t.Error("Close says nothing")
	}
	if err := s.Add(Transfer{Part: "/a"}); err == nil {
		t.Error("Add says nothing")
	}
}
