package manifest

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestQuickBuild(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(dir+"/x/a", 0o755)
	for i := range 1500 {
		os.WriteFile(filepath.Join(dir, "x/a", strconv.Itoa(i)), []byte(strconv.Itoa(i)), 0o644)
	}
	os.WriteFile(dir+"/x/big", make([]byte, 3<<20+5), 0o600)
	os.Symlink("a/3", dir+"/x/l")
	os.Symlink("/etc", dir+"/x/out")
	for _, c := range []string{"fixed", "fastcdc"} {
		start := time.Now()
		m, src, err := Build(t.Context(), []string{dir + "/x"}, BuildOptions{Cutter: c, Skipped: func(p, w string) { t.Log(p, w) }, Progress: func(a, b int64) { t.Log(a, b) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(time.Since(start), m.NumChunks(), src.Hashed.Count(), len(src.Files), m.Text()[:200])
		err = Verify(t.Context(), m, nil, dir+"/x", func(d Difference) { t.Log(d) })
		if err != nil {
			t.Fatal(err)
		}
	}
}
