package chunk

import (
	"slices"
	"strings"
	"testing"
)

func TestParseRanges(t *testing.T) {
	for _, test := range []struct {
		name, in string
		limit    int
		want     []Range
		err      string // "" is success
	}{
		{"nothing", "", 10, nil, ""},
		{"nothing of nothing", "", 0, nil, ""},
		{"one", "0", 1, []Range{{0, 1}}, ""},
		{"the last", "9", 10, []Range{{9, 1}}, ""},
		{"all", "0-9", 10, []Range{{0, 10}}, ""},
		{"some", "0-99 105 200-300", 301, []Range{{0, 100}, {105, 1}, {200, 101}}, ""},
		{"every second", "0 2 4", 5, []Range{{0, 1}, {2, 1}, {4, 1}}, ""},
		{"at the limit", "10", 10, nil, "not below 10"},
		{"range over the limit", "0-10", 10, nil, "not below 10"},
		{"of nothing", "0", 0, nil, "at most 0"},
		{"more than fit", "0 2 4 6", 6, nil, "at most 3"},
		{"touching", "0-1 2", 10, nil, "touches"},
		{"overlapping", "0-4 3-5", 10, nil, "overlaps"},
		{"same twice", "3 3", 10, nil, "overlaps"},
		{"descending", "5 3", 10, nil, "out of order"},
		{"range descending", "5-3", 10, nil, "not ascending"},
		{"range of one", "5-5", 10, nil, "not ascending"},
		{"leading zero", "05", 10, nil, "not a number"},
		{"negative", "-5", 10, nil, "not a number"},
		{"minus zero", "-0", 10, nil, "not a number"},
		{"plus", "+5", 10, nil, "not a number"},
		{"hex", "0x1", 10, nil, "not a number"},
		{"exponent", "1e3", 10, nil, "not a number"},
		{"three ends", "1-2-3", 10, nil, "not a number"},
		{"no end", "1-", 10, nil, "not a number"},
		{"space before", " 1", 10, nil, "not a number"},
		{"space behind", "1 ", 10, nil, "not a number"},
		{"two spaces", "1  3", 10, nil, "not a number"},
		{"tab", "1\t3", 10, nil, "not a number"},
		{"comma", "1,3", 10, nil, "not a number"},
		{"2^63", "9223372036854775808", 10, nil, "not a number"},
		{"2^64+1", "18446744073709551617", MaxNum, nil, "not a number"},
		{"2^32", "4294967296", MaxNum, nil, "not below"},
		{"10,000 spaces", strings.Repeat(" ", 10_000), 10, nil, "at most 5"},
		{"other digits", "٣", 10, nil, "not a number"},
	} {
		got, err := ParseRanges(test.in, test.limit)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || len(got) > 0 {
				t.Errorf("%s: %v, %v, want error %q", test.name, got, err, test.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v, want %v", test.name, got, err, test.want)
		}
		if out := string(AppendRanges(nil, got)); out != test.in {
			t.Errorf("%s: encodes as %q", test.name, out)
		}
	}
}

// A text of a thousand fields must not size anything when only two can be right.
func TestParseRangesBoundsFirst(t *testing.T) {
	s := strings.Repeat("0 ", 1<<20) + "0"
	if n := testing.AllocsPerRun(10, func() {
		if _, err := ParseRanges(s, 4); err == nil {
			t.Error("accepted")
		}
	}); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendParsedRangesKeeps(t *testing.T) {
	rs := []Range{{7, 1}}
	rs, err := AppendParsedRanges(rs, "1 3-4", 10)
	if want := []Range{{7, 1}, {1, 1}, {3, 2}}; err != nil || !slices.Equal(rs, want) {
		t.Fatalf("%v, %v, want %v", rs, err, want)
	}
	if rs, err = AppendParsedRanges(rs, "1 1", 10); err == nil || len(rs) != 3 {
		t.Errorf("%v, %v: want the slice as it was, and an error", rs, err)
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"", "0", "0-99 105 200-300", "1 3 5", "5-3", "0 0", "9999999999", "1-2-3", " ", "0-1048575"} {
		f.Add(s, 1000)
		f.Add(s, MaxNum)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > MaxNum {
			return
		}
		rs, err := ParseRanges(s, limit)
		if err != nil {
			return
		}
		b := NewBitfield(limit)
		for _, r := range rs {
			b.SetRange(r.First, r.N) // panics if a range is outside
		}
		if out := string(AppendRanges(nil, rs)); out != s {
			t.Errorf("accepted %q, which encodes as %q", s, out)
		}
		if got := slices.Collect(b.Ranges()); !slices.Equal(got, rs) {
			t.Errorf("accepted %q, which is not the form of %v", s, got)
		}
	})
}
