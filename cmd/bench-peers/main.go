// Command bench-peers moves a file and a tree over loopback with shoal and with
// those of rsync, aria2 and curl that are installed, one after the other in
// turns, and prints the medians beside each other. It is for make bench-peers.
//
// What is compared is not the same: shoal encrypts, hashes and flushes what it
// fetches; rsync's daemon, and HTTP for the other two, do none of these.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	shoal := flag.String("shoal", "./shoal", "the `binary` to measure")
	size := flag.Int64("size", 1<<30, "`bytes` of the file")
	files := flag.Int("files", 5000, "`number` of files in the tree, of 10 KB each")
	runs := flag.Int("runs", 5, "`times` that each is run")
	dir := flag.String("dir", "", "`folder` to work in, instead of a temporary one")
	flag.Parse()
	if err := run(*shoal, *dir, *size, *files, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench-peers:", err)
		os.Exit(1)
	}
}

// A contestant fetches one thing from a server that it has started.
type contestant struct {
	name  string
	get   func(out string) *exec.Cmd
	stop  func() error
	taken []taken
}

// taken is what one run took.
type taken struct {
	wall, cpu time.Duration // cpu: of the receiver
	rss       int64         // bytes, at most, of the receiver; 0 if unknown
}

func run(shoal, dir string, size int64, files, runs int) (err error) {
	if shoal, err = filepath.Abs(shoal); err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "bench-peers"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, tree := filepath.Join(dir, "source", "file"), filepath.Join(dir, "source", "tree")
	if err := writeNoise(file, size); err != nil {
		return err
	}
	for i := range files {
		if err := writeNoise(filepath.Join(tree, fmt.Sprint(i%100), fmt.Sprint(i)), 10_000); err != nil {
			return err
		}
	}
	fmt.Printf("%s/%s, %d cores; medians of %d runs in turn, over loopback\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runs)
	for _, what := range []struct {
		name, path string
		bytes      int64
	}{
		{fmt.Sprintf("one file of %d MB", size/1e6), file, size},
		{fmt.Sprintf("%d files of 10 KB", files), tree, int64(files) * 10_000},
	} {
		cs, err := contestants(shoal, dir, what.path)
		if err == nil {
			err = race(cs, filepath.Join(dir, "out"), runs)
		}
		for _, c := range cs {
			err = errors.Join(err, c.stop())
		}
		if err != nil {
			return err
		}
		if err := table(os.Stdout, what.name, what.bytes, cs); err != nil {
			return err
		}
	}
	return nil
}

func writeNoise(name string, n int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, n)
	return errors.Join(err, f.Close())
}

// contestants starts the servers for path, shoal's first. Those that were
// started are returned with an error, too.
func contestants(shoal, dir, path string) (cs []*contestant, err error) {
	start := func(f func() (*contestant, error)) {
		if err != nil {
			return
		}
		var c *contestant
		if c, err = f(); c != nil {
			cs = append(cs, c)
		}
	}
	start(func() (*contestant, error) { return startShoal(shoal, dir, path) })
	if has("rsync") {
		start(func() (*contestant, error) { return startRsync(dir, path) })
	}
	if fi, serr := os.Stat(path); serr != nil || fi.IsDir() {
		return cs, errors.Join(err, serr)
	}
	for _, web := range []struct {
		name string
		args func(out, url string) []string
	}{
		{"curl", func(out, url string) []string { return []string{"--silent", "--fail", "-o", out, url} }},
		{"aria2c", func(out, url string) []string {
			return []string{"--quiet", "-x4", "-s4", "--file-allocation=falloc", "-d", filepath.Dir(out), "-o", filepath.Base(out), url}
		}},
	} {
		if has(web.name) {
			start(func() (*contestant, error) { return startWeb(web.name, path, web.args) })
		}
	}
	return cs, err
}

func has(name string) bool {
	_, err := exec.LookPath(name)
	if err != nil {
		fmt.Println(name + " is not installed")
	}
	return err == nil
}

