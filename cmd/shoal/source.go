package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

// A source is what a TICKET|FILE.shoal argument stands for.
type source struct {
	root     chunk.Hash
	addrs    []string
	manifest *manifest.Manifest // nil for a ticket
	name     string             // for messages; never a ticket
}

// parseSource reads a TICKET|FILE.shoal argument. A file of that name wins.
func parseSource(arg string) (source, error) {
	arg, err := ticketText(arg)
	if err != nil {
		return source{}, err
	}
	fi, err := os.Stat(arg)
	if err == nil {
		m, err := readManifest(arg, fi)
		if err != nil {
			return source{}, err
		}
		return source{root: m.Root(), manifest: m, name: arg}, nil
	}
	if !strings.HasPrefix(strings.TrimSpace(arg), "shoal:") {
		if filepath.Ext(arg) == ".shoal" || strings.ContainsRune(arg, filepath.Separator) {
			if errors.Is(err, fs.ErrNotExist) {
				return source{}, usagef("there is no file %q", arg)
			}
			return source{}, err
		}
		if len(arg) > 64 { // it may well be a ticket, which is not to be shown
			return source{}, usagef("the argument is neither a ticket (shoal:...) nor a file")
		}
		return source{}, usagef("%q is neither a ticket (shoal:...) nor a file", arg)
	}
	t, err := manifest.ParseTicket(arg)
	switch {
	case errors.Is(err, manifest.ErrVersion):
		return source{}, &codedError{code: codeUsage, err: err, hint: "it needs another version of shoal"}
	case err != nil:
		return source{}, &codedError{code: codeUsage, err: err, hint: "copy it again, whole and as one line"}
	}
	return source{root: t.Root, addrs: t.Addrs, name: "the ticket"}, nil
}

// readManifest reads a manifest file.
func readManifest(name string, fi fs.FileInfo) (*manifest.Manifest, error) {
	switch {
	case fi.IsDir():
		return nil, usagef("%q is a folder; a ticket or a manifest file (FILE.shoal) is needed", name)
	case !fi.Mode().IsRegular():
		return nil, usagef("%q is not a regular file", name)
	case fi.Size() > manifest.MaxText:
		return nil, refuse(codeRefused, "", "%q is not a manifest: it has %d bytes, and the limit is %d", name, fi.Size(), manifest.MaxText)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, manifest.MaxText+1))
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(text)
	if err != nil {
		return nil, &codedError{code: codeRefused, err: fmt.Errorf("%q: %w", name, err), hint: "nothing was done; get the file again, or use a ticket"}
	}
	return m, nil
}

// manifestFile reads an argument that must be a manifest file.
func manifestFile(arg string) (*manifest.Manifest, error) {
	fi, err := os.Stat(arg)
	if errors.Is(err, fs.ErrNotExist) {
		if strings.HasPrefix(arg, "shoal:") {
			return nil, usagef("a manifest file is needed here, not a ticket; shoal ls shows what a ticket leads to")
		}
		return nil, usagef("there is no file %q", arg)
	}
	if err != nil {
		return nil, err
	}
	return readManifest(arg, fi)
}

// writeManifest writes m to a file, whole or not at all. It replaces only what
// is a manifest itself.
func writeManifest(name string, m *manifest.Manifest) error {
	switch fi, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case fi.IsDir():
		return refuse(codeRefused, "name the file, such as "+filepath.Join(name, m.Name()+".shoal"), "%q is a folder", name)
	case fi.Mode().IsRegular() && fi.Size() > 0:
		old, err := head(name, len(manifestMagic))
		if err != nil {
			return err
		}
		if old != manifestMagic {
			return refuse(codeRefused, "choose another name or move it away", "%q exists and is not a manifest", name)
		}
	case !fi.Mode().IsRegular(): // /dev/stdout, a named pipe
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, m.Text())
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".shoal-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = io.WriteString(f, m.Text())
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

const manifestMagic = "shoal-manifest "

// head returns the first n bytes of a file, or as many as it has.
func head(name string, n int) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(n)))
	return string(b), err
}

// resolve returns the manifest of a source, asking the peers if it must.
func (a *app) resolve(ctx context.Context, cc *cli.Context, src source) (*manifest.Manifest, error) {
	if src.manifest != nil {
		return src.manifest, nil
	}
	peers, err := parsePeers("peer", cc.StringSlice("peer"))
	if err != nil {
		return nil, err
	}
	timeout, err := timeoutOf(cc, "timeout")
	if err != nil {
		return nil, err
	}
	sources, err := fromSources(cc.StringSlice("from"), new(request)) // a pack has the manifest, too
	if err != nil {
		return nil, err
	}
	defer closeSources(sources)
	n, err := newNetwork()
	if err != nil {
		return nil, err
	}
	defer n.Close()
	var waits waitings
	var here present
	addrs := merge(src.addrs, peers)
	discover := a.discoverer(cc, src.root, netip.AddrPort{})
	return fetchManifest(ctx, n, transfer.GetOptions{Root: src.root, Addrs: addrs, Sources: sources, Discover: discover, Timeout: timeout, Network: n, Events: func(e transfer.Event) {
		switch e := e.(type) {
		case transfer.PeerUp:
			here.up(e.ID, e.Addr)
		case transfer.PeerDown:
			here.down(e.ID)
		case transfer.Waiting:
			if text := waits.text(e.Reasons, len(here.by), len(addrs) > 0 || discover == nil); text != "" {
				a.sayf("%s", text)
			}
		}
	}})
}

// merge returns the addresses of both, each once.
func merge(a, b []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, l := range [][]string{a, b} {
		for _, s := range l {
			if !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}

// fetchManifest gets the manifest alone: from a get that ends as soon as it
// knows what it would fetch, and that has an empty folder of its own to do it in.
func fetchManifest(ctx context.Context, n network, o transfer.GetOptions) (*manifest.Manifest, error) {
	dir, err := os.MkdirTemp("", "shoal-ls-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var m *manifest.Manifest
	events := o.Events
	o.Dir, o.AnyName = dir, true
	o.Events = func(e transfer.Event) {
		if f, ok := e.(transfer.Found); ok {
			m = f.Manifest
			cancel()
		}
		if events != nil {
			events(e)
		}
	}
	_, err = transfer.Get(ctx, o)
	if m != nil {
		return m, nil
	}
	return nil, err
}
