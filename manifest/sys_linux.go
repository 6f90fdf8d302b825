package manifest

import "golang.org/x/sys/unix"

// isKernelFS reports whether path lies on a file system whose files are made up as
// they are read.
func isKernelFS(path string) bool {
	var st unix.Statfs_t
	if ignoreEINTR(func() error { return unix.Statfs(path, &st) }) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC:
		return true
	}
	return false
}
