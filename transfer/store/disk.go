// Package store keeps what a get has fetched: it places verified chunks in a
// part beside the final name, remembers them in a journal, and gives the
// finished share its name in one step. SPEC.md describes the part. [Origin]
// serves chunks from files that are finished.
//
// Everything that is written goes through a [Disk], which cannot leave its
// folder.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
)

// A Disk is the folder that holds a part and, at the end, the finished share.
// Names are relative to it, with slashes; a Disk never follows a symbolic link
// and never leaves the folder. Any number of goroutines may use it.
type Disk interface {
	// Path returns the folder as a person knows it.
	Path() string
	// OpenFile opens or, with os.O_CREATE|os.O_EXCL, makes a regular file.
	OpenFile(name string, flag int) (File, error)
	Mkdir(name string) error
	Symlink(target, name string) error
	Readlink(name string) (string, error)
	Lstat(name string) (Info, error)
	// Names lists a directory, at most max of its names (all, if max < 0).
	Names(name string, max int) ([]string, error)
	// Create makes a whole file at once: content, permission bits and time. If
	// the name is there, the error is fs.ErrExist.
	Create(name string, p []byte, mode fs.FileMode, mtime time.Time) error
	// Rename never replaces: if newname is there, the error is fs.ErrExist.
	Rename(oldname, newname string) error
	// Exchange swaps what two names stand for, in one step. Where that cannot be
	// done, the error is errors.ErrUnsupported.
	Exchange(a, b string) error
	// Replace renames a file; a file that has the name goes in the same step.
	Replace(oldname, newname string) error
	Remove(name string) error
	// SetMeta sets the permission bits and the time of a directory or a file.
	SetMeta(name string, mode fs.FileMode, mtime time.Time) error
	// Sync makes the names in a directory durable, or a file with its mode and
	// time; SyncAll everything in the folder.
	Sync(name string) error
	SyncAll() error
	// Forget makes the disk look names up anew, if it remembers where they led.
	Forget()
	// Free returns the bytes that may still be written, and the files and
	// directories that may be made; -1: not known.
	Free() (size, files int64)
	// BootID names the time since the machine was started, and the disk mounted:
	// what was written since is there even if it was never flushed.
	BootID() string
	// Lock takes the lock file name for this process, or returns a
	// *LockedError at once.
	Lock(name string) (unlock func() error, err error)
	Close() error
}

// A File of a Disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Allocate gives the file its size and, where the system can, its space.
	Allocate(size int64) error
	Truncate(size int64) error
	SetMeta(mode fs.FileMode, mtime time.Time) error
	Info() (Info, error)
	Sync() error
}

// Info is what a Disk says of a name.
type Info struct {
	manifest.Stat
	Mode  fs.FileMode // type and permission bits
	Nlink int
}

// Errors of Open. After each of them nothing has been changed.
var (
	// ErrExists is returned if there is something at the final name.
	ErrExists = errors.New("exists already")
	// ErrNoReplacing is returned, with ErrExists, if what is there is never replaced.
	ErrNoReplacing = errors.New("neither a file nor a folder")
	// ErrOtherShare is returned if the part at this place is of another share.
	ErrOtherShare = errors.New("holds the part of another share")
	// ErrNotPart is returned if a folder has the name of the part and holds
	// something else.
	ErrNotPart = errors.New("has the name of an unfinished share and is none, or its manifest and its journal are damaged")
)

// A DiskError reports an operation that the disk has refused. What was fetched
// before is kept.
type DiskError struct {
	Op   string // such as "write"
	Path string
	Err  error
}

func (e *DiskError) Error() string {
	var p *fs.PathError
	err := e.Err
	if errors.As(err, &p) {
		err = p.Err // the path is named once
	}
	return fmt.Sprintf("cannot %s %s: %v", e.Op, quote(e.Path), err)
}

func (e *DiskError) Unwrap() error { return e.Err }

// A NoSpaceError reports that the disk has less room than the share, or what is
// missing of it, needs. What was fetched before is kept.
type NoSpaceError struct {
	Need, Have int64  // bytes; with Files, files and directories
	Files      bool   // the disk can hold no more files, however small
	Dir        string // where
	Err        error  // what the system said; nil: it was found out before
}

func (e *NoSpaceError) Error() string {
	what := "bytes"
	if e.Files {
		what = "free inodes"
	}
	s := fmt.Sprintf("no space: need %d %s, have %d in %s", e.Need, what, e.Have, quote(e.Dir))
	var p *fs.PathError
	if errors.As(e.Err, &p) {
		s += fmt.Sprintf(" (at %s)", quote(p.Path))
	}
	return s
}

func (e *NoSpaceError) Unwrap() error { return e.Err }

// A LockedError reports that another process is at work on the same part.
type LockedError struct {
	Path  string
	Owner string // "process 12 on host", or "" if it does not say
}

func (e *LockedError) Error() string {
	owner := e.Owner
	if owner == "" {
		owner = "another process"
	}
	return fmt.Sprintf("%s is already being fetched by %s", quote(e.Path), owner)
}
