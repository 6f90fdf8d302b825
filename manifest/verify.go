package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/chunk/crew"
)

// A DiffKind is how something on disk differs from the manifest.
type DiffKind uint8

const (
	Missing      DiffKind = iota // an entry is not there
	WrongType                    // something else is there: a directory for a file, say
	WrongSize                    // a file has another size
	WrongTarget                  // a link leads elsewhere
	WrongContent                 // a chunk has another hash
	Unchecked                    // a chunk could not be checked, as a file of it is missing, too short or unreadable
	Unreadable                   // a file, a directory or a link could not be read
	WrongMode                    // a file or directory has other permission bits
	WrongTime                    // a file or directory has another modification time
	Extra                        // something is on disk that the manifest does not have
)

var diffKinds = [...]string{
	"missing", "wrong type", "wrong size", "wrong target", "wrong content",
	"unchecked", "unreadable", "wrong mode", "wrong time", "extra",
}

func (k DiffKind) String() string {
	if int(k) < len(diffKinds) {
		return diffKinds[k]
	}
	return "unknown kind"
}

// A Difference is one thing that Verify found.
type Difference struct {
	Kind  DiffKind
	Path  string // of the entry in the share; of a chunk, its first file. Escape it before showing it
	Entry int    // its index; -1 for Extra and the top directory
	Chunk int    // of WrongContent and Unchecked; else -1
	Num   int    // files that the chunk holds, from Entry on, when it is more than one
	Why   string // what is there and what should be; may be shown
}

// Failed reports whether the difference means that the share is not intact. Modes,
// times and what else lies in the directory do not: they are only worth a note.
func (d Difference) Failed() bool { return d.Kind < WrongMode }

// String returns the difference as one line that may be shown.
func (d Difference) String() string {
	path := quote(d.Path)
	if d.Path == "" {
		path = "the top directory"
	}
	if d.Chunk >= 0 {
		if d.Num > 1 {
			path += " and " + behind(d.Num-1)
		}
		return fmt.Sprintf("%s: chunk %d %s", path, d.Chunk, d.Why)
	}
	return path + ": " + d.Why
}

// count returns "1 byte", "2 bytes".
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// behind names the other files of a chunk.
func behind(n int) string {
	if n == 1 {
		return "the file behind it"
	}
	return fmt.Sprintf("the %d files behind it", n)
}

// Verify compares dir, which is the share's own directory (or its file), with the
// manifest, or with the part of it that sel chooses. It reads only, follows no
// link beneath dir, and calls report for each difference: first those of entries in
// order, then those of chunks in order, then what is extra. The calls come from one
// goroutine, the one that called Verify.
//
// A chunk that holds several small files can only differ as a whole: its Difference
// names the first of them and their number. A chunk of which a file is missing, or
// ends before it, is Unchecked; the others of a file of another size are compared. Extra is only looked for when sel is nil.
//
// The error is nil if the comparison came to its end, whatever it found.
func Verify(ctx context.Context, m *Manifest, sel *Selection, dir string, report func(Difference)) error {
	return VerifyAndTell(ctx, m, sel, dir, report, func(int64) {})
}

// VerifyAndTell is Verify, which may take long. It calls tell as it goes on, from the
// same goroutine as report, with how many bytes of chunks were compared.
func VerifyAndTell(ctx context.Context, m *Manifest, sel *Selection, dir string, report func(Difference), tell func(done int64)) error {
	v := &verifier{ctx: ctx, m: m, sel: sel, dir: dir, report: report, tell: tell}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if m.IsFile() == fi.IsDir() {
		want := "directory"
		if m.IsFile() {
			want = "file"
		}
		report(Difference{Kind: WrongType, Entry: -1, Chunk: -1, Why: fmt.Sprintf("is a %s, want a %s", typeName(fi.Mode().Type()), want)})
		return nil
	}
	if v.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	v.bad = chunk.NewBitfield(len(m.entries))
	v.sizes = make(map[int]int64)
	v.real = make(map[string]bool)
	for i := range m.entries {
		if sel != nil && !sel.Entries.Has(i) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		v.entry(i)
	}
	if !m.IsFile() {
		v.modeTime(-1, "", fi, m.top.Mode, &m.top)
	}
	if err := v.chunks(); err != nil {
		return err
	}
	if sel == nil && !m.IsFile() {
		return v.extra()
	}
	return nil
}

type verifier struct {
	ctx    context.Context
	m      *Manifest
	sel    *Selection
	dir    string
	report func(Difference)
	tell   func(done int64)
	bad    *chunk.Bitfield // entries whose content cannot be read as it should be
	sizes  map[int]int64   // of those among them that are files and have another size
	real   map[string]bool // directories of the chosen part that are there, and reached without a link
	others sync.Map        // by the path of another directory: whether it is so too
}

func (v *verifier) osPath(e *Entry) string {
	if v.m.IsFile() {
		return v.dir
	}
	return filepath.Join(v.dir, filepath.FromSlash(e.Path))
}

