package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) manifestCommand() *cli.Command {
	return &cli.Command{
		Name:      "manifest",
		Usage:     "make and look at manifest files",
		ArgsUsage: "create|show|diff",
		Subcommands: []*cli.Command{
			{
				Name:      "create",
				Usage:     "hash files and folders into a manifest, without serving them",
				ArgsUsage: "PATH...",
				Description: "Writes the manifest to the file that -o names, or to standard output.\n\n" +
					"shoal manifest create photos -o photos.shoal\n" +
					"shoal manifest create photos notes.txt --name backup -o backup.shoal\n" +
					"shoal manifest create photos --exclude '*.tmp'",
				Flags:  append(buildFlags(), stringFlag("output", "write to `FILE.shoal`", "o"), boolFlag("json", "print a JSON line about it on standard output; needs -o")),
				Action: a.manifestCreate,
			},
			{
				Name:      "show",
				Usage:     "print what a manifest says about itself, and its chunks",
				ArgsUsage: "FILE.shoal",
				Description: "After the head, one line a chunk: number, offset, length, hash.\n\n" +
					"shoal manifest show photos.shoal\n" +
					"shoal manifest show photos.shoal --quiet\n" +
					"shoal manifest show -- -odd-name.shoal",
				Flags:  []cli.Flag{boolFlag("json", "print JSON lines")},
				Action: a.manifestShow,
			},
			a.manifestDiffCommand(),
		},
	}
}

func (a *app) manifestCreate(cc *cli.Context) error {
	paths, err := arguments(cc, 1, -1)
	if err != nil {
		return err
	}
	build, err := buildOptions(cc)
	if err != nil {
		return err
	}
	if err := checkPaths(paths); err != nil {
		return err
	}
	out := cc.String("output")
	if cc.Bool("json") && (out == "" || out == "-") {
		return usagef("--json: the manifest itself goes to standard output; name a file with -o")
	}
	if fi, err := os.Stat(out); out != "" && err == nil && fi.IsDir() {
		return refuse(codeRefused, "name the file", "%q is a folder", out)
	}
	h := a.newHashing()
	a.tells(h.status)
	cache := a.state().Cache()
	build.Cache, build.Progress, build.Skipped = cache, h.progress, h.skip
	m, _, err := manifest.Build(cc.Context, paths, build)
	h.end()
	if cerr := cache.Close(); cerr != nil {
		a.debugf("hash cache: %v", cerr)
	}
	if err != nil {
		return hashingError(cc.Context, err)
	}
	if out == "" || out == "-" {
		return a.print(func(w io.Writer) { fmt.Fprint(w, m.Text()) })
	}
	if err := writeManifest(out, m); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	a.sayf("%s: %s in %s", out, describe(m), count(m.NumChunks(), "chunk"))
	if cc.Bool("json") {
		return a.manifestEvent(m, out)
	}
	return nil
}

func (a *app) manifestShow(cc *cli.Context) error {
	args, err := arguments(cc, 1, 1)
	if err != nil {
		return err
	}
	m, err := manifestFile(args[0])
	if err != nil {
		return err
	}
	if cc.Bool("json") {
		if err := a.manifestEvent(m, args[0]); err != nil {
			return err
		}
		for i := range m.NumChunks() {
			if err := a.event("chunk", map[string]any{"chunk": i, "offset": m.ChunkOffset(i), "size": m.ChunkLen(i), "hash": m.ChunkHash(i).String()}); err != nil {
				return err
			}
		}
		return nil
	}
	return a.print(func(w io.Writer) {
		kinds := map[manifest.Kind]int{}
		for i := range m.Entries() {
			kinds[m.Entries()[i].Kind]++
		}
		fmt.Fprintf(w, "name     %s\n", escape(m.Name()))
		fmt.Fprintf(w, "root     %s\n", m.Root())
		fmt.Fprintf(w, "size     %d\n", m.Size())
		fmt.Fprintf(w, "cutter   %s\n", m.Cutter())
		fmt.Fprintf(w, "files    %d\n", kinds[manifest.File])
		fmt.Fprintf(w, "folders  %d\n", kinds[manifest.Dir])
		fmt.Fprintf(w, "links    %d\n", kinds[manifest.Symlink])
		fmt.Fprintf(w, "chunks   %d\n", m.NumChunks())
		for i := range m.NumChunks() {
			fmt.Fprintf(w, "%d %d %d %s\n", i, m.ChunkOffset(i), m.ChunkLen(i), m.ChunkHash(i))
		}
	})
}

// manifestEvent prints what a manifest says about itself. file is where it lies.
func (a *app) manifestEvent(m *manifest.Manifest, file string) error {
	kinds := map[manifest.Kind]int{}
	for i := range m.Entries() {
		kinds[m.Entries()[i].Kind]++
	}
	return a.event("manifest", map[string]any{
		"path": file, "name": m.Name(), "root": m.Root().String(), "size": m.Size(), "cutter": fmt.Sprint(m.Cutter()),
		"files": kinds[manifest.File], "dirs": kinds[manifest.Dir], "links": kinds[manifest.Symlink], "chunks": m.NumChunks(),
	})
}

// print lets f write to standard output. It is no error if its reader has seen
// enough.
func (a *app) print(f func(w io.Writer)) error {
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	f(w)
	if err := w.Flush(); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}
