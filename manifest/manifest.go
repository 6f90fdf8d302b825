// Package manifest lists the entries and the chunks of a share, as the text whose
// hash names it. SPEC.md is the format.
package manifest

import (
	"context"
	"io/fs"
	"iter"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
)

// A Kind is what an entry is.
type Kind uint8

const (
	File Kind = iota
	Dir
	Symlink
)

func (k Kind) String() string { return [...]string{"file", "dir", "link"}[k] }

// An Entry is a file, a directory or a symbolic link of a share.
type Entry struct {
	Path   string // relative to the share's top, separated by '/'
	Target string // of a Symlink
	Size   int64  // of a File, in bytes
	Offset int64  // of a File's first byte in the stream
	sec    int64
	nsec   uint32
	Mode   fs.FileMode // permission bits only; 0 for a Symlink
	Kind   Kind
}

// ModTime returns the modification time.
func (e *Entry) ModTime() time.Time { return time.Unix(e.sec, int64(e.nsec)) }

// An Extent is a part of one file.
type Extent struct {
	Entry int   // index in Entries
	Off   int64 // in the file
	Len   int
}

// A Manifest is not changed after Parse or Build: any goroutine may use it.
type Manifest struct{ text string }

func Parse(text []byte) (*Manifest, error)                   { panic("todo") }
func (m *Manifest) Text() string                             { return m.text }
func (m *Manifest) Root() chunk.Hash                         { panic("todo") }
func (m *Manifest) Name() string                             { panic("todo") }
func (m *Manifest) IsFile() bool                             { panic("todo") }
func (m *Manifest) Top() (mode fs.FileMode, mtime time.Time) { panic("todo") }
func (m *Manifest) Cutter() chunk.Cutter                     { panic("todo") }
func (m *Manifest) Size() int64                              { panic("todo") }
func (m *Manifest) NumChunks() int                           { panic("todo") }
func (m *Manifest) ChunkLen(i int) int                       { panic("todo") }
func (m *Manifest) ChunkOffset(i int) int64                  { panic("todo") }
func (m *Manifest) ChunkHash(i int) chunk.Hash               { panic("todo") }
func (m *Manifest) MaxChunkLen() int                         { panic("todo") }
func (m *Manifest) Entries() []Entry                         { panic("todo") }
func (m *Manifest) Extents(i int) iter.Seq[Extent]           { panic("todo") }
func (m *Manifest) Chunks(entry int) (first, end int)        { panic("todo") }
func (m *Manifest) CheckPortable() error                     { panic("todo") }

// A Selection is a part of a share; nil is all of it.
type Selection struct {
	Entries, Chunks *chunk.Bitfield
	NumFiles        int
	Size            int64
}

func (m *Manifest) Select(only, exclude []string) (*Selection, error) { panic("todo") }

// CheckName checks one path component.
func CheckName(name string) error { panic("todo") }

// A Ticket is what one user gives another.
type Ticket struct {
	Root  chunk.Hash
	Addrs []string // host:port
}

func ParseTicket(s string) (Ticket, error) { panic("todo") }
func (t Ticket) String() string            { panic("todo") }

// CheckAddr reports whether a ticket can carry addr.
func CheckAddr(addr string) error { panic("todo") }

// A Cache keeps hashes of segments between builds. Its methods are called from
// several goroutines at once.
type Cache interface {
	Get(key chunk.Hash) (value []byte, ok bool)
	Put(key chunk.Hash, value []byte)
}

type BuildOptions struct {
	Name            string
	Cutter          string // kind; "" is the default
	ChunkSize       int    // 0: from the share's size
	Exclude         []string
	Strict, AnyName bool
	Cache           Cache
	Rehash          bool
	Workers         int
	Progress        func(done, total int64)
	Skipped         func(path, why string)
}

func Build(ctx context.Context, paths []string, o BuildOptions) (*Manifest, *Source, error) {
	panic("todo")
}

// A Source says where the files of a manifest lie on this machine.
type Source struct {
	Manifest *Manifest
	Files    []SourceFile    // one for each entry of kind File, in order
	Hashed   *chunk.Bitfield // chunks read and hashed in this run, not from the cache
}

// A SourceFile is a file as it was when it was hashed.
type SourceFile struct {
	Path string // in the form of the operating system
	Stat Stat
}

// A Stat tells whether a file is still the same.
type Stat struct {
	Size, MTime, CTime int64 // bytes; ns since 1970 (CTime 0 where there is none)
	Dev, Ino           uint64
}

func StatOf(fi fs.FileInfo) Stat { panic("todo") }

// A DiffKind is how an entry on disk differs from the manifest.
type DiffKind uint8

const (
	Missing      DiffKind = iota // not there
	WrongType                    // file, directory or link where another is expected
	WrongSize                    // of a file
	WrongContent                 // a chunk's hash differs
	Unchecked                    // a chunk could not be checked, as one of its files is missing or unreadable
	WrongTarget                  // of a link
	WrongMode                    // permission bits; not an integrity failure
	WrongTime                    // not an integrity failure
	Extra                        // on disk, not in the manifest; not a failure
)

// A Difference is what Verify found.
type Difference struct {
	Kind  DiffKind
	Path  string // slash-separated, relative to the share's top
	Entry int    // -1 for Extra
	Chunk int    // of Content and Unchecked, else -1
	Num   int    // files that the chunk holds, from Entry on
	Err   error
	Why   string
}

func (d Difference) String() string { panic("todo") }

// Failed reports whether the difference means that content is not what the manifest says.
func (d Difference) Failed() bool { panic("todo") }

func Verify(ctx context.Context, m *Manifest, sel *Selection, dir string, report func(Difference)) error {
	panic("todo")
}

// A PathError reports a name that the path policy refuses.
type PathError struct{ Path, Why string }

func (e *PathError) Error() string { panic("todo") }

// A ChangedError reports a source file that is no longer what was hashed.
type ChangedError struct{ Path string }

func (e *ChangedError) Error() string { return "" }

// A SyntaxError reports a text that is not a manifest.
type SyntaxError struct {
	Line int
	Why  string
}

func (e *SyntaxError) Error() string { return "" }

var (
	ErrVersion  error
	ErrTooLarge error
)
