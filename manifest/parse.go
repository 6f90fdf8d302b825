package manifest

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
)

const magic = "shoal-manifest"

// The shortest lines of the two lists: a text that is too short for the counts it
// states is refused before they size anything.
const (
	minEntryLine = len("link a\n> a\n")
	minChunkLine = len("1 0123456789012345678901234567890123456789012\n")
)

// Parse reads a manifest. Whatever it accepts is the only text with this meaning,
// keeps to every limit, and names only paths that are safe to create beneath a
// directory, in the order of the entries. Errors are *SyntaxError; their chain may
// hold ErrVersion, ErrTooLarge or a *PathError. Parse keeps nothing of text.
//
// The caller has checked that the hash of text is the root it wants: Parse does
// not know where text came from.
func Parse(text []byte) (*Manifest, error) {
	if len(text) > MaxText {
		return nil, &SyntaxError{1, "size of the manifest", fmt.Errorf("%d bytes, the limit is %d: %w", len(text), MaxText, ErrTooLarge)}
	}
	return parse(string(text), chunk.Sum(text), nil)
}

// A parser goes through the lines of a manifest.
type parser struct {
	m    *Manifest
	rest string
	line int
}

// parse puts the entries into room, if they fit, and otherwise makes room for them.
func parse(text string, root chunk.Hash, room []Entry) (*Manifest, error) {
	p := &parser{m: &Manifest{text: text, root: root, entries: room[:0]}, rest: text}
	numEntries, numChunks, err := p.header()
	if err != nil {
		return nil, err
	}
	if err := p.entries(numEntries); err != nil {
		return nil, err
	}
	if err := p.chunks(numChunks); err != nil {
		return nil, err
	}
	if p.rest != "" {
		p.line++
		return nil, p.errorf("end", "%s behind the last chunk", count(len(p.rest), "byte"))
	}
	return p.m, nil
}

func (p *parser) errorf(what, format string, args ...any) error {
	return &SyntaxError{p.line, what, fmt.Errorf(format, args...)}
}

// A subject is what an error is about, such as "entry 3". It becomes text only when
// there is an error: a large manifest has millions that have none.
type subject struct {
	list  string
	index int // -1 if list is all
}

func (s subject) String() string {
	if s.index < 0 {
		return s.list
	}
	return s.list + " " + strconv.Itoa(s.index)
}

// of returns the subject with the part of it that an error is about.
func (s subject) of(part string) string {
	if part == "" {
		return s.String()
	}
	return part + " of " + s.String()
}

// next returns the next line without its end, checking that it begins with prefix.
func (p *parser) next(prefix string) (string, error) {
	p.line++
	line, rest, ok := strings.Cut(p.rest, "\n")
	if !ok {
		return "", p.errorf("truncated", "the text ends here, with %s of a line; get the manifest anew", count(len(p.rest), "byte"))
	}
	if !strings.HasPrefix(line, prefix) {
		return "", p.errorf("unexpected line", "want %q, found %s", prefix+"...", quote(line))
	}
	p.rest = rest
	return line[len(prefix):], nil
}

// number parses a decimal number from 0 to limit, in the one form it can have.
func (p *parser) number(part string, of subject, s string, limit int64) (int64, error) {
	n, ok := parseDecimal(s)
	if !ok {
		return 0, p.errorf(of.of(part), "%s is not a number without sign or leading zeros", quote(s))
	}
	if n < 0 || n > limit {
		return 0, p.errorf(of.of(part), "%s is over the limit of %d: %w", s, limit, ErrTooLarge)
	}
	return n, nil
}

// parseDecimal returns the value of s, or -1 if s is a decimal number that is too
// large for an int64.
func parseDecimal(s string) (n int64, ok bool) {
	if s == "" || s[0] == '0' && len(s) > 1 || !isDigits(s) || len(s) > 40 {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1, true
	}
	return n, true
}

