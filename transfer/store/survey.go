package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// Existing says what becomes of a file that lies where one of the share belongs,
// and has other content. One with the same content is always kept as it is.
type Existing uint8

const (
	Refuse    Existing = iota // a CollisionError, before anything is changed
	Overwrite                 // it is replaced, in one step
	Rename                    // it stays, and the share's file becomes NAME.1
	Skip                      // it stays, and the share's file is not fetched
)

// A CollisionError reports files that lie where others of the share belong, and
// have other content.
type CollisionError struct {
	Dir   string   // the share's place
	Paths []string // some of them, from there
	Num   int      // all of them
}

func (e *CollisionError) Error() string {
	var b strings.Builder
	for i, p := range e.Paths {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(filepath.Join(e.Dir, filepath.FromSlash(p))))
	}
	if n := e.Num - len(e.Paths); n > 0 {
		fmt.Fprintf(&b, " and %d more", n)
	}
	if e.Num == 1 {
		return b.String() + " exists already, with other content"
	}
	return b.String() + " exist already, with other content"
}

// maxNamed bounds the names in a CollisionError.
const maxNamed = 3

// A BlockedError reports something at the place of an entry that is not of its
// kind, such as a directory or a link where a file belongs. It is never replaced.
type BlockedError struct {
	Path    string
	Why     string
	Mounted bool // it is on another disk than what is around it
}

func (e *BlockedError) Error() string { return quote(e.Path) + " " + e.Why }

// A class is what lies at the place of an entry.
type class uint8

const (
	classAbsent class = iota
	classSame         // what the share has there
	classOther        // other content
	classMaybe        // of the right size; it can only be compared when its chunk is there
	classAside        // other content, and the share's beside it as NAME.1
	numClasses
)

// A Survey is a comparison of a share with what lies at its final place already.
type Survey struct {
	d     Disk
	final string
	m     *manifest.Manifest
	all   *manifest.Selection // what the user has chosen
	how   Existing

	class []class
	print []uint64 // tells whether a file is still the one that was compared; 0 if absent
	need  *manifest.Selection

	placed bool // an earlier run has everything, and was stopped while it gave out names
}

// mergeName is the part's record of a survey.
const mergeName = "merge"

// maxSilent is how many bytes Look reads between two reports.
const maxSilent = 1 << 20

// Look compares the entries of a share, or those that sel chooses, with what lies
// at its final name. It reads only. What an earlier run has compared and nobody
// has touched since is not read again.
func Look(ctx context.Context, d Disk, final string, m *manifest.Manifest, sel *manifest.Selection, how Existing) (*Survey, error) {
	return LookAndTell(ctx, d, final, m, sel, how, nil)
}

// LookAndTell is Look, which may take long. It calls report, unless that is nil,
// as it goes on, with the bytes that were compared and those that are to be.
func LookAndTell(ctx context.Context, d Disk, final string, m *manifest.Manifest, sel *manifest.Selection, how Existing, report func(done, total int64)) (*Survey, error) {
	n := len(m.Entries())
	v := &Survey{d: d, final: final, m: m, all: sel, how: how, class: make([]class, n), print: make([]uint64, n)}
	d.Forget()
	old := v.load()
	if err := v.names(old); err != nil {
		return nil, err
	}
	if err := v.contents(ctx, old, report); err != nil {
		return nil, err
	}
	v.choose(old)
	return v, nil
}

func (v *Survey) chosen(e int) bool { return v.all == nil || v.all.Entries.Has(e) }

// at returns the final name of an entry.
func (v *Survey) at(e int) string {
	if v.m.IsFile() {
		return v.final
	}
	return v.final + "/" + v.m.Entries()[e].Path
}

func (v *Survey) blocked(name, format string, args ...any) error {
	return &BlockedError{Path: filepath.Join(v.d.Path(), filepath.FromSlash(name)), Why: fmt.Sprintf(format, args...)}
}

func (v *Survey) mounted(name, why string) error {
	return &BlockedError{Path: filepath.Join(v.d.Path(), filepath.FromSlash(name)), Why: why, Mounted: true}
}

