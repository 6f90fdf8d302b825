package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/web"
)

// A manifest reaches a web server on this machine only where all peers are on it,
// too: a loopback address in a ticket, beside that of its author, opens nothing.
func TestManifestReachesLoopback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "data"), noise(1000), 0o644))
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "data")}, manifest.BuildOptions{})
	must(t, err)
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		addrs []string
		want  bool
	}{
		{nil, false},
		{[]string{"203.0.113.9:7420"}, false},
		{[]string{"127.0.0.1:1", "203.0.113.9:7420"}, false},
		{[]string{"203.0.113.9:7420", "localhost:1"}, false},
		{[]string{"127.0.0.1:1"}, true},
		{[]string{"[::1]:1", "localhost:1"}, true},
	} {
		src, err := webSource(tt.addrs)(s.URL + "/data")
		must(t, err)
		_, err = src.Open(t.Context(), m)
		var private *web.PrivateError
		if tt.want && err != nil || !tt.want && !errors.As(err, &private) {
			t.Errorf("with peers at %q: %v", tt.addrs, err)
		}
	}
}