// header reads the lines before the lists.
func (p *parser) header() (numEntries, numChunks int, err error) {
	m := p.m
	version, err := p.next(magic + " ")
	if err != nil {
		if !strings.HasPrefix(p.rest, magic+" ") {
			return 0, 0, p.errorf("not a manifest", "it does not begin with %q", magic+" 1")
		}
		return 0, 0, err
	}
	if strings.HasSuffix(version, "\r") {
		return 0, 0, p.errorf("line ends", "CR LF, where a manifest has LF: something took it for a text and changed it; get it anew")
	}
	if version != "1" {
		return 0, 0, p.errorf("version", "%w: %s, this program reads 1", ErrVersion, quote(version))
	}
	if m.name, err = p.next("name "); err != nil {
		return 0, 0, err
	}
	if err := CheckName(m.name); err != nil {
		return 0, 0, &SyntaxError{p.line, "name of the share", err}
	}
	top, err := p.next("top ")
	if err != nil {
		return 0, 0, err
	}
	if top != "file" {
		fields, ok := strings.CutPrefix(top, "dir ")
		if !ok {
			return 0, 0, p.errorf("top", "want \"file\" or \"dir\", found %s", quote(top))
		}
		m.top.Kind = Dir
		rest, err := p.modeTime(subject{"top", -1}, fields+" ", &m.top)
		if err != nil {
			return 0, 0, err
		}
		if rest != "" {
			return 0, 0, p.errorf("top", "%s behind the time", quote(rest))
		}
	}
	if err := p.web(); err != nil {
		return 0, 0, err
	}
	cutter, err := p.next("cutter ")
	if err != nil {
		return 0, 0, err
	}
	if m.cutter, err = chunk.ParseCutter(cutter); err != nil {
		return 0, 0, &SyntaxError{p.line, "cutter", err}
	}
	for _, field := range []struct {
		name  string
		limit int64
		to    func(n int64)
	}{
		{"size", MaxSize, func(n int64) { m.size = n }},
		{"entries", MaxEntries, func(n int64) { numEntries = int(n) }},
		{"chunks", chunk.MaxNum, func(n int64) { numChunks = int(n) }},
	} {
		s, err := p.next(field.name + " ")
		if err != nil {
			return 0, 0, err
		}
		n, err := p.number("", subject{field.name, -1}, s, field.limit)
		if err != nil {
			return 0, 0, err
		}
		field.to(n)
	}
	if need := numEntries*minEntryLine + numChunks*minChunkLine; need > len(p.rest) {
		return 0, 0, p.errorf("truncated", "%d entries and %d chunks need at least %d bytes, %d are left", numEntries, numChunks, need, len(p.rest))
	}
	if m.IsFile() && numEntries != 1 {
		return 0, 0, p.errorf("entries", "%d in a share of one file", numEntries)
	}
	return numEntries, numChunks, nil
}

// modeTime reads "MODE SEC.NSEC " from the start of s into e and returns the rest.
func (p *parser) modeTime(what subject, s string, e *Entry) (rest string, err error) {
	mode, rest, _ := strings.Cut(s, " ")
	if len(mode) != 4 || mode[0] != '0' || mode[1] > '7' || mode[2] > '7' || mode[3] > '7' || !isDigits(mode) {
		return "", p.errorf(what.of("mode"), "%s is not 0 and three octal digits", quote(mode))
	}
	e.Mode = fs.FileMode(mode[1]-'0')<<6 | fs.FileMode(mode[2]-'0')<<3 | fs.FileMode(mode[3]-'0')
	mtime, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return "", p.errorf(what.String(), "nothing behind %s", quote(mtime))
	}
	sec, nsec, _ := strings.Cut(mtime, ".")
	if len(nsec) != 9 || !isDigits(nsec) {
		return "", p.errorf(what.of("time"), "%s is not seconds, a dot and nine digits", quote(mtime))
	}
	if e.Sec, err = p.number("time", what, sec, MaxSec); err != nil {
		return "", err
	}
	for i := range len(nsec) {
		e.Nsec = e.Nsec*10 + uint32(nsec[i]-'0')
	}
	return rest, nil
}

