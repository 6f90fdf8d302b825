package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A ui speaks to people, on stderr. Its methods may be called from any
// goroutine. Whatever it is told comes out as one line in which nothing can
// act on a terminal.
type ui struct {
	stdout, stderr *os.File
	tty            bool // stderr can show a bar

	mu    sync.Mutex
	quiet bool
	debug bool
	json  bool // standard output is JSON lines
	bar   *progressbar.ProgressBar
	at    int64 // where the bar is
	below bool  // a status stands in the last line
}

func newUI(stdout, stderr *os.File) *ui {
	t := os.Getenv("TERM")
	return &ui{stdout: stdout, stderr: stderr, tty: term.IsTerminal(int(stderr.Fd())) && t != "dumb"}
}

func (u *ui) set(quiet, debug bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.quiet, u.debug = quiet, debug
}

// sayf prints a line, unless the user wants quiet.
func (u *ui) sayf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.quiet {
		u.line(fmt.Sprintf(format, args...))
	}
}

// warnf prints a line that the user should see.
func (u *ui) warnf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.line("shoal: warning: " + fmt.Sprintf(format, args...))
}

// debugf prints a line for those who look for a fault.
func (u *ui) debugf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.debug {
		u.line("debug: " + fmt.Sprintf(format, args...))
	}
}

func (u *ui) isQuiet() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.quiet
}

// bottom shows a text in the last line of a terminal, in the place of the one
// before. What does not fit is cut off.
func (u *ui) bottom(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tty && !u.quiet && u.bar == nil {
		u.last(text)
	}
}

// last is bottom. u.mu is held.
func (u *ui) last(text string) {
	out := []rune(escape(text))
	if room := u.width() - 1; len(out) > room {
		out = append(out[:max(room-1, 0)], '…')
	}
	u.below = true
	_, _ = io.WriteString(u.stderr, "\r"+escape(string(out))+"\x1b[K") // nobody left to tell
}

// clear takes away what stands in the last line. u.mu is held.
func (u *ui) clear() {
	if u.below {
		u.below = false
		_, _ = io.WriteString(u.stderr, "\r\x1b[K")
	}
}

// struck is called at Ctrl-C: the terminal has written ^C into the last line. It
// does not wait for a terminal that was stopped: the next Ctrl-C must count.
func (u *ui) struck() {
	if !u.mu.TryLock() {
		return
	}
	defer u.mu.Unlock()
	u.below = u.tty
}

// width returns the columns of the terminal.
func (u *ui) width() int {
	width, _, err := term.GetSize(int(u.stderr.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// line prints s. u.mu is held.
func (u *ui) line(s string) {
	u.clear()
	if u.bar != nil {
		_ = u.bar.Clear()
	}
	_, _ = io.WriteString(u.stderr, escape(s)+"\n") // nobody left to tell
}

// leastWidth is the columns that a bar needs. Where there are less there is a
// figure.
const leastWidth = 20

// ctrlC is room for ^C behind a bar, which would else begin another line.
const ctrlC = "  "

// progress shows a bar at done of total bytes with text behind it.
func (u *ui) progress(done, total int64, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.tty || u.quiet || total <= 0 {
		return
	}
	width := u.width()
	if width < leastWidth {
		if u.bar != nil {
			_ = u.bar.Clear()
			_ = u.bar.Exit()
			u.bar = nil
		}
		u.last(fmt.Sprintf("%d%%", percent(done, total)))
		return
	}
	u.clear()
	if u.bar == nil {
		u.bar = progressbar.NewOptions64(
			total,
			progressbar.OptionSetWriter(u.stderr),
			progressbar.OptionFullWidth(),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionShowDescriptionAtLineEnd(),
			progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}),
		)
	}
	if u.bar.GetMax64() != total {
		u.bar.ChangeMax64(total)
	}
	u.bar.Describe(escape(shorten(text, max(0, width-18))) + ctrlC)
	u.at = min(done, total)
	_ = u.bar.Set64(u.at)
	_, _ = io.WriteString(u.stderr, "\b\b") // as many as ctrlC has
}

// shorten cuts a text, made of parts with ", " between them, to whole parts
// that have room.
func shorten(text string, room int) string {
	for len(text) > room {
		i := strings.LastIndex(text, ", ")
		if i < 0 {
			return ""
		}
		text = text[:i]
	}
	return text
}

// finishBar takes the bar away.
func (u *ui) finishBar() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if u.bar != nil {
		_ = u.bar.Clear()
		_ = u.bar.Exit()
		u.bar = nil
	}
}

// escape returns s without anything that could act on a terminal, or change
// how what follows is read: such runes, and bytes that are not UTF-8, come out
// as Go would write them in a string.
func escape(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsGraphic(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case strconv.IsGraphic(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// bytesText returns n as people read it, in powers of 1000.
func bytesText(n int64) string { return humanize.Bytes(uint64(max(0, n))) }

func percent(done, total int64) int {
	if total <= 0 {
		return 100
	}
	return int(float64(done) / float64(total) * 100)
}

// count returns "1 file", "2 files".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return humanize.Comma(int64(n)) + " " + noun + "s"
}

// durationText returns d as people read it: "0.8 s", "42 s", "3 min", "2 h 5 min".
func durationText(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// jsonEvery is the least time between two events that only tell how far a get is.
const jsonEvery = 500 * time.Millisecond

// jsonVersion is the version of the events that --json prints. It changes when
// a field goes or changes its meaning, not when one is added. Each event is in
// README.md and in testdata/json/events.schema.json.
const jsonVersion = 1

// event prints one line of JSON on stdout.
func (u *ui) event(name string, fields map[string]any) error {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["shoal"], fields["event"] = jsonVersion, name
	b, err := json.Marshal(fields)
	if err != nil {
		panic("shoal: internal error: " + err.Error())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, err = u.stdout.Write(append(asciiControls(b), '\n'))
	return err
}

// asciiControls escapes what encoding/json leaves as it is although it can
// change how a text is displayed, such as DEL and bidirectional controls.
func asciiControls(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r >= 0x7f && !strconv.IsGraphic(r) && out == nil {
			out = append(make([]byte, 0, len(b)+16), b[:i]...)
		}
		if out != nil {
			switch {
			case r < 0x7f || strconv.IsGraphic(r):
				out = append(out, b[i:i+n]...)
			case r > 0xffff:
				r -= 0x10000
				out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			default:
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		}
		i += n
	}
	if out == nil {
		return b
	}
	return out
}
