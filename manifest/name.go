package manifest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
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
		if !isASCII(name) && strings.HasSuffix(fold(name), PartSuffix) {
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

var folder = cases.Fold()

// fold returns the form that two names of a directory must not have in common:
// full case folding, NFC and no invisible characters, so that no file system that
// ignores case, or normalises, takes them for one.
func fold(name string) string {
	if isASCII(name) {
		return strings.ToLower(name)
	}
	// Folding may undo a normal form and the reverse; NFD first makes the result
	// independent of how the name came.
	name = folder.String(norm.NFD.String(folder.String(norm.NFD.String(name))))
	return norm.NFC.String(strings.Map(dropIgnorable, name))
}

// dropIgnorable drops the characters that HFS+ does not see in a name.
func dropIgnorable(r rune) rune {
	switch {
	case 0x200b <= r && r <= 0x200d, 0x2060 <= r && r <= 0x206f, r == 0xfeff:
		return -1
	}
	return r
}

// appendFold appends fold(name) to b.
func appendFold(b []byte, name string) []byte {
	start := len(b)
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return append(b[:start], fold(name)...)
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}

// comparePaths orders paths component by component: '/' is below every other byte.
func comparePaths(a, b string) int {
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
