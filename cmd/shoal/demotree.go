package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// makeTree makes a tree of about size bytes in dir, the same every time: a few
// big files, many small ones, an empty file, an empty folder and a link. It
// returns the number of files and their bytes.
func makeTree(ctx context.Context, dir string, size int64) (files int, total int64, err error) {
	var key [32]byte
	copy(key[:], "shoal demo")
	src := rand.NewChaCha8(key)
	rng := rand.New(src)
	when := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)

	var dirs []string
	mkdir := func(name string) error {
		dirs = append(dirs, filepath.Join(dir, name))
		return os.MkdirAll(filepath.Join(dir, name), 0o755)
	}
	write := func(name string, n int64, mode fs.FileMode) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.CopyN(f, src, n)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		files, total = files+1, total+n
		return os.Chtimes(f.Name(), time.Time{}, when.Add(time.Duration(files)*time.Second))
	}

	for _, name := range []string{".", "big", "small", "empty"} {
		if err := mkdir(name); err != nil {
			return 0, 0, err
		}
	}
	for i := range 5 {
		if err := write(fmt.Sprintf("big/%d.bin", i), size*4/5/5+int64(rng.IntN(100_000)), 0o600); err != nil {
			return 0, 0, err
		}
	}
	for i := 0; total < size; i++ {
		if i%100 == 0 {
			if err := mkdir(fmt.Sprintf("small/%02d", i/100)); err != nil {
				return 0, 0, err
			}
		}
		if err := write(fmt.Sprintf("small/%02d/%d.txt", i/100, i), min(int64(rng.IntN(160_000)), size-total), 0o644); err != nil {
			return 0, 0, err
		}
	}
	if err := write("small/nothing", 0, 0o644); err != nil {
		return 0, 0, err
	}
	if err := write("run.sh", 1000, 0o755); err != nil {
		return 0, 0, err
	}
	if runtime.GOOS != "windows" { // there it needs a privilege
		if err := os.Symlink("big/0.bin", filepath.Join(dir, "first")); err != nil {
			return 0, 0, err
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Chtimes(dirs[i], time.Time{}, when); err != nil {
			return 0, 0, err
		}
	}
	return files, total, nil
}

// compareTrees reports the first difference between two trees: in names,
// kinds, contents, modes, times or targets of links. It shares no code with
// the rest of shoal.
func compareTrees(ctx context.Context, a, b string) error {
	names := func(root string) (out []string, err error) {
		err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			out = append(out, rel)
			return err
		})
		return out, err
	}
	inA, err := names(a)
	if err != nil {
		return err
	}
	inB, err := names(b)
	if err != nil {
		return err
	}
	for i := range max(len(inA), len(inB)) {
		switch {
		case i >= len(inB) || i < len(inA) && inA[i] < inB[i]:
			return fmt.Errorf("%q is missing", inA[i])
		case i >= len(inA) || inA[i] > inB[i]:
			return fmt.Errorf("%q should not be there", inB[i])
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := compareFiles(filepath.Join(a, inA[i]), filepath.Join(b, inB[i])); err != nil {
			return fmt.Errorf("%q differs: %w", inA[i], err)
		}
	}
	return nil
}

func compareFiles(a, b string) error {
	fa, err := os.Lstat(a)
	if err != nil {
		return err
	}
	fb, err := os.Lstat(b)
	if err != nil {
		return err
	}
	if fa.Mode().Type() != fb.Mode().Type() {
		return fmt.Errorf("%v, not %v", fb.Mode().Type(), fa.Mode().Type())
	}
	if fa.Mode()&fs.ModeSymlink != 0 {
		ta, errA := os.Readlink(a)
		tb, errB := os.Readlink(b)
		if ta != tb {
			return fmt.Errorf("it links to %q, not %q", tb, ta)
		}
		return errors.Join(errA, errB)
	}
	if fa.Mode().Perm() != fb.Mode().Perm() {
		return fmt.Errorf("its mode is %v, not %v", fb.Mode().Perm(), fa.Mode().Perm())
	}
	if !fa.ModTime().Equal(fb.ModTime()) {
		return fmt.Errorf("its time is %v, not %v", fb.ModTime(), fa.ModTime())
	}
	if fa.IsDir() {
		return nil
	}
	if fa.Size() != fb.Size() {
		return fmt.Errorf("it has %d bytes, not %d", fb.Size(), fa.Size())
	}
	ra, err := os.Open(a)
	if err != nil {
		return err
	}
	defer ra.Close()
	rb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer rb.Close()
	bufA, bufB := make([]byte, 256<<10), make([]byte, 256<<10)
	for at := int64(0); at < fa.Size(); {
		n := min(int64(len(bufA)), fa.Size()-at)
		if _, err := io.ReadFull(ra, bufA[:n]); err != nil {
			return err
		}
		if _, err := io.ReadFull(rb, bufB[:n]); err != nil {
			return err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			i := 0
			for bufA[i] == bufB[i] {
				i++
			}
			return fmt.Errorf("byte %d is %#02x, not %#02x", at+int64(i), bufB[i], bufA[i])
		}
		at += n
	}
	return nil
}
