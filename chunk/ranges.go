package chunk

import (
	"fmt"
	"strconv"
	"strings"
)

// AppendRanges appends the text form of a set of chunks to b: "0-99 105 200-300",
// where a range of one chunk is its index. rs must be ascending, and neither
// overlap nor touch, as Bitfield.Ranges yields them. No ranges give no text.
func AppendRanges(b []byte, rs []Range) []byte {
	for i, r := range rs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = AppendRange(b, r)
	}
	return b
}

// AppendRange appends the text form of one range: "7" or "7-9".
func AppendRange(b []byte, r Range) []byte {
	b = strconv.AppendInt(b, int64(r.First), 10)
	if r.N != 1 {
		b = append(b, '-')
		b = strconv.AppendInt(b, int64(r.First)+int64(r.N)-1, 10)
	}
	return b
}

// ParseRanges parses what AppendRanges writes, and nothing else: every index is
// below limit, ranges ascend and do not touch. What it allocates is bounded by
// the length of s and by limit. The empty text is no ranges.
func ParseRanges(s string, limit int) ([]Range, error) {
	if s == "" {
		return nil, nil
	}
	n := strings.Count(s, " ") + 1
	// Ranges that do not touch leave a gap each, so limit bounds their number.
	if most := limit/2 + limit%2; n > most {
		return nil, fmt.Errorf("chunk: %d ranges, at most %d fit in %d chunks", n, most, limit)
	}
	return AppendParsedRanges(make([]Range, 0, n), s, limit)
}

// AppendParsedRanges is ParseRanges into a slice that the caller reuses. On an
// error the slice is returned as it was.
func AppendParsedRanges(rs []Range, s string, limit int) ([]Range, error) {
	start := len(rs)
	next := 0 // the smallest index that may come
	for more := s != ""; more; {
		var field string
		field, s, more = strings.Cut(s, " ")
		a, b, isRange := strings.Cut(field, "-")
		first, err := parseIndex(a, limit)
		if err != nil {
			return rs[:start], err
		}
		last := first
		if isRange {
			if last, err = parseIndex(b, limit); err != nil {
				return rs[:start], err
			}
			if last <= first {
				return rs[:start], fmt.Errorf("chunk: range %q is not ascending", field)
			}
		}
		if first < next {
			return rs[:start], fmt.Errorf("chunk: range %q overlaps or touches the one before it, or comes out of order", field)
		}
		rs = append(rs, Range{first, last - first + 1})
		next = last + 2
	}
	return rs, nil
}

// parseIndex parses a decimal index without sign or leading zeros, below limit.
func parseIndex(s string, limit int) (int, error) {
	if len(s) == 0 || len(s) > 10 || s[0] == '0' && len(s) > 1 {
		return 0, fmt.Errorf("chunk: index %.20q is not a number below %d", s, limit)
	}
	n := 0
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("chunk: index %.20q is not a number below %d", s, limit)
		}
		n = n*10 + int(c-'0')
		if n >= limit { // also keeps n from overflowing
			return 0, fmt.Errorf("chunk: index %.20q is not below %d", s, limit)
		}
	}
	return n, nil
}
