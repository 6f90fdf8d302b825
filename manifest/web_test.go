package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// URLs of web servers are part of a manifest, in one form, and of its root.
func TestWebLines(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	plain, _, err := Build(t.Context(), []string{dir}, BuildOptions{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := Build(t.Context(), []string{dir}, BuildOptions{Name: "x", Web: []string{"https://z.example/x/", "http://a.example/", "https://z.example/x/"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.Web(), " "); got != "http://a.example/ https://z.example/x/" {
		t.Errorf("Web() is %q", got)
	}
	if plain.Root() == m.Root() || plain.Web() != nil {
		t.Error("the root does not cover the URLs")
	}
	again, err := Parse([]byte(m.Text()))
	if err != nil || again.Root() != m.Root() || len(again.Web()) != 2 {
		t.Errorf("Parse: %v, %v", again, err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"order", "web http://a.example/\n", "web https://zz.example/\n", "not in order"},
		{"twice", "web http://a.example/\n", "web https://z.example/x/\n", "comes twice"},
		{"scheme", "http://a", "ftp://a", "begins with http"},
		{"host", "http://a.example/", "http:///x", "begins with http"},
		{"password", "http://a", "http://u:p@a", "a user or a password"},
		{"query", "a.example/", "a.example/?q", "query"},
		{"fragment", "a.example/", "a.example/#", "query or a fragment"},
		{"space", "a.example/", "a.example/ ", "byte 0x20"},
		{"control", "a.example/", "a.example/\x1b", "byte 0x1b"},
		{"long", "a.example/", "a.example/" + strings.Repeat("x", MaxURL), "the limit is 1024"},
		{"many", "web http://a.example/\n", "web http://a/1\nweb http://a/2\nweb http://a/3\nweb http://a/4\nweb http://a/5\nweb http://a/6\nweb http://a/7\nweb http://a/8\n", "more than 8"},
		{"behind the cutter", "\nsize ", "\nweb https://zz.example/\nsize ", "size"},
	} {
		text := strings.Replace(m.Text(), tt.old, tt.new, 1)
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), ":p@") {
			t.Errorf("%s: the password is shown: %v", tt.name, err)
		}
	}
	if _, _, err := Build(t.Context(), []string{dir}, BuildOptions{Web: []string{"http://u:p@h/"}}); err == nil {
		t.Error("Build takes a password")
	}
}
