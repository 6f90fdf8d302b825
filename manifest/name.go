package manifest

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// PartSuffix ends the name of the folder that holds an unfinished download. No
// name of a share ends so, in any case, so that a manifest cannot feed us a
// journal.
const PartSuffix = ".shoal-part"

// CheckName reports, as a *PathError, why name must not be one component of a
// path on any system: it is empty, "." or "..", longer than MaxName bytes, not
// UTF-8, holds a slash, a control or a bidirectional character or a line
// separator, is "~" or begins with a backslash or a drive letter (it could be
// taken for an absolute path), or ends in PartSuffix. Names that only some
// systems refuse are CheckPortable's business.
func CheckName(name string) error {
	if why := checkName(name); why != "" {
		return &PathError{name, why}
	}
	if why := checkFirst(name); why != "" {
		return &PathError{name, why}
	}
	return nil
}

// CheckPortableName reports, as a *PathError, why Windows or macOS would refuse or
// change a name that CheckName allows.
func CheckPortableName(name string) error {
	if why := checkPortable(name); why != "" {
		return &PathError{name, why}
	}
	return nil
}

// checkName returns why name cannot be a component of a path, or "".
func checkName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "." || name == "..":
		return "stands for a directory"
	case len(name) > MaxName:
		return fmt.Sprintf("has %d bytes, the limit is %d", len(name), MaxName)
	}
	if why := checkText(name); why != "" {
		return why
	}
	if strings.IndexByte(name, '/') >= 0 {
		return "holds a slash"
	}
	if len(name) >= len(PartSuffix) {
		// The suffix is compared folded: a case-insensitive system takes both for one.
		if tail := name[len(name)-len(PartSuffix):]; strings.EqualFold(tail, PartSuffix) {
			return "ends in " + PartSuffix + ", which is for unfinished downloads"
		}
		// No other characters fold to a dot or a hyphen.
		if !isASCII(name) && strings.Contains(name, ".") && strings.Contains(name, "-") && strings.HasSuffix(fold(name), PartSuffix) {
			return "ends in " + PartSuffix + ", which is for unfinished downloads"
		}
	}
	return ""
}

