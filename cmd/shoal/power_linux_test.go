package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cutPower lets the ext4 at dir lose whatever it has not flushed, as a power cut
// does, and mounts it again.
func cutPower(t testing.TB, image, dir string, then func()) {
	t.Helper()
	const (
		ext4Shutdown = 'X'<<8 | 125 | 2<<30 | 4<<16 // _IOR('X', 125, __u32)
		noLogFlush   = 2
	)
	d, err := os.Open(dir)
	must(t, err)
	if err := unix.IoctlSetPointerInt(int(d.Fd()), ext4Shutdown, noLogFlush); err != nil {
		skip(t, "this ext4 has no way to be shut down: %v", err)
	}
	must(t, d.Close())
	then()
	unmount(t, dir)
	diskGone(t, image)
	mountExt4(t, image, dir)
}

// TestC03PowerCuts cuts the power again and again while a tree of small and large
// files is fetched to an ext4, at a random moment each time, and at once when a get
// has ended well (C11). What a restart claims must be there, at most 128 MiB or 4 s
// may be fetched again, and what was said to be done must be done.
//
// It is not parallel: the namespaces of other tests would keep the disk mounted.
func TestC03PowerCuts(t *testing.T) {
	cuts := 4
	switch {
	case os.Getenv("SHOAL_SOAK") != "":
		cuts = 500
	case os.Getenv("SHOAL_CI") != "":
		cuts = 25
	}
	s := newSmallShare(t)
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, s.dir, 0, unix.STATX_MNT_ID_UNIQUE, &st); err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		skip(t, "only a kernel that numbers its mounts can tell this from a kill")
	}
	must(t, os.WriteFile(filepath.Join(s.tree, "more"), noise(160<<20), 0o644))
	for i := range 300 {
		name := filepath.Join(s.tree, "many", fmt.Sprint(i%10), fmt.Sprint(i))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, noise(1000+100*i), 0o644))
	}
	s.serve(t)
	image, disk := filepath.Join(s.dir, "image"), filepath.Join(s.dir, "disk")
	makeExt4(t, image, 400<<20)
	mountExt4(t, image, disk)

	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	var (
		last, most, sum float64 // bytes: there before the cut; fetched again
		rate            float64 // bytes/s before the cut
		took            = 400 * time.Millisecond
		midway, ends    int
	)
	tally := func(cut int, kept float64) {
		again := max(0, last-kept)
		most, sum, last = max(most, again), sum+again, 0
		if limit := max(128<<20, 4*rate); again > limit { // or 4 s
			t.Errorf("cut %d: %.1f MB are fetched again, more than %.1f", cut, again/1e6, limit/1e6)
		}
	}
	for cut := range cuts {
		dest := filepath.Join(disk, "dest")
		began := time.Now()
		line := []string{"get", "--json", "-q", s.manifest, dest, "--listen", "off", "--peer", s.addr}
		span := took
		if cut%2 == 0 { // the others are as fast as they can be, and may be over before
			line, span = append(line, "--limit-down", "100M"), 1600*time.Millisecond
		}
		p := start(t, filepath.Join(s.dir, "home"), line...)
		var timer *time.Timer
		fell := make(chan struct{})
		var done float64
		finished := false
		for e := range p.events {
			switch e["event"] {
			case "warning":
				t.Errorf("cut %d: %v", cut, e["text"]) // that chunks were damaged
			case "resumed":
				done = e["kept"].(float64)
				tally(cut, done)
			case "progress":
				tally(cut, 0) // if it was not resumed
				done = max(done, e["done"].(float64))
				if timer == nil && cut%5 != 4 { // each fifth may come to its end
					timer = time.AfterFunc(time.Duration(rnd.Float64()*float64(max(20*time.Millisecond, span-time.Since(began)))), func() {
						defer close(fell) // also if it fails
						cutPower(t, image, disk, func() {
							_ = p.cmd.Process.Kill()
							_ = p.cmd.Wait() // it was killed
						})
					})
				}
			case "finished":
				finished = true
			}
		}
		if timer != nil && !timer.Stop() {
			<-fell
			if !finished {
				midway++
				last, rate = done, done/time.Since(began).Seconds()
				continue
			}
		} else {
			if err := p.cmd.Wait(); err != nil {
				t.Fatalf("cut %d: the get ended with %v", cut, err)
			}
			if cut%2 == 1 {
				took = min(time.Since(began), 4*time.Second)
			}
			cutPower(t, image, disk, func() {})
		}
		last = 0
		if finished {
			ends++
			must(t, compareTrees(t.Context(), s.tree, filepath.Join(dest, "tree")))
		}
		must(t, os.RemoveAll(dest))
	}
	t.Logf("%d power cuts, %d of them midway and %d after the end; fetched again: %.1f MB at most, %.1f MB a cut", cuts, midway, ends, most/1e6, sum/1e6/float64(max(1, midway)))
	if midway < cuts/4 && cuts >= 25 || ends == 0 { // of a few, all may come late
		t.Errorf("%d cuts came midway and %d after the end", midway, ends)
	}
}
