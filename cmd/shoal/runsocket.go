package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
)

// Each get and share has a socket in the run folder, named after its process, to
// which it writes one answer for everyone who connects. Only this user can.
const (
	socketSuffix = ".sock"
	maxSocket    = 100       // bytes of a socket's name that every system takes
	maxAnswer    = 256 << 10 // bytes
	maxAsked     = 256       // sockets
	answerTime   = time.Second
	askTime      = 2 * time.Second // for all together
)

func runFolder() string { return filepath.Join(home(), "run") }

// serveRun makes the socket of this process. Whoever connects sends a channel on
// requests and is told what comes back.
func serveRun(c *crew.Crew) (requests chan chan *answer, stop func(), err error) {
	dir := runFolder()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	if err := ours(dir, fs.ModeDir, 0o077); err != nil {
		return nil, nil, err
	}
	name := filepath.Join(dir, strconv.Itoa(os.Getpid())+socketSuffix)
	if len(name) > maxSocket {
		return nil, nil, fmt.Errorf("the name %q is too long for a socket", name)
	}
	removeSocket(name) // of a process that had our number
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(name, 0o600); err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	requests, done := make(chan chan *answer), make(chan struct{})
	c.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := make(chan *answer, 1)
			select {
			case requests <- r:
				_ = conn.SetDeadline(time.Now().Add(answerTime))
				_ = json.NewEncoder(conn).Encode(<-r) // who does not read it goes without
			case <-done:
			}
			_ = conn.Close() // all was said
		}
	})
	return requests, func() {
		close(done)
		_ = l.Close() // and the socket goes
	}, nil
}

// ours reports, as an error, what is not of this type, belongs to somebody else, or
// is open to others.
func ours(name string, typ fs.FileMode, closed fs.FileMode) error {
	fi, err := os.Lstat(name)
	switch {
	case err != nil:
		return err
	case fi.Mode().Type() != typ:
		return fmt.Errorf("%q is not what it should be", name)
	case !ownedByUs(fi):
		return fmt.Errorf("%q belongs to somebody else", name)
	case modesCount && fi.Mode().Perm()&closed != 0:
		return fmt.Errorf("%q is open to others", name)
	}
	return nil
}

// removeSocket removes a socket of ours that nobody listens at any more.
func removeSocket(name string) {
	if ours(name, fs.ModeSocket, 0) == nil {
		_ = os.Remove(name) // it would only be in the way
	}
}

// askRunning asks all processes with a socket in dir at once, or the one with the
// number pid. Those that do not answer in time are left out.
func askRunning(dir string, pid int) []*answer {
	if ours(dir, fs.ModeDir, 0o077) != nil {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	names, _ := d.Readdirnames(maxAsked) // as many as there are
	_ = d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	var c crew.Crew
	got := make([]*answer, len(names))
	for i, name := range names {
		n, err := strconv.Atoi(strings.TrimSuffix(name, socketSuffix))
		if err != nil || !strings.HasSuffix(name, socketSuffix) || pid != 0 && n != pid {
			continue
		}
		path := filepath.Join(dir, name)
		if ours(path, fs.ModeSocket, 0) != nil {
			continue
		}
		c.Go(func() {
			if w, err := ask(ctx, path); err == nil && w.PID == n {
				got[i] = w
			} else if errors.Is(err, syscall.ECONNREFUSED) {
				removeSocket(path)
			}
		})
	}
	c.Wait()
	got = slices.DeleteFunc(got, func(w *answer) bool { return w == nil })
	slices.SortFunc(got, func(a, b *answer) int { return a.PID - b.PID })
	return got
}

func ask(ctx context.Context, path string) (*answer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	w := new(answer)
	if err := json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(w); err != nil {
		return nil, err
	}
	return w, nil
}
