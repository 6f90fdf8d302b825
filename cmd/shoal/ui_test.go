package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain \"quoted\" é 日本": "plain \"quoted\" é 日本",
		"\x1b[31mred":           `\x1b[31mred`,
		"a\rb\nc\td":            `a\rb\nc\td`,
		"\u202egpj.exe":         `\u202egpj.exe`,
		"zero\u200bwidth":       `zero\u200bwidth`,
		"line\u2028sep":         `line\u2028sep`,
		"bad \xff\xfe utf-8":    `bad \xff\xfe utf-8`,
		"c1 \u009b31m":          `c1 \u009b31m`,
		"\x07\x00\x7f":          `\a\x00\x7f`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEventIsOneSafeLine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	u := newUI(w, w)
	const text = "\x1b]8;;x\x07 \u202e \U000e0001 <b> \xff \n日本"
	if err := u.event("test", map[string]any{"text": text}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	line := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if got := escape(string(line)); got != string(line) {
		t.Errorf("it can act on a terminal: %s", got)
	}
	var got struct {
		Shoal       int
		Event, Text string
	}
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b]8;;x\x07 \u202e \U000e0001 <b> \ufffd \n日本"; got.Text != want || got.Event != "test" || got.Shoal != jsonVersion {
		t.Errorf("got %+v", got)
	}
}

func TestShorten(t *testing.T) {
	const text = "1 GB of 2 GB, 50 MB/s, 20 s left, 3 peers"
	for room, want := range map[int]string{100: text, 40: "1 GB of 2 GB, 50 MB/s, 20 s left", 15: "1 GB of 2 GB", 5: ""} {
		if got := shorten(text, room); got != want {
			t.Errorf("shorten(%d) = %q, want %q", room, got, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		300 * time.Millisecond: "0.3 s", 42 * time.Second: "42 s", 3 * time.Minute: "3 min", 125 * time.Minute: "2 h 5 min",
	} {
		if got := durationText(d); got != want {
			t.Errorf("durationText(%v) = %q, want %q", d, got, want)
		}
	}
	if got := count(1, "file") + ", " + count(2000, "file"); got != "1 file, 2,000 files" {
		t.Error(got)
	}
	if percent(999, 1000) != 99 || percent(0, 0) != 100 || percent(1<<50, 1<<51) != 50 {
		t.Error(percent(999, 1000), percent(0, 0), percent(1<<50, 1<<51))
	}
}