// entries reads n entries and checks all that can be said of them without the chunks.
func (p *parser) entries(n int) error {
	m := p.m
	if cap(m.entries) < n {
		m.entries = make([]Entry, 0, n)
	}
	names := newNameSet(n)
	var dirs []int32 // the directories above the next entry, outermost first
	var size int64
	numFiles := 0
	firstLine := p.line + 1
	for i := range n {
		what := subject{"entry", i}
		line, err := p.next("")
		if err != nil {
			return err
		}
		e := Entry{Offset: size}
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "file":
			e.Kind = File
			if rest, err = p.modeTime(what, rest, &e); err != nil {
				return err
			}
			s, path, ok := strings.Cut(rest, " ")
			if !ok {
				return p.errorf(what.String(), "no path behind the size %s", quote(s))
			}
			if e.Size, err = p.number("size", what, s, MaxSize); err != nil {
				return err
			}
			if size += e.Size; size > MaxSize { // each is at most MaxSize: no overflow
				return p.errorf(what.of("size"), "all files up to it have %d bytes, the limit is %d: %w", size, MaxSize, ErrTooLarge)
			}
			if e.Size > 0 {
				numFiles++
			}
			e.Path = path
		case "dir":
			e.Kind = Dir
			if e.Path, err = p.modeTime(what, rest, &e); err != nil {
				return err
			}
		case "link":
			e.Kind, e.Path = Symlink, rest
		default:
			return p.errorf(what.String(), "want a line of \"file\", \"dir\" or \"link\", found %s", quote(line))
		}
		if dirs, err = p.checkPath(i, &e, dirs); err != nil {
			return err
		}
		if e.Kind == Symlink {
			if e.Target, err = p.next("> "); err != nil {
				return err
			}
		}
		above := int32(-1)
		if len(dirs) > 0 {
			above = dirs[len(dirs)-1]
		}
		names.add(above, base(e.Path))
		m.entries = append(m.entries, e)
		if e.Kind == Dir {
			dirs = append(dirs, int32(i))
		}
	}
	if m.IsFile() {
		switch e := &m.entries[0]; {
		case e.Kind != File:
			return p.errorf("entry 0", "the share is one file, but its entry is a %s", e.Kind)
		case e.Path != m.name:
			return p.errorf("entry 0", "%w", &PathError{e.Path, "is not the name of the share, which is one file"})
		}
	}
	if size != m.size {
		return p.errorf("size", "the files have %d bytes together, the share says %d", size, m.size)
	}
	if a, b, ok := names.collision(m.entries); ok {
		p.line = firstLine + b + countLinks(m.entries[:b])
		return p.errorf(subject{"entry", b}.String(), "%w", &PathError{m.entries[b].Path, "would collide on some systems with " + quote(m.entries[a].Path)})
	}
	names = nil
	if links := newLinkResolver(m.entries); links != nil {
		for i := range m.entries {
			e := &m.entries[i]
			if e.Kind != Symlink {
				continue
			}
			if why := links.check(e.Path); why != "" {
				p.line = firstLine + i + countLinks(m.entries[:i])
				return p.errorf(subject{"entry", i}.String(), "%w", &PathError{e.Path, why})
			}
		}
	}
	m.files = make([]int32, 0, numFiles)
	for i := range m.entries {
		if m.entries[i].Size > 0 {
			m.files = append(m.files, int32(i))
		}
	}
	return nil
}

func countLinks(entries []Entry) (n int) {
	for i := range entries {
		if entries[i].Kind == Symlink {
			n++
		}
	}
	return n
}

// checkPath checks the path of entry i against the rules, the entry before it and
// the directories that are open, and returns the directories above it.
func (p *parser) checkPath(i int, e *Entry, dirs []int32) ([]int32, error) {
	m := p.m
	fail := func(why string) ([]int32, error) {
		return nil, p.errorf(subject{"entry", i}.String(), "%w", &PathError{e.Path, why})
	}
	if e.Path == "" {
		return fail("is empty")
	}
	if len(e.Path) > MaxPath {
		return fail(fmt.Sprintf("has %d bytes, the limit of a path is %d", len(e.Path), MaxPath))
	}
	if e.Path[0] == '/' {
		return fail("is absolute")
	}
	if e.Path[len(e.Path)-1] == '/' {
		return fail("ends in a slash")
	}
	if i > 0 {
		before := &m.entries[i-1]
		switch c := ComparePaths(before.Path, e.Path); {
		case c == 0:
			return fail(fmt.Sprintf("is a duplicate path, of the entries %d and %d", i-1, i))
		case c > 0:
			return fail("comes out of order behind " + quote(before.Path))
		}
		if before.Kind != Dir && len(e.Path) > len(before.Path) && e.Path[len(before.Path)] == '/' && e.Path[:len(before.Path)] == before.Path {
			return fail(fmt.Sprintf("conflicts with %s: a file and a directory of one name", quote(before.Path)))
		}
	}
	name := e.Path
	for j := len(dirs); ; j-- {
		if j == 0 {
			dirs = dirs[:0]
			break
		}
		if dir := m.entries[dirs[j-1]].Path; len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir {
			dirs, name = dirs[:j], name[len(dir)+1:]
			break
		}
	}
	if slash := strings.IndexByte(name, '/'); slash >= 0 {
		// Say what is wrong with the component rather than that no directory has it.
		if why := checkName(name[:slash]); why != "" {
			return fail(fmt.Sprintf("has a part %s that %s", quote(name[:slash]), why))
		}
		return fail("is in a directory that is not listed before it")
	}
	why := checkName(name)
	if why == "" && len(dirs) == 0 {
		why = checkFirst(name)
	}
	if why != "" {
		return fail(why)
	}
	if len(dirs)+1 > MaxDepth {
		return fail(fmt.Sprintf("has more than %d parts", MaxDepth))
	}
	return dirs, nil
}

