package manifest

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
)

// DefaultCutter is the kind of cutter that Build uses when it is not told.
// Content-defined cutting takes twice the time for a large file that lies in the
// system's cache, and a third more for a tree of sources; a tenth would be worth it.
const DefaultCutter = chunk.Fixed

// A Cache keeps hashes between builds, so that an unchanged file need not be read
// again. Keys say all that decides a value; a value that is lost, or not the one
// that was put, costs time at most, unless somebody forges it: it belongs into a
// file that only its user can write. Get is called from several goroutines at once.
type Cache interface {
	Get(key chunk.Hash) (value []byte, ok bool)
	Put(key chunk.Hash, value []byte)
}

// BuildOptions are how Build makes a manifest. The zero value is the common case.
type BuildOptions struct {
	Name      string   // of the share; "" takes it from the paths
	Cutter    string   // kind of cutter; "" is DefaultCutter
	ChunkSize int      // nominal size in bytes; 0 is from the size of the share
	Exclude   []string // globs of what is left out, as in Manifest.Select
	Strict    bool     // fail at what cannot be shared, instead of leaving it out
	AnyName   bool     // allow names that Windows or macOS refuse
	Cache     Cache    // nil is none
	Rehash    bool     // do not believe the cache, but fill it
	Workers   int      // goroutines that read and hash; 0 is GOMAXPROCS
	Web       []string // URLs at which web servers have the files; see CheckWeb

	// Progress is told at times how many bytes of all are hashed or known, and once
	// at the end; Skipped of each path that is left out, and why (Exclude apart).
	// Both are called from the goroutine that called Build.
	Progress func(done, total int64)
	Skipped  func(path, why string)
}

// A Source says where the files of a manifest lie on this machine.
type Source struct {
	Manifest *Manifest
	Files    []SourceFile    // one for each entry of Kind File, in order
	Hashed   *chunk.Bitfield // chunks that were read and hashed in this run, not taken from the cache
}

// A SourceFile is a file as it was when it was listed, and still was when it had
// been hashed.
type SourceFile struct {
	Path string // absolute, in the form of the operating system
	Stat Stat
}

