package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// openFlags keep an open from ever blocking on a pipe that was put in the way.
const openFlags = unix.O_NONBLOCK

func renameNew(from *os.Root, oldbase string, to *os.Root, newbase string, slow func() error) error {
	err := renameat2(from, oldbase, to, newbase, unix.RENAME_NOREPLACE)
	if errors.Is(err, errors.ErrUnsupported) {
		return slow() // a file system that cannot do it in one step
	}
	return err
}

func exchange(a *os.Root, abase string, b *os.Root, bbase string) error {
	return renameat2(a, abase, b, bbase, unix.RENAME_EXCHANGE)
}

// renameat2 renames with flags. Its error is errors.ErrUnsupported where the file
// system does not know them.
func renameat2(from *os.Root, oldbase string, to *os.Root, newbase string, flags uint) error {
	a, err := from.Open(".")
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.Open(".")
	if err != nil {
		return err
	}
	defer b.Close()
	err = unix.Renameat2(int(a.Fd()), oldbase, int(b.Fd()), newbase, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldbase, New: newbase, Err: err}
	}
	return nil
}

// fd returns a descriptor of the directory.
func (h *dirHandle) fd() (int, error) {
	h.once.Do(func() {
		if h.file == nil {
			h.file, h.err = h.root.Open(".")
		}
	})
	if h.err != nil {
		return 0, h.err
	}
	return int(h.file.Fd()), nil
}

// create makes a whole file with five system calls: for thousands of files, what
// os.Root and os.File do besides costs as much again. base is one component, so
// it cannot lead anywhere else.
func create(dir *dirHandle, base string, p []byte, mode fs.FileMode, mtime time.Time) error {
	at, err := dir.fd()
	if err != nil {
		return err
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return &fs.PathError{Op: "create", Path: base, Err: err}
	}
	for off := 0; err == nil && off < len(p); {
		var n int
		n, err = retry(func() (int, error) { return unix.Pwrite(fd, p[off:], int64(off)) })
		if off += n; err == nil && n == 0 {
			err = io.ErrShortWrite
		}
	}
	if err == nil {
		_, err = retry(func() (int, error) { return 0, unix.Fchmod(fd, uint32(mode.Perm())) })
	}
	if err == nil {
		err = futimens(uintptr(fd), mtime)
	}
	if cerr := unix.Close(fd); err == nil && cerr != unix.EINTR { // it is closed all the same
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: base, Err: err}
	}
	return nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// allocate reserves the space, so that a full disk shows now and not midway.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	// A tmpfs gives up at any signal, and the runtime sends itself some.
	_, err := retry(func() (int, error) { return 0, unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	if err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}

func syncFile(f *os.File) error {
	return os.NewSyscallError("fdatasync", ignoreEINTR(f, unix.Fdatasync))
}

// syncAll flushes the whole file system: for thousands of files that is far
// less work than to flush each.
func syncAll(dir *os.File) error { return os.NewSyscallError("syncfs", ignoreEINTR(dir, unix.Syncfs)) }

func ignoreEINTR(f *os.File, call func(fd int) error) error {
	for {
		if err := call(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// bootID names the boot of the machine and, where the kernel numbers them (6.8),
// the mount that dir lies in. A disk that was pulled out, or that has given up, and
// was mounted again has lost what was not flushed, though the machine still runs.
func bootID(dir *os.File) string {
	id := machineBoot()
	var st unix.Statx_t
	err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &st)
	if id == "" || err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return id
	}
	return id + "/" + strconv.FormatUint(st.Mnt_id, 10)
}

var machineBoot = sync.OnceValue(func() string {
	p, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // unknown: no two runs are taken for the same boot
	}
	return strings.TrimSpace(string(p))
})