func startShoal(shoal, dir, path string) (*contestant, error) {
	s := exec.Command(shoal, "share", "--json", "--quiet", "--listen", "127.0.0.1:0", path)
	s.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, "seed"), "SHOAL_NO_LAN=1")
	s.Stderr = os.Stderr
	out, err := s.StdoutPipe()
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		return nil, err
	}
	c := &contestant{name: "shoal", stop: func() error { return end(s) }}
	var e struct{ Event, Ticket, Listen string }
	for lines := bufio.NewScanner(out); e.Event != "ticket"; {
		if !lines.Scan() {
			return c, errors.New("shoal share has ended without a ticket")
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return c, err
		}
	}
	c.get = func(out string) *exec.Cmd {
		g := exec.Command(shoal, "get", "--quiet", "--listen", "127.0.0.1:0", "-o", out, "--peer", e.Listen, e.Ticket)
		g.Env = append(os.Environ(), "SHOAL_HOME="+filepath.Join(dir, "leech"), "SHOAL_NO_LAN=1")
		return g
	}
	return c, nil
}

// end stops a server that was started here.
func end(s *exec.Cmd) error {
	if err := s.Process.Kill(); err != nil {
		return err
	}
	_ = s.Wait() // it was killed
	return nil
}

func startRsync(dir, path string) (*contestant, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "rsyncd.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "use chroot = no\n[x]\npath = %s\n", filepath.Dir(path)), 0o600); err != nil {
		return nil, err
	}
	s := exec.Command("rsync", "--daemon", "--no-detach", "--address=127.0.0.1", fmt.Sprint("--port=", port), "--config="+conf)
	s.Stderr = os.Stderr
	if err := s.Start(); err != nil {
		return nil, err
	}
	c := &contestant{name: "rsync", stop: func() error { return end(s) }}
	c.get = func(out string) *exec.Cmd {
		return exec.Command("rsync", "-a", "--whole-file", fmt.Sprintf("rsync://127.0.0.1:%d/x/%s", port, filepath.Base(path)), out)
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		probe, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			return c, probe.Close()
		}
		if time.Now().After(until) {
			return c, err
		}
	}
}

func startWeb(name, path string, args func(out, url string) []string) (*contestant, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir(filepath.Dir(path))), ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return &contestant{
		name: name,
		get: func(out string) *exec.Cmd {
			return exec.Command(name, args(out, fmt.Sprintf("http://%s/%s", l.Addr(), filepath.Base(path)))...)
		},
		stop: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			err := srv.Shutdown(ctx)
			if served := <-done; !errors.Is(served, http.ErrServerClosed) {
				err = errors.Join(err, served)
			}
			return err
		},
	}, nil
}

// race lets each contestant fetch to out in turn, so that what else the machine
// does meets all of them alike.
func race(cs []*contestant, out string, runs int) error {
	for range runs {
		for _, c := range cs {
			if err := os.RemoveAll(out); err != nil {
				return err
			}
			g := c.get(out)
			var said strings.Builder
			g.Stderr = &said
			began := time.Now()
			if err := g.Run(); err != nil {
				return fmt.Errorf("%s: %w: %s", c.name, err, said.String())
			}
			p := g.ProcessState
			c.taken = append(c.taken, taken{time.Since(began), p.UserTime() + p.SystemTime(), peakRSS(p)})
		}
	}
	return os.RemoveAll(out)
}

func table(w io.Writer, title string, size int64, cs []*contestant) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\n%s\ttime\trate\tCPU\tmemory\ttime beside shoal's\t\n", title)
	var ours time.Duration
	for _, c := range cs {
		wall := median(c.taken, func(t taken) time.Duration { return t.wall })
		if ours == 0 {
			ours = wall
		}
		fmt.Fprintf(t, "%s\t%.2f s\t%.0f MB/s\t%.2f s\t%.0f MB\t%.2f\t\n", c.name, wall.Seconds(),
			float64(size)/1e6/wall.Seconds(), median(c.taken, func(t taken) time.Duration { return t.cpu }).Seconds(),
			float64(median(c.taken, func(t taken) int64 { return t.rss }))/1e6, float64(wall)/float64(ours))
	}
	return t.Flush()
}

func median[T int64 | time.Duration](ts []taken, of func(taken) T) T {
	var all []T
	for _, t := range ts {
		all = append(all, of(t))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
