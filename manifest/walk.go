package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/chunk"
)

// manyNames is how many names in one directory are worth to make room for at once.
const manyNames = 10_000

// A walker lists the entries of a share in the order of the manifest.
type walker struct {
	ctx     context.Context
	o       *BuildOptions
	exclude globs
	entries []Entry
	files   []SourceFile
	special map[uint64]string // devices that hold the kernel's files, and why they are skipped
	bad     error             // the first name that is not portable
	numBad  int
}

// skip leaves out what is at path, or fails if nothing may be left out.
func (w *walker) skip(path, why string) error {
	if w.o.Strict {
		return &PathError{path, "cannot be shared: " + why}
	}
	if w.o.Skipped != nil {
		w.o.Skipped(path, why)
	}
	return nil
}

// fileShare lists a single file.
func (w *walker) fileShare(name, osPath string, i info) error {
	if err := w.checkPortable(name, name); err != nil {
		return err
	}
	return w.file(name, osPath, i)
}

// checkPortable takes down that a name is not portable, unless that is fine.
func (w *walker) checkPortable(name, path string) error {
	if w.o.AnyName {
		return nil
	}
	if why := checkPortable(name); why != "" {
		if w.bad == nil {
			w.bad = &PathError{path, why}
		}
		w.numBad++
	}
	return nil
}

func (w *walker) add(e Entry) error {
	if len(w.entries) == MaxEntries {
		return fmt.Errorf("share of more than %d entries: %w", MaxEntries, ErrTooLarge)
	}
	w.entries = append(w.entries, e)
	return nil
}

func (w *walker) file(path, osPath string, i info) error {
	sec, nsec := i.entryTime()
	w.files = append(w.files, SourceFile{Path: osPath, Stat: i.stat})
	return w.add(Entry{Path: path, Kind: File, Mode: i.perm, Sec: sec, Nsec: nsec, Size: i.stat.Size})
}

