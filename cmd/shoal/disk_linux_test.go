package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a small disk in memory, or skips the test if it may not.
func mountTmpfs(t testing.TB, dir, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		skip(t, "mounting needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // it may be gone already
}

// unmount unmounts a disk on which nothing is open any more. For a moment something
// may be: a test beside this one has forked, or made a namespace of its own.
func unmount(t testing.TB, dir string) {
	t.Helper()
	err := error(unix.EBUSY)
	for end := time.Now().Add(time.Minute); err == unix.EBUSY && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err = unix.Unmount(dir, 0)
	}
	must(t, err)
}

// diskGone waits until an unmounted image is no disk any more. A namespace that
// another test made meanwhile has it mounted as well, and a second mount would be
// of the same dead disk and not of what lies in the image.
func diskGone(t testing.TB, image string) {
	t.Helper()
	until(t, "the disk is gone", func() bool {
		loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		must(t, err)
		return !slices.ContainsFunc(loops, func(loop string) bool {
			name, err := os.ReadFile(loop)
			return err == nil && strings.TrimSpace(string(name)) == image
		})
	})
}

func remountTmpfs(t testing.TB, dir string, flags uintptr, options string) {
	t.Helper()
	must(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|flags, options))
}

var needHave = regexp.MustCompile(`no space: need [1-9][0-9.]* (bytes|[kM]?B|free inodes), have [0-9.]+( [kM]?B)? in `)

// TestD01FullDisk fetches a tree onto disks of every size from nothing to enough,
// and with every number of inodes (D02). It must say what it needs, what there is,
// and where; claim nothing false; and end well once there is room.
func TestD01FullDisk(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	small := filepath.Join(s.dir, "small")
	mountTmpfs(t, small, "size=4k,nr_inodes=2")
	page, step := os.Getpagesize(), 8
	if os.Getenv("SHOAL_CI") != "" || os.Getenv("SHOAL_SOAK") != "" {
		step = 1
	}
	full, told := 0, 0
	try := func(options string) (enough bool) {
		t.Helper()
		unmount(t, small)
		mountTmpfs(t, small, options)
		cmd, stderr := s.get(filepath.Join(small, "dest"))
		err := cmd.Run()
		msg := stderr.String()
		if err != nil {
			full++
			if needHave.MatchString(msg) {
				told++
			}
			if cmd.ProcessState.ExitCode() != codeDisk || !strings.Contains(msg, "no space") || !strings.Contains(msg, small) || strings.Count(msg, "\n") != 1 {
				t.Errorf("%s: %v, %q", options, err, msg)
			}
			if _, err := os.Lstat(filepath.Join(small, "dest/tree")); err == nil {
				t.Errorf("%s: it is at its final name", options)
			}
			remountTmpfs(t, small, 0, "size=4m,nr_inodes=1000")
		}
		if err := s.again(filepath.Join(small, "dest")); err != nil {
			t.Errorf("%s: %v", options, err)
		}
		return err == nil
	}
	for n := 1; n < 200 && !t.Failed(); n += step {
		if try(fmt.Sprintf("size=%d,nr_inodes=1000", n*page)) {
			break
		}
	}
	for n := 1; n < 200 && !t.Failed(); n++ {
		if try(fmt.Sprintf("size=4m,nr_inodes=%d", n)) {
			break
		}
	}
	t.Logf("%d times full, %d of them with the figures", full, told)
	if told < full/2 {
		t.Errorf("only %d of %d messages had the figures", told, full)
	}
}

// TestD02ReadOnly goes on with a get on a disk that has become read-only.
func TestD02ReadOnly(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	small := filepath.Join(s.dir, "small")
	mountTmpfs(t, small, "size=4m")
	dest := filepath.Join(small, "dest")
	must(t, os.Mkdir(dest, 0o755))
	remountTmpfs(t, small, unix.MS_RDONLY, "")
	cmd, stderr := s.get(dest)
	err := cmd.Run()
	if msg := stderr.String(); cmd.ProcessState.ExitCode() != codeDisk || !strings.Contains(msg, "read-only") || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1 {
		t.Errorf("at the start: %v, %q", err, msg)
	}
	remountTmpfs(t, small, 0, "")
	s.half(t, dest)
	remountTmpfs(t, small, unix.MS_RDONLY, "")
	cmd, stderr = s.get(dest)
	err = cmd.Run()
	if msg := stderr.String(); cmd.ProcessState.ExitCode() != codeDisk || !strings.Contains(msg, "read-only") || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1 {
		t.Errorf("midway: %v, %q", err, msg)
	}
	remountTmpfs(t, small, 0, "")
	must(t, s.again(dest))
}

