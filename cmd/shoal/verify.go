package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare files on disk with a manifest",
		ArgsUsage: "FILE.shoal|TICKET DIR",
		Description: "Reads what lies at DIR, which is the share's own folder or file, or the folder that\n" +
			"holds it under the share's name. Prints one line for each difference, with the file and\n" +
			"the chunk. Exits with 6 if content is wrong or missing; other modes, times and files\n" +
			"are only listed. With --repair it fetches the chunks that are damaged or missing, and no\n" +
			"others; each file is replaced in one step when it is whole again. A ticket will do then, too.\n\n" +
			"shoal verify photos.shoal /backup/photos\n" +
			"shoal verify --repair shoal:... /backup/photos\n" +
			"shoal verify --repair photos.shoal /backup/photos --peer laptop:7420",
		Flags: slices.Concat([]cli.Flag{
			listFlag("only", "only what matches `GLOB`; may be repeated"),
			listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
			boolFlag("repair", "fetch what is damaged or missing"),
			listFlag("peer", "with --repair: fetch from the peer at `HOST:PORT`; may be repeated"),
			stringFlag("listen", "with --repair: `HOST:PORT`, :PORT or PORT to serve at meanwhile; \"off\" for not at all"),
			noLANFlag(),
			boolFlag("json", "print JSON lines"),
		}, fromFlags(), waitFlags(), limitFlags()),
		Action: a.verify,
	}
}

func (a *app) verify(cc *cli.Context) error {
	args, err := arguments(cc, 2, 2)
	if err != nil {
		return err
	}
	repair := cc.Bool("repair")
	if repair && len(cc.StringSlice("only"))+len(cc.StringSlice("exclude")) > 0 {
		return usagef("--repair is for all of a share; leave out --only and --exclude")
	}
	src, err := a.verified(args[0], repair)
	if err != nil {
		return err
	}
	m, err := a.resolve(cc.Context, cc, src)
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
		same   sameReason
	)
	size := m.Size()
	if sel != nil {
		size = sel.Size
	}
	g := &getting{a: a} // only for what it says of the look
	a.tells(g.status)
	shown := false
	tell := func(done int64) { shown = g.compared(min(done, size), size, "", time.Now()) }
	err = manifest.VerifyAndTell(cc.Context, m, sel, dir, func(d manifest.Difference) {
		if shown && a.tty {
			a.finishBar() // the line would stand behind it
		}
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
			err = same.print(a.stdout, d)
		}
		if failed == nil {
			failed = err
		}
	}, tell)
	a.finishBar()
	if err != nil {
		return err
	}
	if err := same.flush(a.stdout); failed == nil {
		failed = err
	}
	if failed != nil {
		return fmt.Errorf("write to standard output: %w", failed)
	}
	if found > 0 && repair {
		a.sayf("%q differs in %s", dir, count(found, "place"))
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		return a.complete(cc, src, m, dir, dir)
	}
	if found > 0 {
		hint := "the same line with --repair mends it from peers; --peer HOST:PORT names one"
		if sel != nil {
			hint = "" // a part cannot be repaired
		}
		return refuse(codeIntegrity, hint, "%q differs from %q in %s", dir, src.name, count(found, "place"))
	}
	a.sayf("%q is what %q says (%s)", dir, src.name, bytesText(size))
	if notes > 0 {
		a.sayf("but for %s in modes, times or things that are not part of it", count(notes, "difference"))
	}
	return nil
}

// sameReason makes one line of the chunks that cannot be checked for one reason: a
// large file that is missing has thousands of them.
type sameReason struct {
	last manifest.Difference
	more int
}

func (r *sameReason) print(w io.Writer, d manifest.Difference) error {
	if d.Kind == manifest.Unchecked && r.last.Kind == d.Kind && d.Path == r.last.Path && d.Why == r.last.Why && d.Chunk == r.last.Chunk+1 {
		r.last, r.more = d, r.more+1
		return nil
	}
	if err := r.flush(w); err != nil {
		return err
	}
	r.last = d
	_, err := fmt.Fprintln(w, escape(d.String()))
	return err
}

// flush says how far the last line reaches.
func (r *sameReason) flush(w io.Writer) error {
	if r.more == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "and %s behind it, to chunk %d\n", count(r.more, "chunk"), r.last.Chunk)
	r.more = 0
	return err
}

// verified reads the argument that says what a copy should be: a manifest file, or
// for a repair also a ticket.
func (a *app) verified(arg string, repair bool) (source, error) {
	if repair {
		return parseSource(arg)
	}
	m, err := manifestFile(arg)
	if err != nil {
		return source{}, err
	}
	return source{root: m.Root(), manifest: m, name: arg}, nil
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
