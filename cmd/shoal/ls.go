package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
)

func (a *app) lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list what a share holds, without fetching it",
		ArgsUsage: "TICKET|FILE.shoal",
		Description: "One line an entry: mode, size, time (UTC), path. With globs, what a get with the same\n" +
			"globs would fetch.\n\n" +
			"shoal ls shoal:...\n" +
			"shoal ls photos.shoal --only '*.jpg'\n" +
			"shoal ls shoal:... --json",
		Flags: []cli.Flag{
			listFlag("peer", "ask the peer at `HOST:PORT`; may be repeated"),
			listFlag("only", "only what matches `GLOB`; may be repeated"),
			listFlag("exclude", "leave out what matches `GLOB`; may be repeated"),
			&cli.DurationFlag{Name: "timeout", Usage: "give up when no peer answers for `TIME`", Value: 30 * time.Second, EnvVars: env("timeout")},
			noLANFlag(),
			boolFlag("json", "print JSON lines"),
		},
		Action: a.ls,
	}
}

func (a *app) ls(cc *cli.Context) error {
	args, err := arguments(cc, 1, 1)
	if err != nil {
		return err
	}
	src, err := parseSource(args[0])
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
	for i := range m.Entries() {
		if !cc.Bool("json") {
			break
		}
		if sel != nil && !sel.Entries.Has(i) {
			continue
		}
		e := &m.Entries()[i]
		fields := map[string]any{"path": e.Path, "kind": kindText(e.Kind)}
		switch e.Kind {
		case manifest.Symlink:
			fields["target"] = e.Target
		case manifest.File:
			fields["size"] = e.Size
			fallthrough
		default:
			fields["mode"], fields["mtime"] = fmt.Sprintf("%04o", e.Mode), e.ModTime().UTC()
		}
		if err := a.event("entry", fields); err != nil {
			return err
		}
	}
	if cc.Bool("json") {
		return nil
	}
	return a.print(func(w io.Writer) {
		wide := len(fmt.Sprint(largest(m)))
		for i := range m.Entries() {
			if sel != nil && !sel.Entries.Has(i) {
				continue
			}
			e := &m.Entries()[i]
			path := escape(e.Path)
			switch e.Kind {
			case manifest.Symlink:
				fmt.Fprintf(w, "l--------- %*s %19s %s -> %s\n", wide, "-", "-", path, escape(e.Target))
			case manifest.Dir:
				fmt.Fprintf(w, "d%s %*s %s %s/\n", e.Mode.String()[1:], wide, "-", e.ModTime().UTC().Format(time.DateTime), path)
			default:
				fmt.Fprintf(w, "%s %*d %s %s\n", e.Mode, wide, e.Size, e.ModTime().UTC().Format(time.DateTime), path)
			}
		}
	})
}

func kindText(k manifest.Kind) string {
	switch k {
	case manifest.Dir:
		return "dir"
	case manifest.Symlink:
		return "link"
	}
	return "file"
}

// selection returns what --only and --exclude choose: nil for everything.
func selection(m *manifest.Manifest, cc *cli.Context) (*manifest.Selection, error) {
	sel, err := choose(m, cc.StringSlice("only"), cc.StringSlice("exclude"))
	if err != nil {
		return nil, selectError(err)
	}
	return sel, nil
}

// choose returns what globs choose: nil for everything.
func choose(m *manifest.Manifest, only, exclude []string) (*manifest.Selection, error) {
	if len(only)+len(exclude) == 0 {
		return nil, nil
	}
	return m.Select(only, exclude)
}

// selectError says what to do about globs that choose nothing.
func selectError(err error) error {
	return &codedError{code: codeUsage, err: err, hint: "shoal ls shows what there is"}
}

func largest(m *manifest.Manifest) (n int64) {
	for i := range m.Entries() {
		n = max(n, m.Entries()[i].Size)
	}
	return n
}
