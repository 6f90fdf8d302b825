package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alone is a network without peers.
type alone struct{}

func (alone) Dial(context.Context, string, [32]byte) (transfer.Conn, error) {
	return nil, errors.New("nobody is there")
}
func (alone) Accept([32]byte, func(transfer.Conn)) (stop func()) { return func() {} }
func (alone) ID() [32]byte                                       { return [32]byte{1} }
func (alone) IsSelf(error) bool                                  { return false }
func (alone) IsNoShare(error) bool                               { return false }

// share makes a folder with large, small and oddly named files, and its manifest.
func share(t *testing.T) (dir string, m *manifest.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "photos")
	for name, n := range map[string]int{
		"big.bin": 900_000, "sub/a b%20c?d#e.txt": 3000, "sub/ü;&+.bin": 200_000, "sub/empty": 0, "z": 1,
	} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, n)
		x := uint32(n) + 1
		for i := range p {
			x = x*1664525 + 1013904223
			p[i] = byte(x >> 24)
		}
		if err := os.WriteFile(name, p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, _, err := manifest.Build(t.Context(), []string{dir}, manifest.BuildOptions{AnyName: true})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// get fetches m from URLs alone.
func get(t *testing.T, m *manifest.Manifest, urls ...string) (dest string, res *transfer.Result, warnings []string, err error) {
	t.Helper()
	o := transfer.GetOptions{Manifest: m, Dir: t.TempDir(), AnyName: true, Timeout: 20 * time.Second, Network: alone{}}
	for _, u := range urls {
		s, err := web.New(u)
		if err != nil {
			t.Fatal(err)
		}
		o.Sources = append(o.Sources, s)
	}
	o.Events = func(e transfer.Event) {
		if w, ok := e.(transfer.Warning); ok {
			warnings = append(warnings, w.Text)
		}
	}
	res, err = transfer.Get(t.Context(), o)
	return filepath.Join(o.Dir, m.Name()), res, warnings, err
}

func checkTree(t *testing.T, m *manifest.Manifest, dest string) {
	t.Helper()
	err := manifest.Verify(t.Context(), m, nil, dest, func(d manifest.Difference) {
		if d.Failed() {
			t.Errorf("%+v", d)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// A share is fetched whole from a server alone, whether the URL is that of its
// folder or of the one above.
func TestFromServer(t *testing.T) {
	dir, m := share(t)
	for _, tt := range []struct{ root, path string }{{dir, ""}, {dir, "/"}, {filepath.Dir(dir), "/"}, {filepath.Dir(dir), "/photos"}} {
		url := serve(t, http.FileServer(http.Dir(tt.root))) + tt.path
		dest, res, _, err := get(t, m, url)
		if err != nil {
			t.Fatalf("%s: %v", tt.path, err)
		}
		checkTree(t, m, dest)
		if len(res.Stats.Peers) != 1 || res.Stats.Peers[0].Addr != url || res.Stats.Peers[0].Used != m.Size() {
			t.Errorf("counted as %+v", res.Stats.Peers)
		}
	}
}

// One file is found under its own URL and under that of its folder.
func TestFromServerOneFile(t *testing.T) {
	dir, _ := share(t)
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "big.bin")}, manifest.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, http.FileServer(http.Dir(dir)))
	for _, u := range []string{url + "/big.bin", url + "/", url} {
		if _, _, _, err := get(t, m, u); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// Each kind of bad server beside a good one: the share is right, and the good one
// gives it. Alone: an error that says what is wrong, and never a wrong file.
func TestBadServers(t *testing.T) {
	dir, m := share(t)
	files := http.FileServer(http.Dir(dir))
	flip := func(p []byte) {
		for i := range p {
			p[i] ^= 1
		}
	}
	for _, tt := range []struct {
		name  string
		h     http.HandlerFunc
		alone string // part of the error; "" if it is good enough alone
	}{
		{"404", http.NotFound, "404"},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "500"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, "more than 5 redirects"},
		{"redirects to a file", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "scheme"},
		{"redirects to no URL", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://host/%zz?token=secret")
			w.WriteHeader(http.StatusFound)
		}, "redirects to what is no URL"},
		{"redirects once", func(w http.ResponseWriter, r *http.Request) {
			if p, ok := strings.CutPrefix(r.URL.Path, "/at"); ok {
				r.URL.Path = p
				files.ServeHTTP(w, r)
				return
			}
			http.Redirect(w, r, "/at"+r.URL.EscapedPath(), http.StatusFound)
		}, ""},
		{"ignores ranges", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			files.ServeHTTP(w, r)
		}, ""}, // all files are small enough
		{"other range", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=1-7")
			files.ServeHTTP(w, r)
		}, "was asked for bytes"},
		{"wrong total", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/77")
			w.WriteHeader(206)
		}, "has a file of 77 bytes"},
		{"no range in 206", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) }, "range"},
		{"gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			files.ServeHTTP(w, r)
		}, "encoding"},
		{"wrong bytes", func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			flip(body)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body)
		}, ""}, // see below
		{"breaks off", func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		}, "breaks off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			good := serve(t, files)
			dest, _, _, err := get(t, m, serve(t, tt.h), good)
			if err != nil {
				t.Fatalf("beside a good one: %v", err)
			}
			checkTree(t, m, dest)

			o := transfer.GetOptions{Manifest: m, Dir: t.TempDir(), AnyName: true, Timeout: 2 * time.Second, Network: alone{}}
			s, err := web.New(serve(t, tt.h))
			if err != nil {
				t.Fatal(err)
			}
			o.Sources = []transfer.Source{s}
			_, err = transfer.Get(t.Context(), o)
			if tt.name == "wrong bytes" {
				if err == nil {
					t.Error("wrong bytes were taken")
				}
				return
			}
			if tt.alone == "" {
				if err != nil {
					t.Errorf("alone: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.alone) {
				t.Errorf("alone: %v, want %q", err, tt.alone)
			}
		})
	}
}

