// Package state keeps what shoal remembers between runs: the hashes of files
// that it has read before, and the list of transfers that are under way.
//
// Both lie in one bbolt file in the state folder. Nothing in it is needed: a
// file that is missing, locked by another process, damaged or on a full disk
// costs time, never a transfer. The file is only ever open for moments, so
// that any number of shoal processes can share it.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bboltErrors "go.etcd.io/bbolt/errors"
)

// FileName is the name of the file in the state folder.
const FileName = "state.db"

// lockTimeout is how long to wait for another process that has the file open.
const lockTimeout = time.Second

var (
	bucketHashes    = []byte("hashes")
	bucketTransfers = []byte("transfers")
)

// ErrBusy is returned while another process has the file open.
var ErrBusy = errors.New("state: in use by another process")

// A Store is the file in one folder. Its methods may be called from any
// goroutine. The zero Store is not ready for use; see [New].
type Store struct {
	dir   string
	warn  func(string)
	limit int64 // bytes of cached hashes

	// mu is held while the file is open: bbolt locks the file, and a process
	// must not wait for its own lock.
	mu sync.Mutex
}

// New returns the store in dir, which is made, for its owner only, when the
// first thing is written. warn is told, in one line, of a damaged file that was
// moved aside; it may be nil.
func New(dir string, warn func(string)) *Store {
	if warn == nil {
		warn = func(string) {}
	}
	return &Store{dir: dir, warn: warn, limit: cacheLimit}
}

// Path returns the name of the file.
func (s *Store) Path() string { return filepath.Join(s.dir, FileName) }

// view calls f in a read-only transaction. It returns nil without calling f if
// there is no file yet.
func (s *Store) view(f func(*bbolt.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fi, err := os.Stat(s.Path()); errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == 0 {
		return nil
	}
	return s.open(true, func(db *bbolt.DB) error { return db.View(f) })
}

// update calls f in a read-write transaction.
func (s *Store) update(f func(*bbolt.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return s.open(false, func(db *bbolt.DB) error { return db.Update(f) })
}

// open opens the file, calls f, and closes it. A damaged file is moved aside,
// so that the next call starts with an empty one; a write is tried again at
// once. s.mu is held.
func (s *Store) open(readOnly bool, f func(*bbolt.DB) error) error {
	for try := 0; ; try++ {
		err := s.attempt(readOnly, f)
		var d *damagedError
		if !errors.As(err, &d) {
			return err
		}
		aside := s.Path() + ".damaged-" + strconv.FormatInt(time.Now().Unix(), 10)
		if err := os.Rename(s.Path(), aside); err != nil {
			return fmt.Errorf("state: %s is damaged (%v) and cannot be moved aside: %w", s.Path(), d.why, err)
		}
		s.warn(fmt.Sprintf("%s was damaged (%v); it was moved to %s, and files are hashed again", s.Path(), d.why, filepath.Base(aside)))
		if readOnly || try > 0 {
			return nil
		}
	}
}

// A damagedError reports that the file is not one that bbolt could have left.
type damagedError struct{ why error }

func (e *damagedError) Error() string { return "state: damaged: " + e.why.Error() }

// create makes an empty file, whole or not at all: what a full disk has left of
// one would be taken for damage.
func (s *Store) create() error {
	tmp := fmt.Sprintf("%s.new-%d", s.Path(), os.Getpid())
	db, err := bbolt.Open(tmp, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		if err = os.Link(tmp, s.Path()); err != nil { // there is an empty one, or links are not to be had
			if fi, serr := os.Stat(s.Path()); serr != nil || fi.Size() == 0 {
				err = os.Rename(tmp, s.Path())
			} else {
				err = nil // another process was faster
			}
		}
	}
	if rerr := os.Remove(tmp); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("state: create %s: %w", s.Path(), err)
	}
	return nil
}

func (s *Store) attempt(readOnly bool, f func(*bbolt.DB) error) (err error) {
	// bbolt reads a memory map. In a damaged file it follows page numbers to
	// nowhere: it panics, or touches memory behind the end of the file.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			// The file stays open, and locked: its locks may be held. It is
			// about to get another name, under which nobody looks for it.
			err = &damagedError{fmt.Errorf("%v", r)}
		}
	}()

	if !readOnly {
		if fi, err := os.Stat(s.Path()); err != nil || fi.Size() == 0 {
			if err := s.create(); err != nil {
				return err
			}
		}
		// To write, bbolt reads the list of free pages before anybody can look at it.
		if err := s.attempt(true, func(*bbolt.DB) error { return nil }); err != nil {
			return err
		}
	}
	db, err := bbolt.Open(s.Path(), 0o600, &bbolt.Options{
		ReadOnly:     readOnly,
		Timeout:      lockTimeout,
		FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bboltErrors.ErrTimeout):
		return ErrBusy
	case errors.Is(err, bboltErrors.ErrInvalid), errors.Is(err, bboltErrors.ErrVersionMismatch), errors.Is(err, bboltErrors.ErrChecksum):
		return &damagedError{err}
	case err != nil:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return fmt.Errorf("state: %w", err)
		}
		return &damagedError{err}
	}
	if readOnly {
		if err = db.View(checkGraph); err != nil {
			_ = db.Close() // nothing was written
			return &damagedError{err}
		}
	}
	err = f(db)
	if cerr := db.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("state: close %s: %w", s.Path(), cerr)
	}
	return err
}
