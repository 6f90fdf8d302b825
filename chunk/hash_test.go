package chunk

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// The first test vectors of BLAKE3: input is the bytes 0, 1, 2 ... 250, 0, 1 ...
func TestSumVectors(t *testing.T) {
	for _, test := range []struct {
		n    int
		want string
	}{
		{0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
		{1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
		{1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
		{1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
		{102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
	} {
		p := make([]byte, test.n)
		for i := range p {
			p[i] = byte(i % 251)
		}
		h := Sum(p)
		if got := hex.EncodeToString(h[:]); got != test.want {
			t.Errorf("Sum of %d bytes = %s, want %s", test.n, got, test.want)
		}
	}
}

func TestHasherInPieces(t *testing.T) {
	p := random(300<<10, 3)
	want := Sum(p)
	h := NewHasher()
	defer h.Release()
	for _, n := range []int{1, 7, 64, 1024, 8192, 100_000, len(p)} {
		for q := p; len(q) > 0; {
			k := min(n, len(q))
			if k%2 == 0 {
				h.WriteString(string(q[:k]))
			} else {
				h.Write(q[:k])
			}
			q = q[k:]
		}
		if got := h.Sum(); got != want {
			t.Errorf("in pieces of %d: %s, want %s", n, got, want)
		}
		h.Reset()
	}
}

func TestSumDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes the pool forget")
	}
	p := random(MinSize, 4)
	if n := testing.AllocsPerRun(100, func() { Sum(p) }); n >= 1 {
		t.Errorf("%v allocations, want 0", n)
	}
	h := Sum(p)
	b := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { b, _ = h.AppendText(b[:0]) }); n >= 1 {
		t.Errorf("AppendText: %v allocations, want 0", n)
	}
	s := h.String()
	if n := testing.AllocsPerRun(100, func() { ParseHash(s) }); n >= 1 {
		t.Errorf("ParseHash: %v allocations, want 0", n)
	}
}

func TestParseHash(t *testing.T) {
	good := Sum(nil).String()
	last := good[len(good)-1]
	for _, test := range []struct {
		name, in string
		want     string // of the error; "" is success
	}{
		{"of nothing", good, ""},
		{"zero", strings.Repeat("A", 43), ""},
		{"all ones", strings.Repeat("_", 42) + "8", ""},
		{"empty", "", "of 0 characters"},
		{"short", good[:42], "of 42 characters"},
		{"long", good + "A", "of 44 characters"},
		{"33 bytes", strings.Repeat("A", 44), "of 44 characters"},
		{"hex", strings.Repeat("AF", 32), "of 64 characters"},
		{"padded", good[:42] + "=", "not base64url"},
		{"stray bits", good[:42] + string(last+1), "not base64url"},
		{"standard alphabet, plus", "+" + good[1:], "does not have"},
		{"standard alphabet, slash", "/" + good[1:], "not base64url"},
		{"line end inside", good[:20] + "\n" + good[21:], "does not have"},
		{"CR at the end", good[:42] + "\r", "does not have"},
		{"space", " " + good[1:], "does not have"},
		{"not ASCII", "é" + good[2:], "not base64url"},
	} {
		h, err := ParseHash(test.in)
		if test.want == "" {
			if err != nil || h.String() != test.in {
				t.Errorf("%s: %v, %v", test.name, h, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
		if h != (Hash{}) {
			t.Errorf("%s: a hash beside the error", test.name)
		}
	}
}

func TestHashJSON(t *testing.T) {
	in := Sum([]byte("x"))
	b, err := json.Marshal(in)
	if err != nil || string(b) != `"`+in.String()+`"` {
		t.Fatalf("%s, %v", b, err)
	}
	var out Hash
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("%v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`"x"`), &out); err == nil {
		t.Error("accepted a wrong hash")
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("_", 43))
	f.Add("\n" + strings.Repeat("A", 42))
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			return
		}
		if h.String() != s {
			t.Errorf("accepted %q, which encodes as %q", s, h)
		}
		if b, _ := h.AppendText(nil); !bytes.Equal(b, []byte(s)) {
			t.Errorf("AppendText gives %q for %q", b, s)
		}
	})
}