// entry compares all of entry i but its content.
func (v *verifier) entry(i int) {
	e := &v.m.entries[i]
	add := func(kind DiffKind, format string, args ...any) {
		v.bad.Set(i)
		v.report(Difference{Kind: kind, Path: e.Path, Entry: i, Chunk: -1, Why: fmt.Sprintf(format, args...)})
	}
	if dir, _ := parent(e.Path); dir != "" && !v.real[dir] {
		// Beneath a directory that is none, or a link, nothing is the share's.
		add(Missing, "is missing, as its directory is not there")
		return
	}
	fi, err := os.Lstat(v.osPath(e))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		add(Missing, "is missing")
		return
	case err != nil:
		add(Unreadable, "cannot be read: %s", reason(err))
		return
	}
	want := fs.FileMode(0)
	switch e.Kind {
	case Dir:
		want = fs.ModeDir
	case Symlink:
		want = fs.ModeSymlink
	}
	if typ := fi.Mode().Type(); typ != want {
		add(WrongType, "is a %s, want a %s", typeName(typ), typeName(want))
		return
	}
	switch e.Kind {
	case File:
		if fi.Size() != e.Size {
			v.sizes[i] = fi.Size()
			add(WrongSize, "has %s, want %d", count(fi.Size(), "byte"), e.Size)
		}
	case Dir:
		v.real[e.Path] = true
	case Symlink:
		target, err := os.Readlink(v.osPath(e))
		if err != nil {
			add(Unreadable, "cannot be read: %s", reason(err))
		} else if filepath.ToSlash(target) != filepath.ToSlash(e.Target) {
			add(WrongTarget, "leads to %s, want %s", quote(target), quote(e.Target))
		}
		return
	}
	v.modeTime(i, e.Path, fi, e.Mode, e)
}

// modeTime compares permission bits and time.
func (v *verifier) modeTime(i int, path string, fi fs.FileInfo, mode fs.FileMode, e *Entry) {
	// Who fetches keeps what comes readable by its owner (SPEC.md, "Entries").
	readable := mode | 0o400
	if fi.IsDir() {
		readable = mode | 0o700
	}
	if got := fi.Mode().Perm(); got != mode && got != readable && runtime.GOOS != "windows" {
		v.report(Difference{Kind: WrongMode, Path: path, Entry: i, Chunk: -1, Why: fmt.Sprintf("has the mode %04o, the share has %04o", got, mode)})
	}
	if got := fi.ModTime(); !clampTime(got).Equal(e.ModTime()) {
		v.report(Difference{Kind: WrongTime, Path: path, Entry: i, Chunk: -1, Why: fmt.Sprintf("was modified at %s, in the share at %s", got.UTC().Format(timeFormat), e.ModTime().UTC().Format(timeFormat))})
	}
}

const timeFormat = "2006-01-02T15:04:05.999999999Z"

// verifyBatch is how many bytes a worker hashes before it reports.
const verifyBatch = 4 << 20

// A span is some chunks that one worker compares.
type span struct {
	first, end int
	diffs      []Difference
	done       chan struct{}
}

