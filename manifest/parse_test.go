package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/chunk"
)

// head returns a manifest up to its lists.
func head(entries, chunks int, size int64) string {
	return fmt.Sprintf("shoal-manifest 1\nname x\ntop dir 0755 0.000000000\ncutter fixed 131072\nsize %d\nentries %d\nchunks %d\n", size, entries, chunks)
}

// withPaths returns a manifest of empty files, and directories where a path ends in
// a slash, and links where it has " -> ".
func withPaths(paths ...string) string {
	b := []byte(head(len(paths), 0, 0))
	for _, p := range paths {
		if path, target, ok := strings.Cut(p, " -> "); ok {
			b = fmt.Appendf(b, "link %s\n> %s\n", path, target)
		} else if dir, ok := strings.CutSuffix(p, "/"); ok && p != "/" {
			b = fmt.Appendf(b, "dir 0755 0.000000000 %s\n", dir)
		} else {
			b = fmt.Appendf(b, "file 0644 0.000000000 0 %s\n", p)
		}
	}
	return string(b)
}

// An edit makes a manifest wrong in one place of the example.
type edit struct{ name, old, new, want string }

// refused fails unless each edit of the example is refused with what it wants; ""
// is success.
func refused(t *testing.T, edits []edit) {
	t.Helper()
	ex := example(t)
	for _, test := range edits {
		t.Run(test.name, func(t *testing.T) {
			in := strings.Replace(ex, test.old, test.new, 1)
			if test.name == "CRLF" {
				in = strings.ReplaceAll(ex, test.old, test.new)
			}
			if in == ex {
				t.Fatalf("the example does not hold %q", test.old)
			}
			checkRefused(t, in, test.want)
		})
	}
}

// lastHash returns the hash at the end of the example.
func lastHash(t *testing.T) string {
	ex := example(t)
	return ex[len(ex)-44 : len(ex)-1]
}

// checkRefused parses text, which must fail with want, or work if it is "".
func checkRefused(t *testing.T, text, want string) {
	t.Helper()
	m, err := Parse([]byte(text))
	if want == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		if got := encode(m); got != text {
			t.Errorf("encodes as %q, want %q", got, text)
		}
		return
	}
	if err == nil {
		t.Fatalf("accepted, want error %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q, want %q", err, want)
	}
	var se *SyntaxError
	if !errors.As(err, &se) || se.Line < 1 || !strings.HasPrefix(err.Error(), "manifest: line ") {
		t.Errorf("error %q is no *SyntaxError with a line", err)
	}
	if m != nil {
		t.Error("a manifest beside the error")
	}
	for _, r := range err.Error() {
		if r < ' ' || 0x7f <= r && r < 0xa0 || 0x202a <= r && r <= 0x202e {
			t.Errorf("error %q holds %U raw", err, r)
		}
	}
}

// A size is written in one way, and is below the limit.
func TestM04Sizes(t *testing.T) {
	refused(t, []edit{
		{"size -1", "size 200023", "size -1", "size: \"-1\" is not a number"},
		{"size -0", "size 200023", "size -0", "is not a number"},
		{"size +1", "size 200023", "size +200023", "is not a number"},
		{"size with zero", "size 200023", "size 0200023", "is not a number"},
		{"size with space", "size 200023", "size  200023", "is not a number"},
		{"size hex", "size 200023", "size 0x30D57", "is not a number"},
		{"size 1e30", "size 200023", "size 1e30", "is not a number"},
		{"size empty", "size 200023", "size ", "is not a number"},
		{"size 2^63", "size 200023", "size 9223372036854775808", "over the limit"},
		{"size 2^64-1", "size 200023", "size 18446744073709551615", "over the limit"},
		{"size over 16 TiB", "size 200023", "size 17592186044417", "over the limit of 17592186044416"},
		{"size wrong", "size 200023", "size 200024", "files have 200023 bytes together, the share says 200024"},
		{"file size -1", " 9 notes", " -1 notes", "size of entry 3: \"-1\""},
		{"file size 2^63", " 9 notes", " 9223372036854775808 notes", "size of entry 3: 9223372036854775808 is over"},
		{"file size 1e30", " 9 notes", " 1e30 notes", "size of entry 3"},
		{"file size 0x9", " 9 notes", " 0x9 notes", "size of entry 3"},
		{"file size 09", " 9 notes", " 09 notes", "size of entry 3"},
		{"file size +9", " 9 notes", " +9 notes", "size of entry 3"},
		{"file without size", " 9 notes.txt", " notes.txt", "entry 3"},
		{"file size other", " 9 notes", " 10 notes", "files have 200024 bytes"},
	})
}

