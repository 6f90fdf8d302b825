package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/state"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// A pending is a get that has not ended well yet: a part on disk, or the memory of
// one that is not where it was.
type pending struct {
	dir, final string
	part       store.Part      // zero if it is gone
	record     *state.Transfer // nil if it is not on the list
	gone       bool
	running    bool
	owner      string // who is at work on it
}

func (p *pending) dest() string { return filepath.Join(p.dir, p.final) }

// path returns the absolute name of the part.
func (p *pending) path() string {
	path, err := filepath.Abs(p.dest() + manifest.PartSuffix)
	if err != nil {
		return p.dest() + manifest.PartSuffix
	}
	return path
}

// locked returns the error of one that is running.
func (p *pending) locked() error {
	return &store.LockedError{Path: p.dest(), Owner: strings.TrimSpace(p.owner)}
}

// since returns when it was begun or, if nobody knows, last worked on.
func (p *pending) since() time.Time {
	if p.record != nil && !p.record.Started.IsZero() {
		return p.record.Started
	}
	return p.part.ModTime
}

// from returns the addresses that it was told.
func (p *pending) from() []string {
	var req request
	if json.Unmarshal(p.part.Request, &req) != nil {
		return nil
	}
	return req.Addrs
}

// total returns the bytes of the share.
func (p *pending) total() int64 {
	if p.record != nil {
		return cmp.Or(p.part.Total, p.record.Size)
	}
	return p.part.Total
}

// pendingIn returns the interrupted gets in a folder.
func pendingIn(dir string) ([]*pending, error) {
	d, err := store.OpenDisk(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	parts, err := store.Find(d)
	if err != nil {
		return nil, err
	}
	var out []*pending
	for _, part := range parts {
		p := &pending{dir: dir, final: part.Final, part: part}
		p.owner, p.running = d.Running(part.Final)
		out = append(out, p)
	}
	return out, nil
}

// pending returns the interrupted gets in dir, and those on the list of transfers.
// One on the list that is not where it was, and lies in dir, has moved: the list
// follows it.
func (a *app) pending(dir string) ([]*pending, error) {
	out, err := pendingIn(dir)
	if err != nil {
		return nil, err
	}
	st := a.state()
	listed, err := st.Transfers()
	if err != nil {
		a.debugf("list of transfers: %v", err)
	}
	var away []*state.Transfer
	for i := range listed {
		t := &listed[i]
		if j := slices.IndexFunc(out, func(p *pending) bool { return sameFile(p.path(), t.Part) }); j >= 0 {
			out[j].record = t
			continue
		}
		in, err := pendingIn(filepath.Dir(t.Part))
		if err != nil {
			a.debugf("%s: %v", t.Dest, err)
		}
		j := slices.IndexFunc(in, func(p *pending) bool { return p.final+manifest.PartSuffix == filepath.Base(t.Part) })
		if j < 0 {
			away = append(away, t)
			continue
		}
		in[j].record = t
		out = append(out, in[j])
	}
	for _, t := range away {
		j := slices.IndexFunc(out, func(p *pending) bool { return p.record == nil && p.part.Root.String() == t.Root })
		if j < 0 {
			out = append(out, &pending{dir: filepath.Dir(t.Dest), final: filepath.Base(t.Dest), record: t, gone: true})
			continue
		}
		p := out[j]
		p.record = t
		dest, err := filepath.Abs(p.dest())
		if err == nil {
			err = st.Move(*t, p.path(), dest)
		}
		if err != nil {
			a.debugf("list of transfers: %v", err)
		}
	}
	return out, nil
}

func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

// topMissing returns the topmost folder that has to be made for dir, or "".
func topMissing(dir string) string {
	top := ""
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return top
		}
		top, dir = dir, filepath.Dir(dir)
	}
}
