package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// While the cache is asked, the list is made and nothing is read yet.
func TestD10HashedWhileChanging(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files cannot be replaced")
	}
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			top := t.TempDir()
			path := filepath.Join(top, "f")
			for _, cutter := range cutters {
				os.RemoveAll(path)
				if err := os.WriteFile(path, []byte(randomText(300_000, 1)), 0o644); err != nil {
					t.Fatal(err)
				}
				c := &mapCache{get: sync.OnceFunc(func() { test.change(t, path) })}
				m, src, err := Build(t.Context(), []string{top}, BuildOptions{Cutter: cutter, Cache: c})
				var ce *ChangedError
				if m != nil || src != nil || !errors.As(err, &ce) {
					t.Fatalf("%s: no ChangedError but %v", cutter, err)
				}
				if ce.Path != path || !strings.Contains(err.Error(), "has changed: "+test.want) || !strings.HasPrefix(err.Error(), "hash: file ") {
					t.Errorf("%s: error is %v, want %q", cutter, err, test.want)
				}
				if len(c.values) > 0 {
					t.Errorf("%s: the changed file is cached", cutter)
				}
			}
		})
	}
}

// changes are what can happen to a file of 300,000 bytes, and how it is called.
var changes = []struct {
	name   string
	change func(t *testing.T, path string)
	want   string
}{
	{"appended", func(t *testing.T, path string) { appendTo(t, path) }, "it has another size"},
	{"truncated", func(t *testing.T, path string) { must(t, os.Truncate(path, 200_000)) }, "it has another size"},
	{"emptied", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, "it has another size"},
	{"written", func(t *testing.T, path string) {
		must(t, os.WriteFile(path, []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Chtimes(path, time.Unix(5, 0), time.Unix(5, 0)))
	}, "it was written to"},
	{"written, with the old time", func(t *testing.T, path string) {
		fi, err := os.Stat(path)
		must(t, err)
		time.Sleep(20 * time.Millisecond) // the clock of a file system may tick slowly
		must(t, os.WriteFile(path, []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
	}, "it, its mode or its links were changed"},
	{"deleted", func(t *testing.T, path string) { must(t, os.Remove(path)) }, "it is gone"},
	{"replaced", func(t *testing.T, path string) {
		must(t, os.WriteFile(path+".new", []byte(randomText(300_000, 2)), 0o644))
		must(t, os.Rename(path+".new", path))
	}, "it is another file"},
	{"now a link", func(t *testing.T, path string) {
		must(t, os.Remove(path))
		must(t, os.Symlink("/dev/zero", path))
	}, "it is now a symbolic link"},
	{"now a directory", func(t *testing.T, path string) {
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o755))
	}, "it is now a directory"},
}

func appendTo(t testing.TB, path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("more")
	must(t, err)
	must(t, f.Close())
}

// A change between the first and the last read of a file shows when it is closed.
func TestD10ReaderNotices(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files cannot be replaced")
	}
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			must(t, os.WriteFile(path, []byte(randomText(300_000, 1)), 0o644))
			fi, err := os.Stat(path)
			must(t, err)
			r := newReader(&stream{
				offsets: []int64{0, 300_000},
				path:    func(int) string { return path },
				stat:    func(int) (Stat, bool) { return StatOf(fi), true },
			})
			buf := make([]byte, 1000)
			must(t, r.readAt(buf, 0))
			test.change(t, path)
			err = r.readAt(buf, 299_000)
			if err == nil {
				err = r.close()
			} else {
				r.close()
			}
			// What is deleted or replaced is still what was opened; the links of it changed.
			want := test.want
			switch test.name {
			case "deleted", "replaced", "now a link", "now a directory":
				want = "it, its mode or its links were changed"
			case "truncated", "emptied":
				want = "it ends early"
			}
			if ce := (*ChangedError)(nil); !errors.As(err, &ce) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("error is %v, want %q", err, want)
			}
		})
	}
}