// Counts are those of the lines, and chunks cut the files as the cutter does.
func TestM06Counts(t *testing.T) {
	last := lastHash(t)
	refused(t, []edit{
		{"entries one more", "entries 5", "entries 6", "entry 5: want a line"},
		{"entries one less", "entries 5", "entries 4", "size: the files"},
		{"entries over", "entries 5", "entries 1000001", "over the limit of 1000000"},
		{"entries huge", "entries 5", "entries 9223372036854775807", "over the limit"},
		{"entries more than text", "entries 5", "entries 1000000", "need at least"},
		{"chunks one more", "chunks 3", "chunks 4", "chunks: the share says 4, its files need 3"},
		{"chunks one less", "chunks 3", "chunks 2", "its files need 3"},
		{"chunks none", "chunks 3", "chunks 0", "its files need 3"},
		{"chunks over", "chunks 3", "chunks 1048577", "over the limit of 1048576"},
		{"chunks more than text", "chunks 3", "chunks 1048576", "need at least"},
		{"chunk length 0", "\n23 ", "\n0 ", "length of chunk 2: 0 is not what"},
		{"chunk too long", "\n23 ", "\n24 ", "length of chunk 2: 24 is not what"},
		{"chunk too short", "\n68928 ", "\n68927 ", "length of chunk 1: 68927 is not what"},
		{"chunk over its maximum", "\n131072 ", "\n131073 ", "length of chunk 0: 131073 is over the limit"},
		{"chunk over a segment", "\n131072 ", "\n131071 ", "length of chunk 0: 131071 is not what"},
		{"one more chunk line", last + "\n", last + "\n1 " + chunk.Sum(nil).String() + "\n", "behind the last chunk"},
	})
}

// A nominal size of a chunk is a power of two within the limits: nothing is divided by 0.
func TestM07ChunkSize(t *testing.T) {
	refused(t, []edit{
		{"cutter unknown", "fixed 131072", "magic 131072", "unknown cutter"},
		{"chunk size 0", "fixed 131072", "fixed 0", "power of two"},
		{"chunk size 1", "fixed 131072", "fixed 1", "power of two"},
		{"chunk size 3", "fixed 131072", "fixed 3", "power of two"},
		{"chunk size 2^31", "fixed 131072", "fixed 2147483648", "power of two"},
		{"chunk size no power", "fixed 131072", "fixed 196608", "power of two"},
		{"other chunk size", "fixed 131072", "fixed 262144", "its files need 1"},
		{"other cutter", "fixed 131072", "fastcdc 131072", ""}, // any cut in bounds may be what it finds
	})
}

// A hash has 32 bytes in one form: none is cut short.
func TestM12Hashes(t *testing.T) {
	last := lastHash(t)
	refused(t, []edit{
		{"hash short", last, last[:42], "hash of chunk 2: chunk: hash of 42 characters"},
		{"hash long", last, last + "A", "hash of 44 characters"},
		{"hash of 16 bytes", last, last[:22], "hash of 22 characters"},
		{"hash none", " " + last, " ", "of 0 characters"},
		{"hash hex", last, strings.Repeat("AF", 32), "of 64 characters"},
		{"hash padded", last, last[:42] + "=", "hash of chunk 2"},
		{"chunk without hash", "23 " + last, "23", "want a length and a hash"},
	})
}

