package manifest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden manifests anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A node is a file of a tree that a test makes.
type node struct {
	path   string // a directory ends in a slash
	text   string
	target string // of a link
	mode   os.FileMode
	sec    int64
	nsec   int64
}

// plant makes the nodes beneath a new directory and returns it.
func plant(t testing.TB, nodes []node) string {
	t.Helper()
	top := t.TempDir()
	plantAt(t, top, nodes)
	return top
}

func plantAt(t testing.TB, top string, nodes []node) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		path := filepath.Join(top, filepath.FromSlash(n.path))
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case n.target != "":
			must(os.Symlink(n.target, path))
		case n.path[len(n.path)-1] == '/':
			must(os.MkdirAll(path, 0o755))
		default:
			must(os.WriteFile(path, []byte(n.text), 0o600))
		}
	}
	// Times last and children first, as making a file changes its directory's.
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		if n.target != "" {
			continue
		}
		path := filepath.Join(top, filepath.FromSlash(n.path))
		mode := n.mode
		if mode == 0 {
			mode = 0o644
			if n.path[len(n.path)-1] == '/' {
				mode = 0o755
			}
		}
		must(os.Chmod(path, mode))
		sec := n.sec
		if sec == 0 {
			sec = 1700000000
		}
		must(os.Chtimes(path, time.Unix(sec, n.nsec), time.Unix(sec, n.nsec)))
	}
}

// build is Build of one path, which must work.
func build(t testing.TB, path string, o BuildOptions) (*Manifest, *Source) {
	t.Helper()
	m, src, err := Build(t.Context(), []string{path}, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, src
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
