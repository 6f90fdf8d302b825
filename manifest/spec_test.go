package manifest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"github.com/shoal-p2p/shoal/chunk"
)

// A fence is one fenced block of SPEC.md.
type fence struct {
	kind string
	args []string
	text string
}

// spec returns SPEC.md and its fences.
func spec(t *testing.T) (string, []fence) {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	var fences []fence
	for _, m := range regexp.MustCompile("(?ms)^```(\\S+)([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		fences = append(fences, fence{m[1], strings.Fields(m[2]), m[3]})
	}
	return string(b), fences
}

func TestSpecExamples(t *testing.T) {
	page, fences := spec(t)
	num := make(map[string]int)
	for _, f := range fences {
		num[f.kind]++
		switch f.kind {
		case "manifest":
			m, err := Parse([]byte(f.text))
			if err != nil {
				t.Errorf("the manifest of SPEC.md: %v", err)
				continue
			}
			if got := encode(m); got != f.text {
				t.Errorf("the manifest of SPEC.md encodes as\n%s", got)
			}
			if len(f.args) != 1 || m.Root().String() != f.args[0] {
				t.Errorf("the root of the manifest is %s, SPEC.md says %q", m.Root(), f.args)
			}
			if !strings.Contains(page, "Its root is `"+m.Root().String()+"`") {
				t.Errorf("the text does not say that the root is %s", m.Root())
			}
			if f.text != example(t) {
				t.Errorf("the manifest is not testdata/manifest/example.shoal, which Build makes")
			}
		case "ticket":
			ticket, err := ParseTicket(f.text)
			if err != nil {
				t.Errorf("the ticket of SPEC.md: %v", err)
				continue
			}
			if got := ticket.String() + "\n"; got != f.text {
				t.Errorf("the ticket encodes as %s", got)
			}
			if got := append([]string{ticket.Root.String()}, ticket.Addrs...); !slices.Equal(got, f.args) {
				t.Errorf("the ticket has %q, SPEC.md says %q", got, f.args)
			}
			for _, addr := range ticket.Addrs {
				if !strings.Contains(page, "`"+addr+"`") {
					t.Errorf("the text does not name the address %s", addr)
				}
			}
		case "gear":
			fields := strings.Fields(f.text)
			if len(fields) != 256 {
				t.Fatalf("the table has %d numbers", len(fields))
			}
			for i, field := range fields {
				if got := fmt.Sprintf("%016x", fastcdc.G[i]); got != field {
					t.Errorf("G[%d] is %s, SPEC.md says %s", i, got, field)
				}
			}
		case "abnf":
		default:
			t.Errorf("an example of the unknown kind %q", f.kind)
		}
	}
	for _, kind := range []string{"manifest", "ticket", "gear"} {
		if num[kind] == 0 {
			t.Errorf("SPEC.md has no example of the kind %q", kind)
		}
	}
}

