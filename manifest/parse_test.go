package manifest

import (
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
)

func TestQuick(t *testing.T) {
	h := chunk.Sum([]byte("x")).String()
	text := strings.ReplaceAll(`shoal-manifest 1
name photos
top dir 0755 1700000000.000000000
cutter fixed 131072
size 163840
entries 4
chunks 2
dir 0755 1700000000.000000000 album
file 0644 1700000000.123456789 131072 album/a b.jpg
link album/latest
> a b.jpg
file 0600 1700000000.000000000 32768 notes.txt
131072 HASH
32768 HASH
`, "HASH", h)
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for e := range m.Extents(1) {
		t.Log(e)
	}
	t.Log(Ticket{m.Root(), []string{"[2001:db8:1111:2222:3333:4444:5555:6666]:12345", "[2001:db8:1111:2222:3333:4444:5555:6667]:12345"}}.String(), len(Ticket{m.Root(), []string{"[2001:db8:1111:2222:3333:4444:5555:6666]:12345", "[2001:db8:1111:2222:3333:4444:5555:6667]:12345"}}.String()))
}
