package manifest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestM02Truncated(t *testing.T) {
	for file := range goldens {
		text, err := os.ReadFile(goldenDir + file)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(text) {
			if m, err := Parse(text[:n]); err == nil || m != nil {
				t.Errorf("%s: accepted the first %d of %d bytes", file, n, len(text))
			}
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// The length of a text is looked at before the text is.
func TestM03LongerThanTheLimit(t *testing.T) {
	big := make([]byte, MaxText+1)
	copy(big, head(1_000_000, 0, 0))
	var err error
	if n := allocated(func() { _, err = Parse(big) }); n > 64<<10 {
		t.Errorf("%d bytes allocated", n)
	}
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "67108865 bytes, the limit is 67108864") {
		t.Errorf("64 MiB + 1: %v", err)
	}
}

// Numbers are checked before they size anything.
func TestM08BoundsFirst(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
		limit            bool // the error is ErrTooLarge
	}{
		{"1,000,001 entries", head(1_000_001, 0, 0), "over the limit of 1000000", true},
		{"1,000,000 entries that are not there", head(1_000_000, 0, 0), "need at least", false},
		{"1,048,577 chunks", head(1, 1_048_577, 1<<40), "over the limit of 1048576", true},
		{"1,048,576 chunks that are not there", head(1, 1_048_576, 1<<40), "need at least", false},
		{"2^63-1 entries", strings.Replace(head(7, 0, 0), "entries 7", "entries 9223372036854775807", 1), "over the limit", true},
		{"2^63-1 chunks", strings.Replace(head(7, 7, 0), "chunks 7", "chunks 9223372036854775807", 1), "over the limit", true},
		{"2^63 chunks", strings.Replace(head(7, 7, 0), "chunks 7", "chunks 9223372036854775808", 1), "over the limit", true},
		{"chunks without files", head(0, 1, 0) + strings.Repeat("x", 100), "its files need 0", false},
	} {
		if n := allocated(func() { checkRefused(t, test.text, test.want) }); n > 64<<10 {
			t.Errorf("%s: %d bytes allocated", test.name, n)
		}
		if _, err := Parse([]byte(test.text)); errors.Is(err, ErrTooLarge) != test.limit {
			t.Errorf("%s: %v is ErrTooLarge: %v", test.name, err, !test.limit)
		}
	}
	if _, err := Parse([]byte(strings.Replace(example(t), "manifest 1", "manifest 7", 1))); !errors.Is(err, ErrVersion) {
		t.Errorf("version 7: %v is not ErrVersion", err)
	}
}

// What is refused only at the end must not have cost more than the text is long: a
// text with as many lines as it says, the last of them wrong.
func TestM08MemoryFollowsText(t *testing.T) {
	const num = 200_000
	var b strings.Builder
	b.WriteString(head(num, 0, 0))
	for i := range num - 1 {
		fmt.Fprintf(&b, "dir 0755 0.000000000 %06d\n", i)
	}
	b.WriteString("dir 0755 0.000000000 a\x1b\n")
	text := []byte(b.String())
	var err error
	n := allocated(func() { _, err = Parse(text) })
	if err == nil || !strings.Contains(err.Error(), "control character") {
		t.Fatalf("error is %v", err)
	}
	if most := uint64(10 * len(text)); n > most {
		t.Errorf("%d bytes were allocated for %d of text", n, len(text))
	}
}

// Links are resolved in little more memory than their entries take, whatever their
// names: a million of them are within the limit.
func TestM08MemoryOfLinks(t *testing.T) {
	const num = 200_000
	var b strings.Builder
	b.WriteString(head(num, 0, 0))
	for i := range num {
		fmt.Fprintf(&b, "link %s%06d\n> x\n", strings.Repeat("A", 26), i)
	}
	text := []byte(b.String())
	var err error
	n := allocated(func() { _, err = Parse(text) })
	if err != nil {
		t.Fatal(err)
	}
	// The copy of the text, 80 bytes of an entry, 16 to find names that collide, and
	// 120 for the resolver, half of them thrown away as its map grows.
	if most := uint64(len(text) + num*(80+16+120)); n > most {
		t.Errorf("%d bytes were allocated for %d links with %d of text, more than %d", n, num, len(text), most)
	}
}

// Many and deep directories are within the limits, and parsed without recursion.
func TestM16ManyAndDeep(t *testing.T) {
	const num = 100_000
	var b strings.Builder
	b.WriteString(head(num, 0, 0))
	for i := range num {
		fmt.Fprintf(&b, "dir 0755 0.000000000 %05d\n", i)
	}
	m, err := Parse([]byte(b.String()))
	if err != nil || len(m.Entries()) != num {
		t.Fatalf("%d empty directories: %v", num, err)
	}
	var paths []string
	for i := 1; 2*i < MaxPath; i++ { // far beyond the limit of parts, each listed
		paths = append(paths, strings.Repeat("d/", i))
	}
	checkRefused(t, withPaths(paths...), "more than 64 parts")
	checkRefused(t, withPaths(strings.Repeat("d/", 10_000)+"x"), "has 20001 bytes, the limit of a path is 4096")
	var links []string // each through the one before it
	for i := range 10_000 {
		links = append(links, fmt.Sprintf("l%05d -> l%05d/x", i+1, i))
	}
	checkRefused(t, withPaths(links...), "more than 40 links")
}

// Nothing is ever unpacked: a text that was packed is no manifest.
func TestM20Packed(t *testing.T) {
	for name, start := range map[string]string{
		"gzip": "\x1f\x8b\x08\x00", "zstd": "\x28\xb5\x2f\xfd", "xz": "\xfd7zXZ\x00", "bzip2": "BZh91AY", "zlib": "\x78\x9c",
	} {
		t.Run(name, func(t *testing.T) { checkRefused(t, start+strings.Repeat("\x00", 10_000), "does not begin with") })
	}
}

// Sizes that are legal each must not overflow together.
func TestM05SizesTogether(t *testing.T) {
	var b strings.Builder
	b.WriteString(head(3, 0, MaxSize))
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "file 0644 0.000000000 %d %s\n", int64(MaxSize)/2, name)
	}
	checkRefused(t, b.String(), "size of entry 2: all files up to it have 26388279066624 bytes, the limit is 17592186044416")
}
