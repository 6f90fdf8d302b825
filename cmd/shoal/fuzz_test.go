package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoal-p2p/shoal/manifest"
)

// hostileTexts are what foreign names, messages and agents may hold.
var hostileTexts = []string{
	"", "plain", "\x1b[2J", "\x1b]8;;http://x\x07y\x1b]8;;\x07", "\x1b]52;c;aGk=\x07", "a\rb", "a\nb", "\x07", "\u202egpj.exe", "\u2066x",
	"\u009b31m", "\x9b31m", "\xff\xfe", "\u2028", "\u200b", "\U000e0001", "é日本🎉", "<img src=x onerror=alert(1)>", "%s%n%!(EXTRA", `\x1b`,
	`"'\`, "\x00", "$(id)", "`id`", ";x", "-rf", strings.Repeat("\u202e", 1000),
}

// U01: nothing that comes out of escape can act on a terminal, and what is harmless
// comes out as it is.
func FuzzEscape(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := escape(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q comes out as %q", s, got)
		}
		clean := true
		for _, r := range s {
			clean = clean && strconv.IsGraphic(r)
		}
		for _, r := range got {
			if !strconv.IsGraphic(r) {
				t.Fatalf("%q comes out with %U", s, r)
			}
		}
		if clean && utf8.ValidString(s) && got != s {
			t.Fatalf("%q comes out as %q", s, got)
		}
		if again := escape(got); again != got {
			t.Fatalf("%q comes out as %q, and that as %q", s, got, again)
		}
	})
}

// U01: an event is one line of valid JSON with the same meaning.
func FuzzEvent(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := json.Marshal(map[string]string{"text": s})
		must(t, err)
		got := asciiControls(b)
		for _, r := range string(got) {
			if !strconv.IsGraphic(r) {
				t.Fatalf("%q comes out with %U", s, r)
			}
		}
		var before, after map[string]string
		must(t, json.Unmarshal(b, &before))
		must(t, json.Unmarshal(got, &after))
		if before["text"] != after["text"] {
			t.Fatalf("%q comes out as %q", before["text"], after["text"])
		}
	})
}

// unquote splits a line as a POSIX shell does, as far as quoteLine goes.
func unquote(line string) (args []string, ok bool) {
	for line != "" {
		var b strings.Builder
		for line != "" && line[0] != ' ' {
			if strings.HasPrefix(line, "$'") {
				in, rest, ok := unquoteNumbers(line[2:])
				if !ok {
					return nil, false
				}
				b.WriteString(in)
				line = rest
				continue
			}
			switch line[0] {
			case '\'':
				in, rest, ok := strings.Cut(line[1:], "'")
				if !ok {
					return nil, false
				}
				b.WriteString(in)
				line = rest
			case '\\':
				if len(line) < 2 {
					return nil, false
				}
				b.WriteByte(line[1])
				line = line[2:]
			default:
				if strings.IndexByte("\n\t;&|<>()$`\"*?[#~!{}", line[0]) >= 0 {
					return nil, false // the shell would act on it
				}
				b.WriteByte(line[0])
				line = line[1:]
			}
		}
		args = append(args, b.String())
		line = strings.TrimPrefix(line, " ")
	}
	return args, true
}

// unquoteNumbers reads what stands behind $' up to the end of the quotation.
func unquoteNumbers(line string) (in, rest string, ok bool) {
	var b []byte
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\'':
			return string(b), line[i+1:], true
		case line[i] < ' ' || line[i] >= 0x7f:
			return "", "", false
		case line[i] != '\\':
			b = append(b, line[i])
		case i+3 < len(line) && line[i+1] >= '0' && line[i+1] <= '3':
			n, err := strconv.ParseUint(line[i+1:i+4], 8, 8)
			if err != nil {
				return "", "", false
			}
			b = append(b, byte(n))
			i += 3
		case i+1 < len(line):
			b = append(b, line[i+1])
			i++
		}
	}
	return "", "", false
}

// P20: the line that goes on with a get is for a shell the arguments as they were,
// but for the secrets in URLs, which it does not show.
func FuzzQuoteLine(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add("get", s)
	}
	f.Add("--from=http://user:it's secret@host/a", "x://5:y@;\x07")
	f.Fuzz(func(t *testing.T, a, b string) {
		args := []string{"shoal", a, b}
		line := quoteLine(args)
		want := []string{"shoal", withoutSecrets(a), withoutSecrets(b)}
		if got, ok := unquote(line); !ok || !slices.Equal(got, want) {
			t.Fatalf("%q becomes %q, which is %q and not %q", args, line, got, want)
		}
	})
}

// The arguments behind "--", and those that are no flags, all come through, in order.
func FuzzPermute(f *testing.F) {
	f.Add("a\x00-o\x00x\x00b", "c")
	f.Add("--only=x\x00--\x00-rf", "-q")
	f.Add("-oy\x00-", "--")
	a := (&app{ui: newUI(os.Stdout, os.Stderr)}).cli()
	f.Fuzz(func(t *testing.T, list, last string) {
		args := append([]string{"shoal", "get"}, strings.Split(list, "\x00")...)
		args = append(args, "operand", "--", last) // what stands before "--" may be a flag that takes it as its value
		before := slices.Clone(args)
		got, err := permute(a, args)
		if !slices.Equal(args, before) {
			t.Fatalf("%q was changed to %q", before, args)
		}
		if err == nil && got[len(got)-1] != last {
			t.Fatalf("%q becomes %q", args, got)
		}
	})
}

// Addresses that a user gives are what a ticket can carry, or are refused.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"192.0.2.1:80", "host", "[::1]:1", "::1", ":80", "80", "a,b:1", "[fe80::1%eth0]:1", "off", "host:http"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addrs, err := parsePeers("peer", []string{s})
		for _, addr := range addrs {
			if cerr := manifest.CheckAddr(addr); err == nil && cerr != nil {
				t.Errorf("%q gives %q: %v", s, addr, cerr)
			}
		}
		if _, _, err := parseListen(s); err != nil {
			_, _ = explain(err) // whatever it is, it can be said
		}
	})
}

// What an interrupted get has left for resume is somebody else's as soon as the
// folder is.
func FuzzRequest(f *testing.F) {
	good, err := json.Marshal(request{Version: 1, Addrs: []string{"192.0.2.1:80"}, Only: []string{"*.jpg"}, AnyName: true})
	must(f, err)
	f.Add(good)
	f.Add([]byte(`{"shoal":1,"addrs":["\u001b[2J"]}`))
	f.Add([]byte(`{"shoal":9}`))
	f.Add(bytes.Repeat([]byte("["), 10_000))
	f.Fuzz(func(t *testing.T, p []byte) {
		var req request
		if json.Unmarshal(p, &req) != nil {
			return
		}
		again, err := json.Marshal(req)
		must(t, err)
		var back request
		must(t, json.Unmarshal(again, &back))
	})
}
