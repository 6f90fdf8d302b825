package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestPermute(t *testing.T) {
	tests := []struct{ name, in, want, err string }{
		{"nothing", "", "", ""},
		{"no flags", "get T D", "get -- T D", ""},
		{"flags first", "get -o x T", "get -o x -- T", ""},
		{"flags behind", "get T D -o x --seed", "get -o x --seed -- T D", ""},
		{"flags between", "get T --peer a:1 D --peer b:2", "get --peer a:1 --peer b:2 -- T D", ""},
		{"equals", "get T --peer=a:1 D", "get --peer=a:1 -- T D", ""},
		{"a value that looks like a flag", "get T --only -x", "get --only -x -- T", ""},
		{"a switch takes no value", "get T --seed D", "get --seed -- T D", ""},
		{"attached value", "get T -ox", "get -o x -- T", ""},
		{"one dash is an argument", "get - -o x", "get -o x -- -", ""},
		{"two dashes end flags", "share --name n -- -rf --json", "share --name n -- -rf --json", ""},
		{"two dashes as a value", "get --only -- T", "get --only -- -- T", ""},
		{"unknown flag stays for the parser", "get T --nope", "get --nope -- T", ""},
		{"subcommand", "manifest create P -o F", "manifest create -o F -- P", ""},
		{"flag before a subcommand", "manifest --help", "manifest --help", ""},
		{"unknown command", "gte T -o x", "gte T -o x", ""},
		{"program's own flag", "--version", "--version", ""},
		{"help", "help get", "get --help", ""},
		{"help alone", "help", "--help", ""},
		{"value missing", "get T -o", "", "flag -o needs a value (see shoal get --help)"},
		{"value missing in a subcommand", "manifest create P --output", "", "flag --output needs a value (see shoal manifest create --help)"},
	}
	a := &app{ui: newUI(os.Stdout, os.Stderr)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := permute(a.cli(), append([]string{"shoal"}, strings.Fields(tt.in)...))
			if errText(err) != tt.err {
				t.Fatalf("error %q, want %q", errText(err), tt.err)
			}
			if want := append([]string{"shoal"}, strings.Fields(tt.want)...); err == nil && !slices.Equal(got, want) {
				t.Errorf("permute(%s) = %q, want %q", tt.in, got, want)
			}
		})
	}
}

func TestPermuteLeavesItsInputAlone(t *testing.T) {
	a := &app{ui: newUI(os.Stdout, os.Stderr)}
	in := []string{"shoal", "help", "get", "T", "-o", "x"}
	was := slices.Clone(in)
	if _, err := permute(a.cli(), in); err != nil || !slices.Equal(in, was) {
		t.Errorf("input is now %q, %v", in, err)
	}
}

func TestQuoteLine(t *testing.T) {
	in := []string{"shoal", "get", "shoal:abc", "a b", "it's", "", "--only=*.jpg", "$(id)"}
	const want = `shoal get shoal:abc 'a b' 'it'\''s' '' '--only=*.jpg' '$(id)'`
	if got := quoteLine(in); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestQuoteLineWithoutSecrets(t *testing.T) {
	in := []string{"get", "--from=https://h/a?token=x", "https://ann:pw@h/b", "https://ghp_x@h", "a\nb'\x1b", "\xff", "x?y"}
	const want = `get '--from=https://h/a?QUERY' https://ann:PASSWORD@h/b https://USER@h $'a\012b\'\033' $'\377' 'x?y'`
	if got := quoteLine(in); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNear(t *testing.T) {
	for _, tt := range []struct {
		got, want string
		near      bool
	}{
		{"gte", "get", true},
		{"ge", "get", true},
		{"gett", "get", true},
		{"got", "get", true},
		{"shrae", "share", true},
		{"l", "ls", true},
		{"sl", "ls", true},
		{"foo", "ls", false},
		{"photos", "share", false},
		{"verfy", "verify", true},
	} {
		if got := near(tt.got, tt.want); got != tt.near {
			t.Errorf("near(%q, %q) = %v", tt.got, tt.want, got)
		}
	}
}