// Build makes the manifest of the files and directories at paths. One path is a
// share of its own; several are the top-level entries of one directory. Links that
// paths are themselves are followed, others are entries. What cannot be shared is
// left out: special files, what cannot be read, links that lead out of the share,
// names that CheckName refuses.
//
// The same tree gives the same manifest on every machine. Build reads each byte
// once, with all workers at once, and keeps in memory little more than the
// manifest. Names that collide or, without AnyName, are not portable, are a
// *PathError; a file that changes meanwhile is a *ChangedError; what is over a
// limit has ErrTooLarge in its chain.
func Build(ctx context.Context, paths []string, o BuildOptions) (*Manifest, *Source, error) {
	var err error
	if o.Web, err = sortedWeb(o.Web); err != nil {
		return nil, nil, fmt.Errorf("web server: %w", err)
	}
	w := &walker{ctx: ctx, o: &o}
	name, top, err := w.list(paths)
	if err != nil {
		return nil, nil, err
	}
	if o.Name != "" {
		name = o.Name
	}
	if err := CheckName(name); err != nil {
		return nil, nil, err
	}
	if !o.AnyName {
		if err := CheckPortableName(name); err != nil {
			return nil, nil, err
		}
	}
	if err := w.dropLinks(); err != nil {
		return nil, nil, err
	}
	if err := w.checkNames(); err != nil {
		return nil, nil, err
	}

	total := int64(0)
	s, entries := w.stream()
	total = s.offsets[len(s.offsets)-1]
	if total > MaxSize {
		return nil, nil, fmt.Errorf("share of more than %d bytes: %w", int64(MaxSize), ErrTooLarge)
	}
	cutter, err := w.cutter()
	if err != nil {
		return nil, nil, err
	}
	h := &hashing{
		ctx: ctx, s: s, entries: entries, b: w,
		cutter: cutter, fixed: cutter.Min() == cutter.Max(),
		cache: o.Cache, rehash: o.Rehash,
	}
	h.plan(w.segments(cutter.Size()))
	if n := w.textLen() + h.leastChunkText(); n > MaxText {
		return nil, nil, fmt.Errorf("manifest of at least %d bytes, the limit is %d: %w", n, MaxText, ErrTooLarge)
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if !h.fixed {
		// Each worker of a content-defined cutter holds a longest chunk.
		workers = max(1, min(workers, maxCutBuffers/cutter.Max()))
	}
	var progress func(done int64)
	if o.Progress != nil {
		progress = func(done int64) { o.Progress(done, total) }
	}
	if err := h.run(workers, progress); err != nil {
		return nil, nil, fmt.Errorf("hash: %w", err)
	}
	if o.Progress != nil {
		o.Progress(total, total)
	}
	if h.cache != nil {
		h.store()
	}
	text, hashed, err := h.text(name, top, total)
	if err != nil {
		return nil, nil, err
	}
	files := w.files
	// A large share needs the room: its entries are listed anew in the same place.
	room := w.entries
	w.entries, h = nil, nil
	hasher := chunk.NewHasher()
	hasher.WriteString(text)
	root := hasher.Sum()
	hasher.Release()
	m, err := parse(text, root, room)
	if err != nil {
		return nil, nil, pathErrorIn(err)
	}
	return m, &Source{Manifest: m, Files: files, Hashed: hashed}, nil
}

const maxCutBuffers = 64 << 20

// stream returns the contents of the files, and the entry of each.
func (w *walker) stream() (*stream, []int32) {
	n := 0
	for i := range w.files {
		if w.files[i].Stat.Size > 0 {
			n++
		}
	}
	s := &stream{offsets: make([]int64, 1, n+1)}
	entries := make([]int32, 0, n)
	sources := make([]int32, 0, n)
	off, file := int64(0), int32(0)
	for i := range w.entries {
		if w.entries[i].Kind != File {
			continue
		}
		if size := w.entries[i].Size; size > 0 {
			if off += size; off < 0 || off > MaxSize {
				off = MaxSize + 1 // the caller refuses it
			}
			s.offsets = append(s.offsets, off)
			entries = append(entries, int32(i))
			sources = append(sources, file)
		}
		file++
	}
	files := w.files
	s.path = func(k int) string { return files[sources[k]].Path }
	s.stat = func(k int) (Stat, bool) { return files[sources[k]].Stat, true }
	return s, entries
}

// textLen returns the length of the lines of the entries.
func (w *walker) textLen() (n int) {
	line := make([]byte, 0, 2*MaxPath)
	for i := range w.entries {
		line = appendEntry(line[:0], &w.entries[i])
		n += len(line)
	}
	return n
}

// leastChunkText returns the length of the lines of the chunks, or for a
// content-defined cutter, which is not known before, a number that is not larger.
func (h *hashing) leastChunkText() (n int) {
	lines := func(num, length int64) {
		n += int(num) * (minChunkLine - 1 + len(strconv.FormatInt(length, 10)))
	}
	longest := int64(h.cutter.Max())
	for i := range h.units {
		u := &h.units[i]
		length := u.end - u.start
		switch rest := length % longest; {
		case !h.fixed:
			n += int(ceilDiv(length, longest)) * minChunkLine
		case rest > 0:
			lines(1, rest)
			fallthrough
		default:
			lines(length/longest, longest)
		}
	}
	return n
}

// text returns the manifest, and the chunks that are not from the cache.
func (h *hashing) text(name string, top Entry, size int64) (string, *chunk.Bitfield, error) {
	n, err := h.numChunks()
	if err != nil {
		return "", nil, err
	}
	hashed := chunk.NewBitfield(n)
	var b strings.Builder
	b.Grow(min(MaxText, 2*MaxName+h.b.textLen()+n*(minChunkLine-1+len("16777216"))))
	line := make([]byte, 0, 2*MaxPath)
	line = append(line, magic+" 1\nname "...)
	line = append(line, name...)
	if top.Kind == File {
		line = append(line, "\ntop file"...)
	} else {
		line = append(line, "\ntop dir "...)
		line = appendModeTime(line, &top)
	}
	for _, u := range h.b.o.Web {
		line = append(line, "\nweb "...)
		line = append(line, u...)
	}
	line = fmt.Appendf(line, "\ncutter %s\nsize %d\nentries %d\nchunks %d\n", h.cutter, size, len(h.b.entries), n)
	b.Write(line)
	for i := range h.b.entries {
		e := &h.b.entries[i]
		line = appendEntry(line[:0], e)
		if b.Len()+len(line) > MaxText {
			return "", nil, fmt.Errorf("manifest of more than %d bytes: %w", MaxText, ErrTooLarge)
		}
		b.Write(line)
	}
	i := 0
	err = h.chunks(func(length int64, hash chunk.Hash, isNew bool) error {
		line = strconv.AppendInt(line[:0], length, 10)
		line = append(line, ' ')
		line, _ = hash.AppendText(line)
		line = append(line, '\n')
		if b.Len()+len(line) > MaxText {
			return fmt.Errorf("manifest of more than %d bytes: %w", MaxText, ErrTooLarge)
		}
		b.Write(line)
		if isNew {
			hashed.Set(i)
		}
		i++
		return nil
	})
	return b.String(), hashed, err
}

// appendEntry appends the lines of an entry.
func appendEntry(b []byte, e *Entry) []byte {
	b = append(b, e.Kind.String()...)
	b = append(b, ' ')
	if e.Kind == Symlink {
		b = append(b, e.Path...)
		b = append(b, "\n> "...)
		b = append(b, e.Target...)
		return append(b, '\n')
	}
	b = appendModeTime(b, e)
	b = append(b, ' ')
	if e.Kind == File {
		b = strconv.AppendInt(b, e.Size, 10)
		b = append(b, ' ')
	}
	b = append(b, e.Path...)
	return append(b, '\n')
}

// appendModeTime appends "0644 1700000000.123456789".
func appendModeTime(b []byte, e *Entry) []byte {
	b = append(b, '0', '0'+byte(e.Mode>>6&7), '0'+byte(e.Mode>>3&7), '0'+byte(e.Mode&7), ' ')
	b = strconv.AppendInt(b, e.Sec, 10)
	b = append(b, '.')
	nsec := strconv.AppendInt(make([]byte, 0, 10), int64(e.Nsec)+1e9, 10)
	return append(b, nsec[1:]...)
}