// A server with one other file gives everything else.
func TestOneFileDiffers(t *testing.T) {
	dir, m := share(t)
	other := t.TempDir()
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(filepath.Join(other, "big.bin"))
	if err != nil {
		t.Fatal(err)
	}
	p[10] ^= 1
	if err := os.WriteFile(filepath.Join(other, "big.bin"), p, 0o644); err != nil {
		t.Fatal(err)
	}
	var fromGood atomic.Int64
	files := http.FileServer(http.Dir(dir))
	// The good one answers late, so that the other is asked for everything.
	good := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond) // what is tested is a slow server
		fromGood.Add(1)
		files.ServeHTTP(w, r)
	}))
	dest, res, warnings, err := get(t, m, serve(t, http.FileServer(http.Dir(other))), good)
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, m, dest)
	if fromGood.Load() == 0 {
		t.Error("the good server was not asked")
	}
	for _, p := range res.Stats.Peers {
		if p.Banned {
			t.Errorf("%s was banned for one wrong chunk", p.Addr)
		}
	}
	if res.Stats.Wasted > 0 && !strings.Contains(strings.Join(warnings, "\n"), "has other bytes than the share") {
		t.Errorf("nothing was said: %q", warnings)
	}
}

// A server that changes its files in the middle costs what has changed.
func TestServerChanges(t *testing.T) {
	dir, m := share(t)
	files := http.FileServer(http.Dir(dir))
	var n atomic.Int32
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 3 {
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	dest, _, _, err := get(t, m, url, serve(t, files))
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, m, dest)
}

// A password in a URL reaches the server and nothing else.
func TestPasswordIsNotShown(t *testing.T) {
	dir, m := share(t)
	files := http.FileServer(http.Dir(dir))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, ok := r.BasicAuth(); !ok || user != "ann" || pass != "s3cret" {
			w.WriteHeader(401)
			return
		}
		files.ServeHTTP(w, r)
	}))
	with := strings.Replace(url, "http://", "http://ann:s3cret@", 1)
	_, res, warnings, err := get(t, m, with)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(res.Stats, warnings); strings.Contains(s, "s3cret") || strings.Contains(s, "ann") {
		t.Errorf("it is shown: %s", s)
	}
	with = strings.Replace(with, "s3cret", "wr0ng", 1)
	if _, _, _, err := get(t, m, with); err == nil || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong password: %v", err)
	}
	for _, s := range []string{"http://ann:s3cret@%zz/", "ftp://ann:s3cret@h/", "http://ann:s3cret@h:x/", "http://ann:s3cret@h:99999/"} {
		if err := web.Check(s); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Check(%q): %v", s, err)
		}
	}
}

// What stands in the query of a URL is not told to the server that it leads to.
func TestQueryIsNotPassedOn(t *testing.T) {
	dir, m := share(t)
	files := http.FileServer(http.Dir(dir))
	var told sync.Map
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if s := strings.Join(values, " "); strings.Contains(s, "s3cret") {
				told.Store(name, s)
			}
		}
		files.ServeHTTP(w, r)
	}))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other+r.URL.EscapedPath(), http.StatusFound)
	}))
	if _, _, _, err := get(t, m, url+"/?token=s3cret"); err != nil {
		t.Fatal(err)
	}
	told.Range(func(name, s any) bool {
		t.Errorf("%v: %v", name, s)
		return true
	})
}

// Memory for one answer is bounded whatever it says; a body without an end stops
// at what was asked for.
func TestEndlessBody(t *testing.T) {
	_, m := share(t)
	var sent atomic.Int64
	var once sync.Once
	gone := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/*")
		w.WriteHeader(206)
		p := bytes.Repeat([]byte{1}, 64<<10)
		for {
			n, err := w.Write(p)
			sent.Add(int64(n))
			if err != nil {
				once.Do(func() { close(gone) })
				return
			}
		}
	}))
	s, err := web.New(url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = transfer.Get(t.Context(), transfer.GetOptions{
		Manifest: m, Dir: t.TempDir(), AnyName: true, Timeout: time.Second, Network: alone{}, Sources: []transfer.Source{s},
	})
	if err == nil {
		t.Error("wrong bytes were taken")
	}
	<-gone
	if sent.Load() > 64<<20 {
		t.Errorf("%d bytes were taken", sent.Load())
	}
}

// A public name that leads into a private network later is not followed.
func TestGuard(t *testing.T) {
	public, private := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("10.0.0.5")
	for _, tt := range []struct {
		name  string
		addrs []netip.Addr
		want  bool
	}{
		{"public", []netip.Addr{public, public}, true},
		{"private from the start", []netip.Addr{private, netip.MustParseAddr("127.0.0.1")}, true},
		{"private, then public", []netip.Addr{private, public}, true},
		{"public, then private", []netip.Addr{public, private}, false},
		{"public, then loopback in IPv6 form", []netip.Addr{public, netip.MustParseAddr("::ffff:127.0.0.1")}, false},
		{"public, then shared", []netip.Addr{public, netip.MustParseAddr("100.101.102.103")}, false},
		{"public, then link-local", []netip.Addr{public, netip.MustParseAddr("169.254.169.254")}, false},
	} {
		if err := web.GuardCheck(tt.addrs...); (err == nil) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