func TestSpecLimits(t *testing.T) {
	page, _ := spec(t)
	_, table, ok := strings.Cut(page, "\n## Limits\n")
	table, _, ok2 := strings.Cut(table, "\n## ")
	if !ok || !ok2 {
		t.Fatal("SPEC.md has no section of limits")
	}
	want := map[string]int64{
		"bytes of a manifest":         MaxText,
		"entries":                     MaxEntries,
		"chunks":                      chunk.MaxNum,
		"bytes of all files together": MaxSize,
		"bytes of a path, and of a link's target":                MaxPath,
		"bytes of one component of a path":                       MaxName,
		"components of a path":                                   MaxDepth,
		"least nominal size of a chunk":                          chunk.MinSize,
		"largest nominal size of a chunk, and the longest chunk": chunk.MaxSize,
		"latest second of a modification time":                   MaxSec,
		"links that a link may lead through, itself included":    maxLinkHops,
		"URLs of web servers":                                    MaxWeb,
		"bytes of a URL":                                         MaxURL,
		"addresses of a ticket":                                  MaxAddrs,
		"characters of a ticket":                                 maxTicket,
	}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \| (\d+) \|$`).FindAllStringSubmatch(table, -1) {
		n, err := strconv.ParseInt(m[2], 10, 64)
		if limit, ok := want[m[1]]; err != nil || !ok || n != limit {
			t.Errorf("SPEC.md says %q is %s, the code %d (%v)", m[1], m[2], limit, ok)
		}
		delete(want, m[1])
	}
	for name := range want {
		t.Errorf("SPEC.md does not name the limit %q", name)
	}
}

// What SPEC.md says in words about numbers and sets must be what the code does.
func TestSpecText(t *testing.T) {
	page, _ := spec(t)
	for _, want := range []string{
		fmt.Sprintf("a time before 1970 as `0.000000000`, and one after the year 9999 as `%d.999999999`", int64(MaxSec)),
		"12,288 of 128 KiB, 24,576 of 256 KiB, 49,152 of 512 KiB, 65,536 of any larger one",
		"ends in `" + PartSuffix + "`",
		"`shoal-manifest 1`",
		"and `" + DefaultCutter + "`, as",
	} {
		if !strings.Contains(strings.Join(strings.Fields(page), " "), want) {
			t.Errorf("SPEC.md does not say %q", want)
		}
	}
	if chunk.MinNominalNum != 12288 || chunk.MaxNominalNum != 65536 {
		t.Errorf("nominal sizes give from %d to %d chunks", chunk.MinNominalNum, chunk.MaxNominalNum)
	}
	_, text, _ := strings.Cut(page, "Default_Ignorable_Code_Point was removed:")
	text, _, _ = strings.Cut(text, ". So")
	var got [][2]rune
	for part := range strings.SplitSeq(strings.Join(strings.Fields(text), " "), ", ") {
		var r [2]rune
		if n, _ := fmt.Sscanf(part, "U+%X to U+%X", &r[0], &r[1]); n == 1 {
			r[1] = r[0]
		}
		got = append(got, r)
	}
	if !slices.Equal(got, ignorable) {
		t.Errorf("SPEC.md removes %X, the code %X", got, ignorable)
	}
}

// specCut is where SPEC.md says that the first chunk of p ends, written from its text.
func specCut(p []byte, n int) int {
	least, most := 1<<n/4, min(1<<n*4, 16777216)
	if len(p) > most {
		p = p[:most]
	}
	if len(p) <= least {
		return len(p)
	}
	hard, easy := specMask(n+2), specMask(n-2)
	f := uint64(0)
	for i := least; i < len(p); i++ {
		f = 2*f + fastcdc.G[p[i]]
		m := easy
		if i < 1<<n {
			m = hard
		}
		if f&m == 0 {
			return i
		}
	}
	return len(p)
}

func specMask(k int) (m uint64) {
	for i := range k {
		m |= 1 << (63 - i*(64/k))
	}
	return m
}

func TestSpecCutter(t *testing.T) {
	page, _ := spec(t)
	if want := fmt.Sprintf("for 131072 the two are `%016x` and `%016x`", specMask(19), specMask(15)); !strings.Contains(page, want) {
		t.Errorf("SPEC.md does not say %q", want)
	}
	p := []byte(text(3 << 20))
	for _, n := range []int{17, 18, 19} {
		c, err := chunk.NewCutter(chunk.FastCDC, 1<<n)
		if err != nil {
			t.Fatal(err)
		}
		if least, most := 1<<n/4, min(1<<n*4, 16777216); c.Min() != least || c.Max() != most {
			t.Errorf("%s has chunks from %d to %d, SPEC.md says %d to %d", c, c.Min(), c.Max(), least, most)
		}
		for rest := p; len(rest) > 0; {
			got, want := c.Next(rest), specCut(rest, n)
			if got != want {
				t.Fatalf("%s cuts %d of %d bytes, SPEC.md %d", c, got, len(rest), want)
			}
			rest = rest[got:]
		}
	}
}