// names looks at each place once.
func (v *Survey) names(old *Survey) error {
	top, err := v.d.Lstat(v.final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &DiskError{Op: "look at", Path: filepath.Join(v.d.Path(), v.final), Err: err}
	}
	if !v.m.IsFile() && !top.Mode.IsDir() {
		return v.blocked(v.final, "is %s, and the share is a folder", kindOf(top.Mode))
	}
	missing := map[string]bool{}
	for e := range v.m.Entries() {
		x := &v.m.Entries()[e]
		if !v.chosen(e) {
			continue
		}
		if missing[path.Dir(x.Path)] {
			missing[x.Path] = x.Kind == manifest.Dir
			continue
		}
		name := v.at(e)
		i, err := v.d.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing[x.Path] = x.Kind == manifest.Dir
			continue
		case err != nil:
			return &DiskError{Op: "look at", Path: filepath.Join(v.d.Path(), filepath.FromSlash(name)), Err: err}
		}
		v.print[e] = fingerprint(i)
		switch x.Kind {
		case manifest.Dir:
			if !i.Mode.IsDir() {
				return v.blocked(name, "is %s, and the share has a folder there", kindOf(i.Mode))
			}
			if i.Dev != top.Dev {
				return v.mounted(name, "is on another disk than the folder above it; get into it by itself, with --only and -o")
			}
			v.class[e] = classSame
		case manifest.Symlink:
			if i.Mode.Type() != fs.ModeSymlink {
				return v.blocked(name, "is %s, and the share has a symbolic link there", kindOf(i.Mode))
			}
			target, err := v.d.Readlink(name)
			if err != nil {
				return &DiskError{Op: "read", Path: filepath.Join(v.d.Path(), filepath.FromSlash(name)), Err: err}
			}
			v.class[e] = classOther
			if target == x.Target {
				v.class[e] = classSame
			}
		default:
			if !i.Mode.IsRegular() {
				return v.blocked(name, "is %s, and the share has a file there", kindOf(i.Mode))
			}
			switch {
			case i.Size != x.Size:
				v.class[e] = classOther
			case x.Size == 0:
				v.class[e] = classSame
			case old != nil && old.print[e] == v.print[e] && old.class[e] != classAbsent:
				v.class[e] = old.class[e]
			default:
				v.class[e] = classMaybe
			}
		}
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a folder"
	case mode.Type() == fs.ModeSymlink:
		return "a symbolic link"
	}
	return "neither a file nor a folder"
}

// fingerprint is never 0.
func fingerprint(i Info) uint64 {
	var p []byte
	for _, x := range []uint64{uint64(i.Size), uint64(i.MTime), uint64(i.CTime), i.Dev, i.Ino, uint64(i.Mode)} {
		p = binary.LittleEndian.AppendUint64(p, x)
	}
	h := chunk.Sum(p)
	return binary.LittleEndian.Uint64(h[:]) | 1
}

// contents hashes what may be the same and was not compared before.
func (v *Survey) contents(ctx context.Context, old *Survey, report func(done, total int64)) error {
	compared := func(e int) bool { return old != nil && old.print[e] == v.print[e] }
	buf := make([]byte, 256<<10)
	right := chunk.NewBitfield(v.m.NumChunks())
	doubtful, total := chunk.NewBitfield(len(v.class)), int64(0)
	for e, c := range v.class {
		if c == classMaybe && !compared(e) {
			doubtful.Set(e)
			total += v.m.Entries()[e].Size
		}
	}
	done, told := int64(0), int64(-maxSilent)
	for i := range v.m.NumChunks() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if report != nil && done-told >= maxSilent && done < total {
			told = done
			report(done, total)
		}
		worth, whole, files, first := false, true, 0, -1
		for x := range v.m.Extents(i) {
			files++
			first = x.Entry
			if doubtful.Has(x.Entry) { // also if it need not be read any more
				done += int64(x.Len)
			}
			c := v.class[x.Entry]
			worth = worth || c == classMaybe && !compared(x.Entry)
			whole = whole && (c == classMaybe || c == classSame)
		}
		if !worth || !whole {
			continue
		}
		if v.hashes(i, buf, -1, "") {
			right.Set(i)
		} else if files == 1 {
			v.class[first] = classOther // the rest of it need not be read
		}
	}
	for e := range v.m.Entries() {
		if v.class[e] == classMaybe && !compared(e) {
			if first, end := v.m.Chunks(e); hasAll(right, first, end) {
				v.class[e] = classSame
			}
		}
		if v.class[e] == classOther && v.how == Rename && v.aside(e, buf) {
			v.class[e] = classAside
		} else if v.class[e] == classAside && v.how != Rename {
			v.class[e] = classOther
		}
	}
	return ctx.Err()
}

