package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/chunk/crew"
)

// guard runs f. If it crashes, or any goroutine that a crew has, the user is told
// where the trace is and which line goes on, and the exit code is 1.
func (a *app) guard(f func() int) (code int) {
	undo := crew.OnCrash(func(v any) {
		a.crashed(v)
		os.Exit(codeOther)
	})
	defer undo()
	defer func() {
		if v := recover(); v != nil {
			a.crashed(v)
			code = codeOther
		}
	}()
	return f()
}

// crashed tells of a crash. It takes no lock: whoever has crashed may hold it.
func (a *app) crashed(v any) {
	trace := make([]byte, 1<<20)
	trace = trace[:runtime.Stack(trace, true)]
	what := redact(oneLine(fmt.Errorf("%v", v)))
	where := ""
	if name, err := writeTrace(home(), fmt.Sprintf("shoal %s, %s/%s, %s\n%s\n\n%s", version, runtime.GOOS, runtime.GOARCH, redact(quoteLine(a.args)), escape(what), redact(string(trace)))); err == nil {
		where = "; please report it with " + name
	}
	lead := ""
	if a.tty {
		lead = "\n" // below the bar
	}
	_, _ = io.WriteString(a.stderr, lead+escape("shoal: a mistake in shoal: "+what+where+"; what came is kept; to go on: "+a.sameLine())+"\n")
}

var (
	ticketLike = regexp.MustCompile(`shoal:[0-9A-Za-z]+`)
	bytesLike  = regexp.MustCompile(`(0x[0-9a-f]{1,2}, ){3,}`) // a root that a function was given
	rootLike   = regexp.MustCompile(`\b[0-9A-Za-z_-]{43}\b`)
)

// redact takes out what would let its reader fetch.
func redact(s string) string {
	s = bytesLike.ReplaceAllString(s, "")
	return rootLike.ReplaceAllString(ticketLike.ReplaceAllString(s, "shoal:..."), "...")
}

// maxTraces bounds the traces that are kept.
const maxTraces = 10

// writeTrace puts a trace into the state folder and returns its name.
func writeTrace(dir, text string) (string, error) {
	dir = filepath.Join(dir, "crashes")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, time.Now().UTC().Format("2006-01-02T150405Z")+"-*.txt")
	if err != nil {
		return "", err
	}
	_, err = io.WriteString(f, text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if entries, lerr := os.ReadDir(dir); lerr == nil { // by name, and so by time
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
			return !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".txt")
		})
		for _, e := range entries[:max(0, len(entries)-maxTraces)] {
			_ = os.Remove(filepath.Join(dir, e.Name())) // the next crash tries again
		}
	}
	return f.Name(), err
}
