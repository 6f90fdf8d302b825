package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// A foldFS is a file system over a folder that takes names for one if they differ in
// case or in their normal form only, as those of macOS and Windows do.
type foldFS struct {
	dir     string
	decomp  bool // names come back in NFD, as HFS+ keeps them; else as they were made
	replace bool // a rename always replaces: there is no RENAME_NOREPLACE

	mu sync.Mutex // held over looking for a name and using it
}

func init() { commands["foldfs"] = serveFold }

// mountFold mounts a foldFS over a new folder and returns where. It is served by a
// process of its own: one that is about to be started in its folder would wait for
// this one, which waits for it.
func mountFold(t testing.TB, kind string) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		skip(t, "needs /dev/fuse and root: %v", err)
	}
	at := t.TempDir()
	cmd := exec.Command("foldfs", t.TempDir(), at, kind)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		_ = cmd.Wait()
		skip(t, "FUSE: %v %s", err, errs.String())
	}
	t.Cleanup(func() {
		must(t, in.Close()) // which ends it
		if err := cmd.Wait(); err != nil {
			_ = unix.Unmount(at, unix.MNT_DETACH)
			t.Errorf("foldfs: %v %s", err, errs.String())
		}
	})
	return at
}

// serveFold is the program foldfs DIR AT KIND.
func serveFold() {
	f := &foldFS{dir: os.Args[1], decomp: os.Args[3] == "decomposes", replace: os.Args[3] == "replaces"}
	none := time.Duration(0)
	server, err := fs.Mount(os.Args[2], &foldNode{f: f}, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "fold", FsName: "fold", MaxWrite: 128 << 10},
		EntryTimeout: &none, AttrTimeout: &none, NegativeTimeout: &none,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it ends
	if err := server.Unmount(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server.Wait()
}

func (*foldFS) fold(name string) string {
	return norm.NFD.String(cases.Fold().String(norm.NFD.String(name)))
}

// real returns the name that an entry of a folder has, or "" if there is none.
func (f *foldFS) real(dir, name string) string {
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return name
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	want := f.fold(name)
	for _, e := range list {
		if f.fold(e.Name()) == want {
			return e.Name()
		}
	}
	return ""
}

// place returns where an entry of a folder is, or will be.
func (f *foldFS) place(dir, name string) (p string, there bool) {
	if r := f.real(dir, name); r != "" {
		return filepath.Join(dir, r), true
	}
	if f.decomp {
		name = norm.NFD.String(name)
	}
	return filepath.Join(dir, name), false
}

type foldNode struct {
	fs.Inode
	f *foldFS
}

// path returns where the node is. f.mu is held.
func (n *foldNode) path() string {
	p := n.f.dir
	if rel := n.Path(nil); rel != "" {
		for part := range strings.SplitSeq(rel, "/") {
			p, _ = n.f.place(p, part)
		}
	}
	return p
}

func (n *foldNode) lock() func() {
	n.f.mu.Lock()
	return n.f.mu.Unlock
}

func errnoOf(err error) syscall.Errno {
	var no syscall.Errno
	if err == nil || errors.As(err, &no) {
		return no
	}
	return syscall.EIO
}

// child returns the node of what lies at p.
func (n *foldNode) child(ctx context.Context, p string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	var st syscall.Stat_t
	if err := syscall.Lstat(p, &st); err != nil {
		return nil, errnoOf(err)
	}
	out.FromStat(&st)
	return n.NewInode(ctx, &foldNode{f: n.f}, fs.StableAttr{Mode: st.Mode, Ino: st.Ino}), 0
}

func (n *foldNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	defer n.lock()()
	p, there := n.f.place(n.path(), name)
	if !there {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, p, out)
}

func (n *foldNode) Getattr(ctx context.Context, h fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if g, ok := h.(fs.FileGetattrer); ok {
		return g.Getattr(ctx, out)
	}
	defer n.lock()()
	var st syscall.Stat_t
	err := syscall.Lstat(n.path(), &st)
	out.FromStat(&st)
	return errnoOf(err)
}

func (n *foldNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if s, ok := h.(fs.FileSetattrer); ok {
		return s.Setattr(ctx, in, out)
	}
	defer n.lock()()
	p := n.path()
	if mode, ok := in.GetMode(); ok {
		if err := syscall.Chmod(p, mode); err != nil {
			return errnoOf(err)
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := syscall.Truncate(p, int64(size)); err != nil {
			return errnoOf(err)
		}
	}
	at, hasA := in.GetATime()
	mt, hasM := in.GetMTime()
	if hasA || hasM {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		if hasA {
			ts[0] = unix.NsecToTimespec(at.UnixNano())
		}
		if hasM {
			ts[1] = unix.NsecToTimespec(mt.UnixNano())
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return errnoOf(err)
		}
	}
	var st syscall.Stat_t
	err := syscall.Lstat(p, &st)
	out.FromStat(&st)
	return errnoOf(err)
}

func (n *foldNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	defer n.lock()()
	fd, err := syscall.Open(n.path(), int(flags)&^syscall.O_APPEND, 0)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	return fs.NewLoopbackFile(fd), 0, 0
}

func (n *foldNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	defer n.lock()()
	p, _ := n.f.place(n.path(), name)
	fd, err := syscall.Open(p, int(flags)&^syscall.O_APPEND|syscall.O_CREAT, mode)
	if err != nil {
		return nil, nil, 0, errnoOf(err)
	}
	c, no := n.child(ctx, p, out)
	if no != 0 {
		_ = syscall.Close(fd)
		return nil, nil, 0, no
	}
	return c, fs.NewLoopbackFile(fd), 0, 0
}

// make makes something at a name that must be free.
func (n *foldNode) make(ctx context.Context, name string, out *fuse.EntryOut, do func(p string) error) (*fs.Inode, syscall.Errno) {
	defer n.lock()()
	p, there := n.f.place(n.path(), name)
	if there {
		return nil, syscall.EEXIST
	}
	if err := do(p); err != nil {
		return nil, errnoOf(err)
	}
	return n.child(ctx, p, out)
}

func (n *foldNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(p string) error { return syscall.Mkdir(p, mode) })
}

func (n *foldNode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(p string) error { return syscall.Symlink(target, p) })
}

