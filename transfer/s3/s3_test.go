package s3_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/s3"
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

// bucket starts an S3 server whose bucket "lab" has the files of a share below
// models/photos, and sets the variables that lead to it.
func bucket(t *testing.T, wrap func(http.Handler) http.Handler) (dir string, m *manifest.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "photos")
	backend := s3mem.New()
	if err := backend.CreateBucket("lab"); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"big.bin": 700_000, "sub/a b+c.txt": 5000, "z": 1} {
		p := bytes.Repeat([]byte(name), n/len(name)+1)[:n]
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, p, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := backend.PutObject("lab", "models/photos/"+name, map[string]string{"Last-Modified": "Mon, 2 Jan 2006 15:04:05 GMT"}, bytes.NewReader(p), int64(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	var h http.Handler = gofakes3.New(backend).Server()
	if wrap != nil {
		h = wrap(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	m, _, err := manifest.Build(t.Context(), []string{dir}, manifest.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func get(t *testing.T, m *manifest.Manifest, url string) (string, error) {
	t.Helper()
	s, err := s3.New(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	o := transfer.GetOptions{Manifest: m, Dir: t.TempDir(), Timeout: 3 * time.Second, Network: alone{}, Sources: []transfer.Source{s}}
	_, err = transfer.Get(t.Context(), o)
	return filepath.Join(o.Dir, m.Name()), err
}

// A share comes from a bucket alone, whether the prefix is that of its folder or
// of the one above.
func TestFromBucket(t *testing.T) {
	_, m := bucket(t, nil)
	for _, url := range []string{"s3://lab/models/photos", "s3://lab/models/photos/", "s3://lab/models"} {
		dest, err := get(t, m, url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if err := manifest.Verify(t.Context(), m, nil, dest, func(d manifest.Difference) {
			if d.Failed() {
				t.Errorf("%s: %+v", url, d)
			}
		}); err != nil {
			t.Error(err)
		}
	}
}

// So does a share of one file.
func TestFromBucketOneFile(t *testing.T) {
	dir, _ := bucket(t, nil)
	m, _, err := manifest.Build(t.Context(), []string{filepath.Join(dir, "big.bin")}, manifest.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"s3://lab/models/photos", "s3://lab/models/photos/big.bin"} {
		if _, err := get(t, m, url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What cannot be had is told in words of ours, without a secret.
func TestBucketErrors(t *testing.T) {
	_, m := bucket(t, nil)
	for url, want := range map[string]string{
		"s3://lab/elsewhere": "NoSuchKey",
		"s3://nothere/x":     "NoSuchBucket",
	} {
		if _, err := get(t, m, url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for _, url := range []string{"s3:///x", "s3://key:very-secret@lab/x", "http://lab/x", "s3://lab/x?y"} {
		if _, err := s3.New(url); err == nil || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("New(%q): %v", url, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "localhost")
	if _, err := s3.New("s3://lab/x"); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL is not a URL") {
		t.Errorf("a bad endpoint: %v", err)
	}
}

// A server that ignores ranges, or is none, does no harm.
func TestBadS3Servers(t *testing.T) {
	for name, h := range map[string]func(http.Handler) http.Handler{
		"ignores ranges": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); h.ServeHTTP(w, r) })
		},
		"no S3 server": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x1b[2Jhello")) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := bucket(t, h)
			dest, err := get(t, m, "s3://lab/models/photos")
			if err == nil || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got %q: %v", dest, err)
			}
			if _, err := os.Lstat(dest); err == nil {
				t.Error("something is at the final name")
			}
		})
	}
}