func hasAll(b *chunk.Bitfield, first, end int) bool {
	for i := first; i < end; i++ {
		if !b.Has(i) {
			return false
		}
	}
	return true
}

// hashes reports whether chunk i is right in the files at their final names, or,
// of the entry other, at the name instead.
func (v *Survey) hashes(i int, buf []byte, other int, instead string) bool {
	h := chunk.NewHasher()
	defer h.Release()
	for x := range v.m.Extents(i) {
		name := v.at(x.Entry)
		if x.Entry == other {
			name = instead
		}
		f, err := v.d.OpenFile(name, os.O_RDONLY)
		if err != nil {
			return false
		}
		for off := 0; off < x.Len && err == nil; off += len(buf) {
			p := buf[:min(len(buf), x.Len-off)]
			if err = readFull(f, p, x.Off+int64(off)); err == nil {
				_, err = h.Write(p)
			}
		}
		if errors.Join(err, f.Close()) != nil {
			return false
		}
	}
	return h.Sum() == v.m.ChunkHash(i)
}

// maxAside bounds how many names NAME.1, NAME.2... are tried.
const maxAside = 9999

// asideName returns the k-th name beside that of entry e, or "" if the share has
// an entry of that name.
func (v *Survey) asideName(e, k int) string {
	name := v.at(e) + "." + strconv.Itoa(k)
	if _, taken := v.m.Find(v.m.Entries()[e].Path + "." + strconv.Itoa(k)); taken && !v.m.IsFile() {
		return ""
	}
	return name
}

// aside reports whether what the share has for entry e lies beside its place.
func (v *Survey) aside(e int, buf []byte) bool {
	for k := 1; k <= maxAside; k++ {
		name := v.asideName(e, k)
		if name == "" {
			continue
		}
		i, err := v.d.Lstat(name)
		if err != nil {
			return false
		}
		x := &v.m.Entries()[e]
		if x.Kind == manifest.Symlink {
			if target, err := v.d.Readlink(name); err == nil && target == x.Target {
				return true
			}
			continue
		}
		if !i.Mode.IsRegular() || i.Size != x.Size {
			continue
		}
		first, end := v.m.Chunks(e)
		for first < end && v.hashes(first, buf, e, name) {
			first++
		}
		if first == end {
			return true
		}
	}
	return false
}

// choose finds out what has to be fetched. What an earlier run has chosen is kept
// if it is enough: its journal counts only for the same choice.
func (v *Survey) choose(old *Survey) {
	need := chunk.NewBitfield(len(v.class))
	for e, c := range v.class {
		if v.chosen(e) && (c == classAbsent || c == classMaybe || c == classOther && (v.how == Overwrite || v.how == Rename)) {
			need.Set(e)
		}
	}
	if old != nil {
		enough := true
		for e := range each(need) {
			enough = enough && old.need.Entries.Has(e)
		}
		placing := v.placing()
		if enough && (!need.None() || placing) {
			v.need, v.placed = old.need, placing
			for e := range v.class { // by now some are there that were made then
				if placing && v.m.Entries()[e].Kind == manifest.Dir {
					v.class[e] = old.class[e]
				}
			}
			return
		}
	}
	v.need = v.m.Choose(need)
}

// placing reports whether an earlier run has fetched everything, and was stopped
// while it gave the files their final names.
func (v *Survey) placing() bool {
	i, err := v.d.Lstat(v.final + PartSuffix + "/" + placingName)
	return err == nil && i.Mode.IsRegular()
}

// Selection returns what has to be fetched.
func (v *Survey) Selection() *manifest.Selection { return v.need }

// Complete reports whether nothing has to be fetched, nor placed.
func (v *Survey) Complete() bool { return v.need.Entries.None() }

