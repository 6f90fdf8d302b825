// Package manifest lists what a share holds: its entries (files, directories,
// symbolic links) and the chunks of their contents. A manifest is a text that a
// person can read, and the hash of this text, its root, names the share. SPEC.md
// defines the text, the tickets that carry a root, and how files are cut.
//
// Parse reads a manifest that somebody else made and refuses whatever could do
// harm; Build makes one from files; Verify compares files with one.
package manifest

import (
	"io/fs"
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// Limits of a manifest (SPEC.md, "Limits"). Parse checks each on the number that
// the text states, before it allocates anything for it.
const (
	MaxText    = 64 << 20  // bytes of text
	MaxEntries = 1_000_000 // entries
	MaxSize    = 16 << 40  // bytes of all files together
	MaxPath    = 4096      // bytes of a path, and of a link's target
	MaxName    = 240       // bytes of one component of a path
	MaxDepth   = 64        // components of a path
	MaxWeb     = 8         // URLs of web servers
	MaxURL     = 1024      // bytes of one
)

// A Kind is what an entry is.
type Kind uint8

const (
	File    Kind = iota // a regular file
	Dir                 // a directory
	Symlink             // a symbolic link
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "link"
	}
	return "unknown kind"
}

// An Entry is a file, a directory or a symbolic link of a share. Its strings are
// parts of the manifest's text.
type Entry struct {
	Path   string      // relative to the share's top, components separated by '/'
	Target string      // of a Symlink, as it is given to the system
	Size   int64       // of a File, in bytes; else 0
	Offset int64       // in the stream: where a File's content begins, or for others the next file's
	Sec    int64       // modification time in seconds since 1970, 0 to MaxSec; a Symlink has none
	Nsec   uint32      // and nanoseconds
	Mode   fs.FileMode // permission bits (0777) only; a Symlink has none
	Kind   Kind
}

// MaxSec is the last second of the year 9999, the latest time an entry can have.
const MaxSec = 253402300799

// ModTime returns the modification time of a File or a Dir.
func (e *Entry) ModTime() time.Time { return time.Unix(e.Sec, int64(e.Nsec)) }

// An Extent is a part of one file that lies in a chunk.
type Extent struct {
	Entry int   // index in Entries
	Off   int64 // of the part in the file, in bytes
	Len   int   // of the part in bytes, at least 1
}

// A Manifest lists the entries and chunks of a share. It never changes, so any
// number of goroutines may use it. Methods that take an index panic if it is out
// of range.
type Manifest struct {
	text    string
	root    chunk.Hash
	name    string
	top     Entry // mode and time of the top directory; Kind File for a share of one file
	web     []string
	cutter  chunk.Cutter
	size    int64
	entries []Entry
	files   []int32      // entries with content, in order
	offsets []int64      // of the chunks in the stream, and the size behind the last
	hashes  []chunk.Hash // of the chunks
	maxLen  int
}

// Text returns the manifest's text, which Parse reads.
func (m *Manifest) Text() string { return m.text }

// Root returns the hash of the text, which names the share.
func (m *Manifest) Root() chunk.Hash { return m.root }

// Name returns the share's name: one path component that CheckName allows.
func (m *Manifest) Name() string { return m.name }

// IsFile reports whether the share is one file instead of a directory. It then has
// exactly one entry, whose path is the share's name.
func (m *Manifest) IsFile() bool { return m.top.Kind == File }

// Top returns the permission bits and the modification time of the directory that
// the share is. For a single file they are those of the file.
func (m *Manifest) Top() (mode fs.FileMode, mtime time.Time) {
	if m.IsFile() {
		return m.entries[0].Mode, m.entries[0].ModTime()
	}
	return m.top.Mode, m.top.ModTime()
}

// Web returns the URLs at which web servers have the files of the share, as who
// made the manifest says, in order: hints only. The slice must not be changed.
func (m *Manifest) Web() []string { return m.web }

// Cutter returns the cutter that made the chunks.
func (m *Manifest) Cutter() chunk.Cutter { return m.cutter }

// Size returns the length of the stream: the bytes of all files together.
func (m *Manifest) Size() int64 { return m.size }

// NumChunks returns the number of chunks; it is 0 if no file has content.
func (m *Manifest) NumChunks() int { return len(m.hashes) }

// ChunkLen returns the length of chunk i in bytes, from 1 to MaxChunkLen.
func (m *Manifest) ChunkLen(i int) int { return int(m.offsets[i+1] - m.offsets[i]) }

// ChunkOffset returns where chunk i begins in the stream, in bytes. i may be
// NumChunks, which gives Size.
func (m *Manifest) ChunkOffset(i int) int64 { return m.offsets[i] }

// ChunkHash returns the hash of chunk i.
func (m *Manifest) ChunkHash(i int) chunk.Hash { return m.hashes[i] }

// MaxChunkLen returns the length of the longest chunk in bytes; 0 if there are none.
func (m *Manifest) MaxChunkLen() int { return m.maxLen }

// Entries returns all entries in order: sorted by path, component by component,
// each directory before what is in it. The slice must not be changed.
func (m *Manifest) Entries() []Entry { return m.entries }

// Extents yields the parts of files that make up chunk i, in the order of the
// stream. It allocates nothing and needs a binary search to begin.
func (m *Manifest) Extents(i int) iter.Seq[Extent] {
	return func(yield func(Extent) bool) { m.extents(i, yield) }
}

func (m *Manifest) extents(i int, yield func(Extent) bool) {
	off, end := m.offsets[i], m.offsets[i+1]
	for _, f := range m.files[m.fileAt(off):] {
		e := &m.entries[f]
		n := min(end, e.Offset+e.Size) - off
		if !yield(Extent{Entry: int(f), Off: off - e.Offset, Len: int(n)}) {
			return
		}
		if off += n; off == end {
			return
		}
	}
}

// fileAt returns the index in m.files of the file that holds the byte at off.
func (m *Manifest) fileAt(off int64) int {
	return sort.Search(len(m.files), func(k int) bool {
		e := &m.entries[m.files[k]]
		return e.Offset+e.Size > off
	})
}

// Chunks returns the chunks [first, end) that hold content of an entry; first and
// end are equal if it has none. The first and the last may also hold content of
// other files.
func (m *Manifest) Chunks(entry int) (first, end int) {
	e := &m.entries[entry]
	first = m.chunkAt(e.Offset)
	if e.Size == 0 {
		return first, first
	}
	return first, m.chunkAt(e.Offset+e.Size-1) + 1
}

// chunkAt returns the chunk that holds the byte of the stream at off; at the end of
// the stream it is NumChunks.
func (m *Manifest) chunkAt(off int64) int {
	i, found := slices.BinarySearch(m.offsets, off)
	if !found {
		i--
	}
	return i
}

// CheckPortable reports, as a *PathError, the first entry (or the share's name)
// that Windows or macOS would refuse or change, or whose link Windows would take
// for something else. It returns nil if there is none.
func (m *Manifest) CheckPortable() error {
	if err := CheckPortableName(m.name); err != nil {
		return err
	}
	for i := range m.entries {
		e := &m.entries[i]
		// Parents come first, so the last component is the only new one.
		if why := checkPortable(base(e.Path)); why != "" {
			return &PathError{e.Path, why}
		}
		if e.Kind == Symlink {
			if why := checkPortableTarget(e.Target); why != "" {
				return &PathError{e.Path, why}
			}
		}
	}
	return nil
}