// TestD02FolderRemoved takes the folder away while a get writes to it.
func TestD02FolderRemoved(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	for _, gone := range []string{"", "tree.shoal-part", "tree.shoal-part/data", "tree.shoal-part/data/b"} {
		s.serve(t)
		open := s.holdBack(t)
		dest := filepath.Join(s.dir, "dest")
		cmd, stderr := s.get(dest)
		must(t, cmd.Start())
		s.waitForRecords(t, dest, 1)
		must(t, os.RemoveAll(filepath.Join(dest, gone)))
		open()
		err := cmd.Wait()
		if msg := stderr.String(); err == nil || cmd.ProcessState.ExitCode() != codeDisk && cmd.ProcessState.ExitCode() != codeIntegrity || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1 {
			t.Errorf("without %q: %v, %q", gone, err, msg)
		}
		must(t, s.again(dest))
		must(t, os.RemoveAll(dest))
	}
}

// TestD02FileTooLarge runs a get that may make no file as large as it must, and
// then one that may not even write down what it remembers.
func TestD02FileTooLarge(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	dest := filepath.Join(s.dir, "dest")
	for _, blocks := range []int{0, 1, 8, 100, 300} { // of 512 bytes
		cmd, stderr := s.get(dest)
		limited := exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -f %d; exec "$@"`, blocks), "sh"}, cmd.Args...)...)
		limited.Env, limited.Stderr = cmd.Env, cmd.Stderr
		err := limited.Run()
		if msg := stderr.String(); limited.ProcessState.ExitCode() != codeDisk || !strings.Contains(msg, "file too large") || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1 {
			t.Errorf("limit of %d blocks: %v, %q", blocks, err, msg)
		}
	}
	must(t, s.again(dest))
}

// TestD03FlushFails fetches onto a disk that takes every write into memory and then
// has no place to put it: an ext4 in a file on a tmpfs that is too small. Nothing
// that was not flushed may be claimed, and with room the same line ends well.
func TestD03FlushFails(t *testing.T) {
	t.Parallel()
	s := newSmallShare(t)
	must(t, os.WriteFile(filepath.Join(s.tree, "more"), noise(12<<20), 0o644))
	s.serve(t)
	back, front := filepath.Join(s.dir, "back"), filepath.Join(s.dir, "front")
	mountTmpfs(t, back, "size=8m")
	image := filepath.Join(back, "image")
	makeExt4(t, image, 64<<20)
	mountExt4(t, image, front)
	dest := filepath.Join(front, "dest")
	cmd, stderr := s.get(dest)
	err := cmd.Run()
	if msg := stderr.String(); cmd.ProcessState.ExitCode() != codeDisk || !strings.Contains(msg, dest) || strings.Count(msg, "\n") != 1 {
		t.Errorf("%v, %q", err, msg)
	}
	if _, err := os.Lstat(filepath.Join(dest, "tree")); err == nil {
		t.Error("it is at its final name")
	}
	t.Logf("%s", stderr)
	unmount(t, front)
	diskGone(t, image)
	remountTmpfs(t, back, 0, "size=100m")
	if out, err := exec.Command("e2fsck", "-fy", image).CombinedOutput(); err != nil {
		t.Logf("e2fsck: %v\n%s", err, out) // 1 says that it has mended something
	}
	mountExt4(t, image, front)
	must(t, s.again(dest))
}

// makeExt4 makes a file of size bytes with an empty ext4 in it.
func makeExt4(t testing.TB, image string, size int64) {
	t.Helper()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image).CombinedOutput(); err != nil {
		skip(t, "needs mkfs.ext4: %v %s", err, out)
	}
}

// mountExt4 mounts it.
func mountExt4(t testing.TB, image, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		skip(t, "mounting a file needs root and a loop device: %v %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // it may be gone already
}