// Kept returns how many files lie at their place with the share's content, and
// their bytes.
func (v *Survey) Kept() (files int, bytes int64) {
	for e, c := range v.class {
		if x := &v.m.Entries()[e]; x.Kind == manifest.File && v.chosen(e) && (c == classSame || c == classAside) {
			files++
			bytes += x.Size
		}
	}
	return files, bytes
}

// Other returns how many files have other content than the share's.
func (v *Survey) Other() int {
	n, _ := v.count(func(c class) bool { return c == classOther })
	return n
}

// Unsure returns how many files can only be compared when they were fetched.
func (v *Survey) Unsure() int {
	n, _ := v.count(func(c class) bool { return c == classMaybe })
	return n
}

func (v *Survey) count(of func(class) bool) (files int, bytes int64) {
	for e, c := range v.class {
		if x := &v.m.Entries()[e]; x.Kind != manifest.Dir && v.chosen(e) && of(c) {
			files++
			bytes += x.Size
		}
	}
	return files, bytes
}

// Collisions yields the paths of the files that have other content.
func (v *Survey) Collisions(yield func(path string) bool) {
	for e, c := range v.class {
		if c == classOther && v.chosen(e) && !yield(v.path(e)) {
			return
		}
	}
}

// path returns the path of an entry from the share's place; "" for a share that
// is one file.
func (v *Survey) path(e int) string {
	if v.m.IsFile() {
		return ""
	}
	return v.m.Entries()[e].Path
}

// Refused returns a *CollisionError if there are collisions and nothing was said
// about what becomes of them.
func (v *Survey) Refused() error {
	if v.how != Refuse {
		return nil
	}
	c := &CollisionError{Dir: filepath.Join(v.d.Path(), v.final)}
	for p := range v.Collisions {
		c.add(p)
	}
	return c.orNil()
}

func (e *CollisionError) add(path string) {
	if e.Num++; len(e.Paths) < maxNamed {
		e.Paths = append(e.Paths, path)
	}
}

func (e *CollisionError) orNil() error {
	if e.Num == 0 {
		return nil
	}
	return e
}

// The record of a survey is its head, the hash of the share's root and of what the
// user has chosen; a byte and 8 bytes for each entry; a bit for each entry that
// has to be fetched; and the hash of all that (SPEC.md).
const mergeMagic = "shoal-merge 1\n"

func (v *Survey) encode() []byte {
	p := append([]byte(mergeMagic), v.about()...)
	for e := range v.class {
		p = append(p, byte(v.class[e]))
		p = binary.LittleEndian.AppendUint64(p, v.print[e])
	}
	for _, w := range v.need.Entries.Words() {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	h := chunk.Sum(p)
	return append(p, h[:]...)
}

// about returns a hash of what is compared.
func (v *Survey) about() []byte {
	root := v.m.Root()
	p := root[:]
	if v.all != nil {
		for _, w := range v.all.Entries.Words() {
			p = binary.LittleEndian.AppendUint64(p, w)
		}
	}
	h := chunk.Sum(p)
	return h[:]
}

// load returns what an earlier run has recorded, or nil.
func (v *Survey) load() *Survey {
	n := len(v.class)
	words := (n + 63) / 64
	want := len(mergeMagic) + 2*len(chunk.Hash{}) + 9*n + 8*words
	p, err := readFile(v.d, v.final+PartSuffix+"/"+mergeName, int64(want))
	if err != nil || len(p) != want {
		return nil
	}
	body, sum := p[:want-len(chunk.Hash{})], p[want-len(chunk.Hash{}):]
	if h := chunk.Sum(body); string(h[:]) != string(sum) || !strings.HasPrefix(string(body), mergeMagic+string(v.about())) {
		return nil
	}
	body = body[len(mergeMagic)+len(chunk.Hash{}):]
	old := &Survey{class: make([]class, n), print: make([]uint64, n)}
	for e := range n {
		old.class[e], old.print[e] = class(body[0]), binary.LittleEndian.Uint64(body[1:])
		if old.class[e] >= numClasses {
			return nil
		}
		body = body[9:]
	}
	need := chunk.NewBitfield(n)
	for e := range n {
		if body[e/8]&(1<<(e%8)) != 0 {
			need.Set(e)
		}
	}
	old.need = v.m.Choose(need)
	return old
}