// chunks reads n chunks and checks that they cut the segments as the cutter may.
func (p *parser) chunks(n int) error {
	m := p.m
	least, most := int64(0), int64(0)
	for seg := range m.segments() {
		length := seg.end - seg.start
		least += ceilDiv(length, int64(m.cutter.Max()))
		most += ceilDiv(length, int64(m.cutter.Min()))
	}
	if int64(n) < least || int64(n) > most {
		want := strconv.FormatInt(least, 10)
		if most != least {
			want += " to " + strconv.FormatInt(most, 10)
		}
		return p.errorf("chunks", "the share says %d, its files need %s", n, want)
	}
	m.offsets = make([]int64, 1, n+1)
	m.hashes = make([]chunk.Hash, 0, n)
	off := int64(0)
	i := 0
	for seg := range m.segments() {
		for off < seg.end {
			what := subject{"chunk", i}
			if i == n {
				return p.errorf(what.String(), "missing: %d bytes of the files are in no chunk", m.size-off)
			}
			line, err := p.next("")
			if err != nil {
				return err
			}
			s, hash, ok := strings.Cut(line, " ")
			if !ok {
				return p.errorf(what.String(), "want a length and a hash, found %s", quote(line))
			}
			length, err := p.number("length", what, s, int64(m.cutter.Max()))
			if err != nil {
				return err
			}
			// Only the end of a segment may cut a chunk short.
			if left := seg.end - off; length == 0 || length > left || length < left && length < int64(m.cutter.Min()) {
				return p.errorf(what.of("length"), "%d is not what %q cuts from the %s left of this segment", length, m.cutter, count(left, "byte"))
			}
			h, err := chunk.ParseHash(hash)
			if err != nil {
				return &SyntaxError{p.line, what.of("hash"), err}
			}
			off += length
			m.offsets = append(m.offsets, off)
			m.hashes = append(m.hashes, h)
			m.maxLen = max(m.maxLen, int(length))
			i++
		}
	}
	if i != n {
		return p.errorf("chunks", "%d fill the files, the share says %d", i, n)
	}
	return nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// A segment is a part of the stream that is cut on its own: one file of at least
// the nominal chunk size, or a run of smaller ones.
type segment struct {
	start, end  int64 // in the stream
	first, last int   // index in m.files of the first file, and of the one behind the last
}

// segments yields the segments of the stream in order.
func (m *Manifest) segments() func(yield func(segment) bool) {
	return segmentsOf(len(m.files), int64(m.cutter.Size()), func(k int) int64 { return m.entries[m.files[k]].Size })
}

// segmentsOf yields the segments of n files with content, whose sizes are size(k).
func segmentsOf(n int, nominal int64, size func(k int) int64) func(yield func(segment) bool) {
	return func(yield func(segment) bool) {
		var run segment
		for k := range n {
			s := size(k)
			if s < nominal {
				run.end += s
				run.last = k + 1
				continue
			}
			if run.end > run.start && !yield(run) {
				return
			}
			if !yield(segment{run.end, run.end + s, k, k + 1}) {
				return
			}
			run = segment{run.end + s, run.end + s, k + 1, k + 1}
		}
		if run.end > run.start {
			yield(run)
		}
	}
}

// A nameSet finds names that are equal after folding in one directory. It keeps
// 16 bytes a name, and does not let the author of a manifest choose collisions.
type nameSet struct {
	seed maphash.Seed
	sums []nameSum
	fold folding
	buf  []byte
}

type nameSum struct {
	sum   uint64
	dir   int32
	entry int32
}

func newNameSet(n int) *nameSet {
	return &nameSet{seed: maphash.MakeSeed(), sums: make([]nameSum, 0, n)}
}

// add adds the name of the next entry, which is in directory dir (-1: the top).
func (s *nameSet) add(dir int32, name string) {
	s.buf = append(s.buf[:0], byte(dir), byte(dir>>8), byte(dir>>16), byte(dir>>24))
	s.buf = s.fold.append(s.buf, name)
	s.sums = append(s.sums, nameSum{maphash.Bytes(s.seed, s.buf), dir, int32(len(s.sums))})
}

// collision returns the first two entries a < b whose names collide, if any do.
func (s *nameSet) collision(entries []Entry) (a, b int, ok bool) {
	slices.SortFunc(s.sums, func(x, y nameSum) int {
		switch {
		case x.sum < y.sum:
			return -1
		case x.sum > y.sum:
			return 1
		}
		return int(x.entry) - int(y.entry)
	})
	for i := 1; i < len(s.sums); i++ {
		for j := i; j > 0 && s.sums[j-1].sum == s.sums[i].sum; j-- {
			x, y := s.sums[j-1], s.sums[i]
			if x.dir != y.dir || fold(base(entries[x.entry].Path)) != fold(base(entries[y.entry].Path)) {
				continue // two names with one sum
			}
			if !ok || int(y.entry) < b {
				a, b, ok = int(x.entry), int(y.entry), true
			}
			break
		}
	}
	return a, b, ok
}

// pathErrorIn returns the *PathError in the chain of err, or err itself.
func pathErrorIn(err error) error {
	var pe *PathError
	if errors.As(err, &pe) {
		return pe
	}
	return err
}
