package manifest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"
)

// windowSize is how much is read and hashed at once: larger units fall out of the
// processor's cache between the two, smaller ones cost system calls.
const windowSize = 256 << 10

// windows holds buffers of windowSize. The runtime gives allocations of this size
// whole pages: a copy from the kernel to an odd address would be slower.
var windows = sync.Pool{New: func() any { return new([windowSize]byte) }}

// A stream is the contents of files one behind the other.
type stream struct {
	offsets []int64                  // where the content of file k begins, and the end behind the last
	path    func(k int) string       // of file k, in the form of the operating system
	stat    func(k int) (Stat, bool) // what file k must be, before and after it is read
}

// fileAt returns the file that holds the byte at off.
func (s *stream) fileAt(off int64) int {
	return sort.Search(len(s.offsets)-1, func(k int) bool { return s.offsets[k+1] > off })
}

// A reader reads from a stream, for one goroutine, with one file open at a time.
// Each file's stat is compared before the first and after the last read, so what
// was read is only good once next or close has returned nil.
type reader struct {
	s  *stream
	k  int // the open file, or -1
	f  fileHandle
	at Stat // of f when it was opened
}

func newReader(s *stream) *reader { return &reader{s: s, k: -1, f: noFile} }

// readAt fills p with the bytes of the stream from off on.
func (r *reader) readAt(p []byte, off int64) error {
	k := r.k
	if k < 0 || off < r.s.offsets[k] || off >= r.s.offsets[k+1] {
		k = r.s.fileAt(off)
	}
	for len(p) > 0 {
		if err := r.open(k); err != nil {
			return err
		}
		n := min(int64(len(p)), r.s.offsets[k+1]-off)
		err := r.f.readAt(r.s.path(k), p[:n], off-r.s.offsets[k])
		if err == io.ErrUnexpectedEOF {
			return &ChangedError{r.s.path(k), "it ends early"}
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
		k++
	}
	return nil
}

// open opens file k, after it has closed another one.
func (r *reader) open(k int) error {
	if r.k == k {
		return nil
	}
	if err := r.close(); err != nil {
		return err
	}
	path := r.s.path(k)
	f, err := openFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &ChangedError{path, "it is gone"}
		}
		if fi, lerr := os.Lstat(path); lerr == nil && !fi.Mode().IsRegular() {
			return &ChangedError{path, "it is now a " + typeName(fi.Mode().Type())}
		}
		return err
	}
	i, err := f.stat(path)
	if err == nil && !i.typ.IsRegular() {
		err = &ChangedError{path, "it is now a " + typeName(i.typ)}
	}
	if err == nil {
		if want, ok := r.s.stat(k); ok {
			if why := want.diff(i.stat); why != "" {
				err = &ChangedError{path, why}
			}
		}
	}
	if err != nil {
		f.close()
		return err
	}
	r.k, r.f, r.at = k, f, i.stat
	return nil
}

// close closes the open file, if any, and reports whether it is still what it was
// when it was opened.
func (r *reader) close() error {
	if r.k < 0 {
		return nil
	}
	path := r.s.path(r.k)
	i, err := r.f.stat(path)
	r.f.close()
	r.k, r.f = -1, noFile
	if err != nil {
		return err
	}
	if why := r.at.diff(i.stat); why != "" {
		return &ChangedError{path, why}
	}
	return nil
}

// ReadFileAt fills p with the bytes from off on of the file at path, of which it
// returns the Stat from after that: it is for files that are read once, as it
// opens and closes the file. io.ErrUnexpectedEOF means that the file ends before.
// What is no regular file, or is reached by a link at the end of path, is an error.
func ReadFileAt(path string, p []byte, off int64) (Stat, error) {
	f, err := openFile(path)
	if err != nil {
		return Stat{}, err
	}
	defer f.close()
	if err := f.readAt(path, p, off); err != nil {
		return Stat{}, err
	}
	i, err := f.stat(path)
	if err == nil && !i.typ.IsRegular() {
		err = &ChangedError{path, "it is now a " + typeName(i.typ)}
	}
	return i.stat, err
}
