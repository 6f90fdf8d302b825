package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare files on disk with a manifest",
		ArgsUsage: "FILE.shoal DIR",
		Description: "Reads what lies at DIR, which is the share's own folder or file, or the folder that\n" +
			"holds it under the share's name. Prints one line for each difference, with the file and\n" +
			"the chunk. Exits with 6 if content is wrong or missing; other modes, times and files\n" +
			"are only listed.\n\n" +
			"shoal verify photos.shoal /backup/photos",
		Flags: []cli.Flag{
			listFlag("only", "only what matches `GLOB`; may be repeated"),
			listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
			boolFlag("json", "print JSON lines"),
		},
		Action: a.verify,
	}
}

func (a *app) verify(cc *cli.Context) error {
	args, err := arguments(cc, 2, 2)
	if err != nil {
		return err
	}
	m, err := manifestFile(args[0])
	if err != nil {
		return err
	}
	sel, err := selection(m, cc)
	if err != nil {
		return err
	}
	dir := args[1]
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return usagef("there is no file or folder %q", dir)
	case err != nil:
		return err
	case fi.IsDir():
		// The folder that get was given holds the share's own.
		in := filepath.Join(dir, m.Name())
		if sub, err := os.Lstat(in); err == nil && sub.IsDir() != m.IsFile() && (m.IsFile() || !has(m, m.Name())) {
			dir = in
		}
	}
	var (
		mu     sync.Mutex
		found  int // what makes it another share
		notes  int // modes, times, things that are not part of it
		failed error
	)
	err = manifest.Verify(cc.Context, m, sel, dir, func(d manifest.Difference) {
		mu.Lock()
		defer mu.Unlock()
		if d.Failed() {
			found++
		} else {
			notes++
		}
		var err error
		if cc.Bool("json") {
			err = a.event("difference", map[string]any{"path": d.Path, "chunk": d.Chunk, "kind": fmt.Sprint(d.Kind), "text": d.String()})
		} else {
			_, err = fmt.Fprintln(a.stdout, escape(d.String()))
		}
		if failed == nil {
			failed = err
		}
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("write to standard output: %w", failed)
	}
	if found > 0 {
		return refuse(codeIntegrity, "", "%q differs from %q in %s", dir, args[0], count(found, "place"))
	}
	size := m.Size()
	if sel != nil {
		size = sel.Size
	}
	a.sayf("%q is what %q says (%s)", dir, args[0], bytesText(size))
	if notes > 0 {
		a.sayf("but for %s in modes, times or things that are not part of it", count(notes, "difference"))
	}
	return nil
}

// has reports whether the share has an entry of this path at its top.
func has(m *manifest.Manifest, path string) bool {
	for i := range m.Entries() {
		if m.Entries()[i].Path == path {
			return true
		}
	}
	return false
}
