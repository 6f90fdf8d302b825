package manifest

import (
	"context"
	"io/fs"

	"github.com/shoal-p2p/shoal/chunk"
)

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