func (n *foldNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, out, func(p string) error { return syscall.Link(target.(*foldNode).path(), p) })
}

func (n *foldNode) Readlink(context.Context) ([]byte, syscall.Errno) {
	defer n.lock()()
	s, err := os.Readlink(n.path())
	return []byte(s), errnoOf(err)
}

func (n *foldNode) remove(name string, do func(p string) error) syscall.Errno {
	defer n.lock()()
	p, there := n.f.place(n.path(), name)
	if !there {
		return syscall.ENOENT
	}
	return errnoOf(do(p))
}

func (n *foldNode) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove(name, syscall.Unlink)
}

func (n *foldNode) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.remove(name, syscall.Rmdir)
}

func (n *foldNode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	defer n.lock()()
	if flags != 0 && (n.f.replace || flags != unix.RENAME_NOREPLACE) {
		return syscall.EINVAL
	}
	from, there := n.f.place(n.path(), name)
	if !there {
		return syscall.ENOENT
	}
	p, taken := n.f.place(to.(*foldNode).path(), newName)
	if taken && flags&unix.RENAME_NOREPLACE != 0 {
		return syscall.EEXIST
	}
	return errnoOf(syscall.Rename(from, p))
}

func (n *foldNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	defer n.lock()()
	return fs.NewLoopbackDirStream(n.path())
}

func (n *foldNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	err := syscall.Statfs(n.f.dir, &st)
	out.FromStatfsT(&st)
	return errnoOf(err)
}

// Fsync is for folders too.
func (n *foldNode) Fsync(ctx context.Context, h fs.FileHandle, flags uint32) syscall.Errno {
	if s, ok := h.(fs.FileFsyncer); ok {
		return s.Fsync(ctx, flags)
	}
	return 0
}