// dir lists what is in the open directory d, whose path in the share is path ("" for
// the top). depth is the number of its components.
func (w *walker) dir(d dirHandle, path, osPath string, depth int) error {
	names, err := d.names()
	if err != nil {
		if path == "" {
			return err
		}
		return w.skip(path, "listing it: "+reason(err))
	}
	slices.Sort(names)
	if len(names) > manyNames {
		// Grown step by step, they would be there twice now and then.
		w.entries = slices.Grow(w.entries, min(len(names), MaxEntries-len(w.entries)))
		w.files = slices.Grow(w.files, min(len(names), MaxEntries-len(w.files)))
	}
	for _, name := range names {
		if err := w.entry(d, name, path, osPath, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry lists name in d, and what is beneath it.
func (w *walker) entry(d dirHandle, name, dir, osDir string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	osPath, path := joinOS(osDir, dir, name)
	if w.exclude.match(path) {
		return nil
	}
	why := checkName(name)
	if why == "" && depth == 0 {
		why = checkFirst(name)
	}
	switch {
	case why != "":
		why = "its name " + why
	case len(path) > MaxPath:
		why = fmt.Sprintf("its path has %d bytes, the limit is %d", len(path), MaxPath)
	case depth+1 > MaxDepth:
		why = fmt.Sprintf("its path has more than %d parts", MaxDepth)
	}
	if why != "" {
		return w.skip(path, why)
	}
	i, err := d.lstat(name, osPath)
	if err != nil {
		return w.skip(path, reason(err))
	}
	switch {
	case i.typ.IsRegular():
		if err := d.readable(name, &i); err != nil {
			return w.skip(path, reason(err))
		}
		if why := w.kernelFile(osPath, i.stat.Dev); why != "" {
			return w.skip(path, why)
		}
		if err := w.checkPortable(name, path); err != nil {
			return err
		}
		return w.file(path, osPath, i)
	case i.typ&fs.ModeDir != 0:
		sub, err := d.open(name, osPath)
		if err != nil {
			return w.skip(path, reason(err))
		}
		defer sub.close()
		if i, err = sub.stat(); err != nil {
			return w.skip(path, reason(err))
		}
		if why := w.kernelFile(osPath, i.stat.Dev); why != "" {
			return w.skip(path, why)
		}
		if err := w.checkPortable(name, path); err != nil {
			return err
		}
		sec, nsec := i.entryTime()
		if err := w.add(Entry{Path: path, Kind: Dir, Mode: i.perm, Sec: sec, Nsec: nsec}); err != nil {
			return err
		}
		return w.dir(sub, path, osPath, depth+1)
	case i.typ&fs.ModeSymlink != 0:
		target, err := d.readlink(name, osPath)
		if err != nil {
			return w.skip(path, reason(err))
		}
		return w.add(Entry{Path: path, Kind: Symlink, Target: target})
	}
	return w.skip(path, "it is a "+typeName(i.typ))
}

// kernelFile returns why a file or directory on device dev is not shared, or "": the
// files of /proc and /sys have no size, and content that changes as it is read.
func (w *walker) kernelFile(path string, dev uint64) string {
	why, ok := w.special[dev]
	if !ok {
		if isKernelFS(path) {
			why = "it is not on a disk but made up by the kernel"
		}
		if w.special == nil {
			w.special = make(map[uint64]string)
		}
		w.special[dev] = why
	}
	return why
}

// joinOS returns the path of name both for the system and in the share. Where the
// system's separator is a slash, the second is a part of the first: a share of a
// million files keeps one string for both.
func joinOS(osDir, dir, name string) (osPath, path string) {
	if osDir != "" && os.IsPathSeparator(osDir[len(osDir)-1]) {
		osPath = osDir + name
	} else {
		osPath = osDir + string(filepath.Separator) + name
	}
	if filepath.Separator != '/' {
		return osPath, join(dir, name)
	}
	n := len(name)
	if dir != "" {
		n += len(dir) + 1
	}
	return osPath, osPath[len(osPath)-n:]
}

// reason returns err without the operation and path, which the reader knows.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}

// dropLinks removes the links that lead out of the share, or through too many
// others, and tells of them.
func (w *walker) dropLinks() error {
	links := newLinkResolver(w.entries)
	if links == nil {
		return nil
	}
	var failed error
	w.entries = slices.DeleteFunc(w.entries, func(e Entry) bool {
		if e.Kind != Symlink || failed != nil {
			return false
		}
		if why := links.check(e.Path); why != "" {
			failed = w.skip(e.Path, "the link "+why)
			return true
		}
		if failed = w.checkPortable(base(e.Path), e.Path); failed != nil {
			return false
		}
		if !w.o.AnyName {
			if why := checkPortableTarget(e.Target); why != "" {
				if w.bad == nil {
					w.bad = &PathError{e.Path, why}
				}
				w.numBad++
			}
		}
		return false
	})
	return failed
}

// checkNames reports names that are not portable, and names that collide.
func (w *walker) checkNames() error {
	if w.bad != nil {
		if w.numBad > 1 {
			return fmt.Errorf("%w (and %s like it)", w.bad, count(w.numBad-1, "more name"))
		}
		return w.bad
	}
	names := newNameSet(len(w.entries))
	var dirs []int32
	for i := range w.entries {
		e := &w.entries[i]
		for len(dirs) > 0 && !beneath(e.Path, w.entries[dirs[len(dirs)-1]].Path) {
			dirs = dirs[:len(dirs)-1]
		}
		above := int32(-1)
		if len(dirs) > 0 {
			above = dirs[len(dirs)-1]
		}
		names.add(above, base(e.Path))
		if e.Kind == Dir {
			dirs = append(dirs, int32(i))
		}
	}
	if a, b, ok := names.collision(w.entries); ok {
		return &PathError{w.entries[b].Path, "would collide on some systems with " + quote(w.entries[a].Path)}
	}
	return nil
}

// list walks the paths and returns the share's name and its top entry.
func (w *walker) list(paths []string) (name string, top Entry, err error) {
	if len(paths) == 0 {
		return "", Entry{}, errors.New("nothing to share: no path given")
	}
	if w.exclude, err = newGlobs(w.o.Exclude); err != nil {
		return "", Entry{}, err
	}
	if len(paths) == 1 {
		return w.listOne(paths[0])
	}
	type source struct{ name, path string }
	sources := make([]source, 0, len(paths))
	for _, path := range paths {
		name, err := baseName(path)
		if err != nil {
			return "", Entry{}, err
		}
		if w.exclude.match(name) {
			continue // a shell's * names much that is not wanted
		}
		sources = append(sources, source{name, path})
	}
	if len(sources) == 0 {
		return "", Entry{}, errors.New("nothing to share: every path is excluded")
	}
	if len(sources) == 1 {
		return w.listOne(sources[0].path)
	}
	slices.SortStableFunc(sources, func(a, b source) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(sources); i++ {
		if a, b := sources[i-1], sources[i]; a.name == b.name {
			return "", Entry{}, fmt.Errorf("paths %s and %s have the same name, and a share can hold it once", quote(a.path), quote(b.path))
		}
	}
	top = Entry{Kind: Dir, Mode: 0o755}
	for _, s := range sources {
		if err := CheckName(s.name); err != nil {
			return "", Entry{}, err
		}
		before := len(w.entries)
		if err := w.listAt(s.name, s.path); err != nil {
			return "", Entry{}, err
		}
		// The top is no directory on disk; its time is that of its newest entry.
		if len(w.entries) > before {
			if e := &w.entries[before]; e.Sec > top.Sec || e.Sec == top.Sec && e.Nsec > top.Nsec {
				top.Sec, top.Nsec = e.Sec, e.Nsec
			}
		}
	}
	name = fmt.Sprintf("%s+%d", sources[0].name, len(sources)-1)
	if CheckName(name) != nil {
		name = "share"
	}
	return name, top, nil
}

// listOne lists a share of one path.
func (w *walker) listOne(path string) (name string, top Entry, err error) {
	if path == "" {
		return "", Entry{}, errEmptyPath
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", Entry{}, err
	}
	name = w.o.Name
	if name == "" {
		if name, err = baseName(path); err != nil {
			return "", Entry{}, err
		}
	}
	if err := CheckName(name); err != nil {
		return "", Entry{}, err
	}
	if !fi.IsDir() {
		i, osPath, err := statGiven(path, fi)
		if err != nil {
			return "", Entry{}, err
		}
		return name, Entry{Kind: File}, w.fileShare(name, osPath, i)
	}
	osPath, err := filepath.Abs(path)
	if err != nil {
		return "", Entry{}, err
	}
	d, err := openTop(osPath)
	if err != nil {
		return "", Entry{}, err
	}
	defer d.close()
	i, err := d.stat()
	if err != nil {
		return "", Entry{}, err
	}
	top = Entry{Kind: Dir, Mode: i.perm}
	top.Sec, top.Nsec = i.entryTime()
	return name, top, w.dir(d, "", osPath, 0)
}

// listAt lists a path that the user named as the top-level entry name.
func (w *walker) listAt(name, path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := w.checkPortable(name, name); err != nil {
		return err
	}
	if !fi.IsDir() {
		i, osPath, err := statGiven(path, fi)
		if err != nil {
			return err
		}
		return w.file(name, osPath, i)
	}
	osPath, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d, err := openTop(osPath)
	if err != nil {
		return err
	}
	defer d.close()
	i, err := d.stat()
	if err != nil {
		return err
	}
	e := Entry{Path: name, Kind: Dir, Mode: i.perm}
	e.Sec, e.Nsec = i.entryTime()
	if err := w.add(e); err != nil {
		return err
	}
	return w.dir(d, name, osPath, 1)
}

// statGiven returns the path and info of a file that the user named, where links
// are followed.
func statGiven(path string, fi fs.FileInfo) (info, string, error) {
	if !fi.Mode().IsRegular() {
		return info{}, "", fmt.Errorf("share %s: it is a %s", quote(path), typeName(fi.Mode().Type()))
	}
	osPath, err := filepath.Abs(path)
	if err != nil {
		return info{}, "", err
	}
	// Readers do not follow links, so the file goes by its own path from here on.
	if osPath, err = filepath.EvalSymlinks(osPath); err != nil {
		return info{}, "", err
	}
	f, err := openFile(osPath)
	if err != nil {
		return info{}, "", err
	}
	defer f.close()
	i, err := f.stat(osPath)
	if err == nil && !i.typ.IsRegular() {
		err = &ChangedError{osPath, "it is now a " + typeName(i.typ)}
	}
	if err == nil && isKernelFS(osPath) {
		err = fmt.Errorf("share %s: it is not on a disk but made up by the kernel", quote(path))
	}
	return i, osPath, err
}

var errEmptyPath = errors.New("nothing to share: a path is empty")

// baseName returns the name that a path the user gave has in a share.
func baseName(path string) (string, error) {
	if path == "" {
		return "", errEmptyPath
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	name := filepath.Base(abs)
	if name == string(filepath.Separator) || name == "." || filepath.VolumeName(abs)+string(filepath.Separator) == abs {
		return "", fmt.Errorf("path %s has no name of its own: give the share one", quote(path))
	}
	return name, nil
}

// nominal returns the cutter for the files.
func (w *walker) cutter() (chunk.Cutter, error) {
	kind := w.o.Cutter
	if kind == "" {
		kind = DefaultCutter
	}
	num := func(size int) (n int64) {
		for seg := range w.segments(size) {
			n += ceilDiv(seg.end-seg.start, int64(size))
		}
		return n
	}
	size := w.o.ChunkSize
	if size == 0 {
		size = chunk.NominalSize(num)
	}
	c, err := chunk.NewCutter(kind, size)
	if err != nil {
		return nil, err
	}
	if n := num(size); n > chunk.MaxNum {
		return nil, fmt.Errorf("share needs %d chunks of %d bytes, the limit is %d: %w", n, size, chunk.MaxNum, ErrTooLarge)
	}
	return c, nil
}

// segments yields the segments for a nominal chunk size. Their file indexes are
// those of the files with content.
func (w *walker) segments(size int) func(yield func(segment) bool) {
	return func(yield func(segment) bool) {
		sizes := make([]int64, 0, len(w.files))
		for i := range w.files {
			if s := w.files[i].Stat.Size; s > 0 {
				sizes = append(sizes, s)
			}
		}
		segmentsOf(len(sizes), int64(size), func(k int) int64 { return sizes[k] })(yield)
	}
}