// checkFirst returns why name cannot be the first component of a path, or "".
func checkFirst(name string) string {
	switch {
	case name == "~":
		return "could be taken for a home directory"
	case name[0] == '\\':
		return "begins with a backslash and could be taken for an absolute path"
	case len(name) >= 2 && name[1] == ':' && isLetter(name[0]):
		return "begins with a drive letter and could be taken for an absolute path"
	}
	return ""
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// checkText returns why s cannot stand in a line of a manifest, or "".
func checkText(s string) string {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return fmt.Sprintf("holds the control character %#02x", c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			return "is not valid UTF-8"
		case r < 0xa0:
			return fmt.Sprintf("holds the control character %U", r)
		case r == 0x61c || r == 0x200e || r == 0x200f || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069:
			return fmt.Sprintf("holds %U, which changes the direction of text", r)
		case r == 0x2028 || r == 0x2029:
			return fmt.Sprintf("holds the line separator %U", r)
		}
		i += n
	}
	return ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// checkPortable returns why Windows or macOS would not take name as it is, or "".
func checkPortable(name string) string {
	if i := strings.IndexAny(name, `<>:"|?*\`); i >= 0 {
		return fmt.Sprintf("holds %q, which Windows refuses", name[i:i+1])
	}
	switch name[len(name)-1] {
	case '.', ' ':
		return "ends in a dot or a space, which Windows removes"
	}
	stem, ext, _ := strings.Cut(name, ".")
	stem = strings.TrimRight(stem, " ")
	switch s := strings.ToUpper(stem); s {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return "is a device on Windows"
	default:
		if rest, ok := strings.CutPrefix(s, "COM"); ok && isPort(rest) {
			return "is a device on Windows"
		}
		if rest, ok := strings.CutPrefix(s, "LPT"); ok && isPort(rest) {
			return "is a device on Windows"
		}
	}
	if i := strings.IndexByte(stem, '~'); i > 0 && len(stem) <= 8 && len(ext) <= 3 && isDigits(stem[i+1:]) {
		return "has the form of a short name, by which Windows may know another file"
	}
	return ""
}

func isPort(s string) bool {
	switch s {
	case "¹", "²", "³":
		return true
	}
	return len(s) == 1 && isDigits(s)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// fold returns the form that two names of a directory must not have in common, so
// that no file system that ignores case, normalises, or does not see some characters
// takes them for one: without Default_Ignorable_Code_Points, and then as Unicode
// compares for a canonical caseless match (D145), NFD(toCasefold(NFD(name))).
func fold(name string) string {
	if isASCII(name) {
		return strings.ToLower(name)
	}
	var f folding
	return string(f.append(nil, name))
}

// A folding folds names one after the other, in buffers that it keeps.
type folding struct{ a, b []byte }

// folder has no state, unlike other Casers.
var folder = cases.Fold()

// append appends fold(name) to dst.
func (f *folding) append(dst []byte, name string) []byte {
	start := len(dst)
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return f.appendUnicode(dst[:start], name)
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

func (f *folding) appendUnicode(dst []byte, name string) []byte {
	f.a = f.a[:0]
	for i, r := range name {
		if r < utf8.RuneSelf || !isIgnorable(r) {
			f.a = append(f.a, name[i:i+runeLen(name[i:], r)]...)
		}
	}
	f.b = appendNFD(f.b[:0], f.a)
	f.a = slices.Grow(f.a[:0], 3*len(f.b))
	for in, out := f.b, f.a; ; {
		n, read, err := folder.Transform(out[len(out):cap(out)], in, true)
		out, in = out[:len(out)+n], in[read:]
		f.a = out
		if err != transform.ErrShortDst {
			break
		}
		out = slices.Grow(out, cap(out))
	}
	mendCherokee(f.a)
	return appendNFD(dst, f.a)
}

// mendCherokee makes the small letters of the Cherokee script in b large, as Unicode
// folds them. The library exchanges the two instead, so that they never meet.
func mendCherokee(b []byte) {
	for i := 0; i+2 < len(b); i++ {
		if b[i] != 0xe1 && b[i] != 0xea {
			continue
		}
		switch r, _ := utf8.DecodeRune(b[i:]); {
		case 0xab70 <= r && r <= 0xabbf:
			utf8.EncodeRune(b[i:], r-0xab70+0x13a0)
		case 0x13f8 <= r && r <= 0x13fd:
			utf8.EncodeRune(b[i:], r-0x13f8+0x13f0)
		}
	}
}

func appendNFD(dst, b []byte) []byte {
	if norm.NFD.IsNormal(b) {
		return append(dst, b...)
	}
	return norm.NFD.Append(dst, b...)
}

// runeLen returns the length of r, with which s begins, where it may be a byte that
// is no UTF-8.
func runeLen(s string, r rune) int {
	if r == utf8.RuneError {
		_, n := utf8.DecodeRuneInString(s)
		return n
	}
	return utf8.RuneLen(r)
}

// ignorable are the Default_Ignorable_Code_Points of Unicode 15: ext4 and f2fs do
// not see them in the names of a directory that ignores case, and HFS+ some of them.
var ignorable = [][2]rune{
	{0xad, 0xad},
	{0x34f, 0x34f},
	{0x61c, 0x61c},
	{0x115f, 0x1160},
	{0x17b4, 0x17b5},
	{0x180b, 0x180f},
	{0x200b, 0x200f},
	{0x202a, 0x202e},
	{0x2060, 0x206f},
	{0x3164, 0x3164},
	{0xfe00, 0xfe0f},
	{0xfeff, 0xfeff},
	{0xffa0, 0xffa0},
	{0xfff0, 0xfff8},
	{0x1bca0, 0x1bca3},
	{0x1d173, 0x1d17a},
	{0xe0000, 0xe0fff},
}

func isIgnorable(r rune) bool {
	for _, x := range ignorable {
		if r <= x[1] {
			return r >= x[0]
		}
	}
	return false
}

// ComparePaths orders paths as entries are, component by component: '/' is below
// every other byte. The result is negative, 0 or positive.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	if i == n {
		return len(a) - len(b)
	}
	x, y := int(a[i]), int(b[i])
	if x == '/' {
		x = -1
	}
	if y == '/' {
		y = -1
	}
	return x - y
}

// base returns the last component of path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
