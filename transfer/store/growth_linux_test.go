package store

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// Going on with a part costs the same for each chunk, however many there are.
func TestGrowthResume(t *testing.T) {
	sizes := []int{1_000, 10_000, 100_000}
	if os.Getenv("SHOAL_SOAK") != "" {
		sizes = append(sizes, 1_000_000)
	}
	var small time.Duration
	for _, n := range sizes {
		const size = 128 << 10
		m := fakeManifest(t, size, int64(n)*size)
		dir := t.TempDir()
		st := openAt(t, bigDisk{openFolder(t, dir)}, m)
		for i := range n - 1 { // the content does not matter
			if err := st.record(recWritten, uint32(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		best := time.Hour
		for range 3 {
			began := cpuTime(t)
			st := openAt(t, bigDisk{openFolder(t, dir)}, m)
			best = min(best, cpuTime(t)-began)
			if kept, _ := st.Kept(); kept != n-1 {
				t.Fatalf("%d of %d chunks kept", kept, n-1)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%7d chunks: opened in %v", n, best)
		if small == 0 {
			small = best
		}
		if most := 4*small*time.Duration(n/sizes[0]) + 100*time.Millisecond; best > most {
			t.Errorf("%d chunks took %v, %d took %v", n, best, sizes[0], small)
		}
	}
}

// cpuTime is what this process has used of the processor: on a busy machine, the
// time on the wall says nothing.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