// chunks compares the chunks with several workers, and reports in order.
func (v *verifier) chunks() error {
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	m := v.m
	s := &stream{offsets: make([]int64, 0, len(m.files)+1)}
	for _, f := range m.files {
		s.offsets = append(s.offsets, m.entries[f].Offset)
	}
	s.offsets = append(s.offsets, m.size)
	s.path = func(k int) string { return v.osPath(&m.entries[m.files[k]]) }
	s.stat = func(int) (Stat, bool) { return Stat{}, false }

	workers := runtime.GOMAXPROCS(0)
	todo := make(chan *span)
	order := make(chan *span, 4*workers) // also bounds what waits to be reported
	var wg crew.Crew
	for range workers {
		wg.Go(func() {
			r := newReader(s)
			window := windows.Get().(*[windowSize]byte)
			defer windows.Put(window)
			for sp := range todo {
				v.span(ctx, r, sp, window[:])
				close(sp.done)
			}
		})
	}
	wg.Go(func() {
		defer close(order)
		defer close(todo)
		for i := 0; i < m.NumChunks(); {
			if v.sel != nil && !v.sel.Chunks.Has(i) {
				i++
				continue
			}
			sp := &span{first: i, done: make(chan struct{})}
			for n := 0; i < m.NumChunks() && n < verifyBatch && (v.sel == nil || v.sel.Chunks.Has(i)); i++ {
				n += m.ChunkLen(i)
			}
			sp.end = i
			for _, to := range []chan *span{order, todo} {
				select {
				case to <- sp:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	compared := int64(0)
	for sp := range order {
		select {
		case <-sp.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, d := range sp.diffs {
			v.report(d)
		}
		compared += m.offsets[sp.end] - m.offsets[sp.first]
		v.tell(compared)
	}
	return v.ctx.Err()
}

// span compares the chunks of sp.
func (v *verifier) span(ctx context.Context, r *reader, sp *span, window []byte) {
	for i := sp.first; i < sp.end && ctx.Err() == nil; i++ {
		kind, why := v.chunk(ctx, r, i, window)
		if why == "" {
			continue
		}
		d := Difference{Kind: kind, Entry: -1, Chunk: i, Why: why}
		for x := range v.m.Extents(i) {
			if d.Num++; d.Entry < 0 {
				d.Entry, d.Path = x.Entry, v.m.entries[x.Entry].Path
			}
		}
		sp.diffs = append(sp.diffs, d)
	}
	// A file that changes while it is compared has no right content to speak of.
	k := r.k
	if err := r.close(); err != nil && ctx.Err() == nil {
		entry := int(v.m.files[k])
		sp.diffs = append(sp.diffs, Difference{
			Kind: Unchecked, Path: v.m.entries[entry].Path, Entry: entry,
			Chunk: sp.end - 1, Num: 1, Why: "could not be checked: " + err.Error(),
		})
	}
}

// chunk returns how chunk i differs; why is "" if it does not.
func (v *verifier) chunk(ctx context.Context, r *reader, i int, window []byte) (kind DiffKind, why string) {
	partial := false
	for x := range v.m.Extents(i) {
		e := &v.m.entries[x.Entry]
		if v.sel != nil && !v.sel.Entries.Has(x.Entry) {
			// Files that were not chosen may be missing; if they are there, the chunk can
			// still be checked.
			if dir, _ := parent(e.Path); !v.isReal(dir) {
				return Unchecked, fmt.Sprintf("cannot be checked: %s was not chosen and is not there", quote(e.Path))
			}
			if fi, err := os.Lstat(v.osPath(e)); err != nil || !fi.Mode().IsRegular() || fi.Size() != e.Size {
				return Unchecked, fmt.Sprintf("cannot be checked: %s was not chosen and is not there", quote(e.Path))
			}
			partial = true
			continue
		}
		switch size, other := v.sizes[x.Entry]; {
		case !v.bad.Has(x.Entry):
		case other && x.Off+int64(x.Len) <= size: // what is there may well be right
		case other:
			return Unchecked, fmt.Sprintf("is not whole: %s is too short", quote(e.Path))
		default:
			return Unchecked, fmt.Sprintf("cannot be checked without %s", quote(e.Path))
		}
	}
	hasher := chunk.NewHasher()
	defer hasher.Release()
	for off, end := v.m.offsets[i], v.m.offsets[i+1]; off < end; {
		if ctx.Err() != nil {
			return 0, ""
		}
		p := window[:min(int64(len(window)), end-off)]
		if err := r.readAt(p, off); err != nil {
			if ce := (*ChangedError)(nil); errors.As(err, &ce) {
				return Unchecked, "cannot be checked: " + err.Error()
			}
			return Unchecked, "cannot be read: " + reason(err)
		}
		hasher.Write(p)
		off += int64(len(p))
	}
	if got := hasher.Sum(); got != v.m.hashes[i] {
		if partial {
			return Unchecked, "differs, but some of its files were not chosen"
		}
		return WrongContent, fmt.Sprintf("(%s at %d) differs: its hash is %s, want %s", count(v.m.ChunkLen(i), "byte"), v.m.offsets[i], got, v.m.hashes[i])
	}
	return 0, ""
}

// isReal reports whether dir is a directory that is reached without a link. It may be
// called by several goroutines at once after the entries were compared.
func (v *verifier) isReal(dir string) bool {
	if dir == "" || v.real[dir] {
		return true
	}
	// It was not chosen, so nobody has looked.
	if real, ok := v.others.Load(dir); ok {
		return real.(bool)
	}
	up, _ := parent(dir)
	real := v.isReal(up)
	if real {
		fi, err := os.Lstat(filepath.Join(v.dir, filepath.FromSlash(dir)))
		real = err == nil && fi.IsDir()
	}
	v.others.Store(dir, real)
	return real
}

// extra reports what is on disk but not in the manifest.
func (v *verifier) extra() error {
	return filepath.WalkDir(v.dir, func(osPath string, d fs.DirEntry, err error) error {
		if cerr := v.ctx.Err(); cerr != nil {
			return cerr
		}
		rel, rerr := filepath.Rel(v.dir, osPath)
		if rerr != nil {
			return rerr
		}
		if rel == "." {
			if err != nil {
				v.report(Difference{Kind: Unreadable, Entry: -1, Chunk: -1, Why: "cannot be read: " + reason(err)})
			}
			return nil
		}
		path := filepath.ToSlash(rel)
		if err != nil {
			// What the manifest has was compared already; the rest cannot be seen.
			v.report(Difference{Kind: Extra, Path: path, Entry: -1, Chunk: -1, Why: "cannot be listed: " + reason(err)})
			return nil
		}
		if _, ok := v.m.Find(path); ok {
			return nil
		}
		why := "is not in the share"
		if d.IsDir() {
			why += ", nor is what is in it"
		}
		v.report(Difference{Kind: Extra, Path: path, Entry: -1, Chunk: -1, Why: why})
		if d.IsDir() || strings.HasSuffix(path, "/") {
			return fs.SkipDir
		}
		return nil
	})
}
