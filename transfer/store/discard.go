package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/shoal-p2p/shoal/manifest"
)

// Discard removes the part of an unfinished share, and nothing that shoal did not
// make: only the names that the share and the part have, never through a link. What
// else lies in it stays, with the folders above it, and left counts it. It
// returns a *LockedError while a get is at work on it, and an error that wraps
// ErrNotPart if it is none.
func Discard(d *OSDisk, final string) (left int, err error) {
	part := final + PartSuffix
	if err := manifest.CheckName(final); err != nil {
		return 0, err
	}
	i, err := d.Lstat(part)
	if err != nil {
		return 0, &DiskError{Op: "forget", Path: filepath.Join(d.Path(), part), Err: err}
	}
	text, err := []byte(nil), errNotDir
	if i.Mode.IsDir() {
		text, err = readFile(d, part+"/"+manifestName, manifest.MaxText)
	}
	var m *manifest.Manifest
	if err == nil {
		m, err = manifest.Parse(text)
	}
	if err != nil {
		return 0, fmt.Errorf("%s %w", quote(filepath.Join(d.Path(), part)), ErrNotPart)
	}
	unlock, err := d.Lock(part + "/" + lockName)
	if err != nil {
		var locked *LockedError
		if errors.As(err, &locked) {
			return 0, locked
		}
		return 0, &DiskError{Op: "lock", Path: filepath.Join(d.Path(), part), Err: err}
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s := &Store{d: d, m: m, part: part}
	if r, err := s.readReplacement(); err != nil {
		return 0, err
	} else if r != nil && r.phase != phaseFetch { // what lies in it may be what had the name before
		err := fmt.Errorf("it was about to replace %s; let the same get line, or resume, go on, which takes a moment", quote(final))
		return 0, &DiskError{Op: "forget", Path: filepath.Join(d.Path(), part), Err: err}
	}
	for e := len(m.Entries()) - 1; e >= 0; e-- { // what is in a directory before itself
		name, x := s.data(e), &m.Entries()[e]
		i, err := d.Lstat(name)
		if err == nil && kindFits(i.Mode, x.Kind) {
			err = d.Remove(name)
		}
		if err != nil && x.Kind != manifest.Dir && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotDir) {
			return 0, s.diskError("remove", name, err)
		}
	}
	if !m.IsFile() {
		_ = d.Remove(s.in(dataName)) // or it is not empty
	}
	s.removePart()
	return count(d, part), nil
}

func kindFits(mode fs.FileMode, k manifest.Kind) bool {
	switch k {
	case manifest.Dir:
		return mode.IsDir()
	case manifest.Symlink:
		return mode.Type() == fs.ModeSymlink
	}
	return mode.IsRegular()
}

// count returns how many names lie in a folder and below it.
func count(d Disk, dir string) int {
	names, err := d.Names(dir, maxParts)
	if err != nil {
		return 0
	}
	n := 0
	for _, name := range names {
		n++
		if i, err := d.Lstat(path.Join(dir, name)); err == nil && i.Mode.IsDir() {
			n += count(d, path.Join(dir, name))
		}
	}
	return n
}

// Running reports whether a get is at work on a part, and which process says so.
func (d *OSDisk) Running(final string) (owner string, running bool) {
	err := d.in(final+PartSuffix+"/"+lockName, func(dir *os.Root, base string) error {
		f, err := dir.OpenFile(base, os.O_RDWR|openFlags, 0)
		if err != nil {
			return err
		}
		defer f.Close() // and with it the lock, if it was free
		if err = lockFile(f); errors.Is(err, errLocked) {
			running = true
			p := make([]byte, 200)
			n, _ := f.ReadAt(p, 0)
			owner = ownerText(p[:n])
		}
		return err
	})
	return owner, err != nil && running
}