// Whatever is not exactly the one form of a manifest is refused.
func TestM13OneForm(t *testing.T) {
	last := lastHash(t)
	refused(t, []edit{
		{"nothing", example(t), "", "does not begin with"},
		{"something else", example(t), "%PDF-1.4\n", "does not begin with"},
		{"BOM", "shoal-manifest", "\ufeffshoal-manifest", "does not begin with"},
		{"CRLF", "\n", "\r\n", "CR LF"},
		{"version 0", "manifest 1", "manifest 0", `unknown version: "0"`},
		{"version 2", "manifest 1", "manifest 2", `unknown version: "2", this program reads 1`},
		{"version 01", "manifest 1", "manifest 01", "unknown version"},
		{"unknown field", "name photos\n", "name photos\ncomment x\n", `line 3: unexpected line: want "top ..."`},
		{"duplicated field", "name photos\n", "name photos\nname photos\n", "line 3"},
		{"reordered fields", "size 200023\nentries 5\n", "entries 5\nsize 200023\n", "line 5"},
		{"trailing byte", last + "\n", last + "\nx", "behind the last chunk"},
		{"trailing line end", last + "\n", last + "\n\n", "1 byte behind the last chunk"},
		{"trailing NUL", last + "\n", last + "\n\x00", "behind the last chunk"},
		{"no last line end", last + "\n", last, "truncated"},
		{"space behind a field", "entries 5\n", "entries 5 \n", "entries"},
		{"top file of many", "top dir 0755 1700000000.000000000", "top file", "5 in a share of one file"},
		{"top link", "top dir", "top link", "want \"file\" or \"dir\""},
		{"top with more", "top dir 0755 1700000000.000000000", "top dir 0755 1700000000.000000000 x", "behind the time"},
		{"top with a space", "top dir 0755 1700000000.000000000", "top dir 0755 1700000000.000000000 ", "behind the time"},
		{"kind unknown", "dir 0755 1700000000.000000000 album", "fifo 0755 1700000000.000000000 album", "entry 0: want a line of"},
		{"link without target", "> a b.jpg\n", "", `unexpected line: want "> ..."`},
		{"link with mode", "link album/latest", "link 0777 1700000000.000000000 album/latest", "entry 2"},
	})
}

// The name of a share is one component, like any other.
func TestP02ShareName(t *testing.T) {
	refused(t, []edit{
		{"name empty", "name photos", "name ", "is empty"},
		{"name with a slash", "name photos", "name pho/tos", "holds a slash"},
		{"name dots", "name photos", "name ..", "stands for a directory"},
	})
}

// Modes have nine bits and times are those of a file system.
func TestM18ModesAndTimes(t *testing.T) {
	refused(t, []edit{
		{"mode setuid", "0755 1700000000.000000000 album", "4755 1700000000.000000000 album", "mode of entry 0"},
		{"mode short", "0755 1700000000.000000000 album", "755 1700000000.000000000 album", "mode of entry 0"},
		{"mode 0800", "0755 1700000000.000000000 album", "0855 1700000000.000000000 album", "mode of entry 0"},
		{"mode text", "0755 1700000000.000000000 album", "rwxr 1700000000.000000000 album", "mode of entry 0"},
		{"time without digits", ".123456789", "", "time of entry 1"},
		{"time of 8 digits", ".123456789", ".12345678", "time of entry 1"},
		{"time of 10 digits", ".123456789", ".1234567890", "time of entry 1"},
		{"time negative", "1700000000.123456789", "-1.123456789", "time of entry 1"},
		{"time NaN", "1700000000.123456789", "NaN", "time of entry 1"},
		{"time year 1", "1700000000.123456789", "-62135596800.123456789", "time of entry 1"},
		{"time of 1970 less one", "1700000000.123456789", "-0.000000001", "time of entry 1"},
		{"time year 9999", "1700000000.123456789", "253402300799.999999999", ""},
		{"time 2^63", "1700000000.123456789", "9223372036854775808.000000000", "time of entry 1"},
		{"mode 0777", "0755 1700000000.000000000 album", "0777 1700000000.000000000 album", ""},
		{"mode 0000", "0755 1700000000.000000000 album", "0000 1700000000.000000000 album", ""},
		{"mode sticky", "0755 1700000000.000000000 album", "1777 1700000000.000000000 album", "mode of entry 0"},
		{"time year 10000", "1700000000.123456789", "253402300800.000000000", "time of entry 1: 253402300800 is over the limit"},
		{"time with zero", "1700000000.123456789", "01700000000.123456789", "time of entry 1"},
	})
}

// Empty files and links between small files are in no chunk and break no segment.
func TestSegments(t *testing.T) {
	h := chunk.Sum(nil).String()
	text := head(6, 4, 131072+5+10+10) +
		"file 0644 0.000000000 10 a\n" +
		"file 0644 0.000000000 0 b\n" +
		"dir 0755 0.000000000 c\n" +
		"file 0644 0.000000000 10 c/d\n" +
		"file 0644 0.000000000 131072 e\n" +
		"file 0644 0.000000000 5 f\n"
	text = strings.Replace(text, "chunks 4", "chunks 3", 1)
	text += "20 " + h + "\n131072 " + h + "\n5 " + h + "\n"
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Collect(m.Extents(0)), []Extent{{0, 0, 10}, {3, 0, 10}}; !slices.Equal(got, want) {
		t.Errorf("extents %v, want %v", got, want)
	}
	if first, end := m.Chunks(1); first != end {
		t.Errorf("an empty file is in the chunks %d to %d", first, end)
	}
}
