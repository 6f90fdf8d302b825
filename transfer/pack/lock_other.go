//go:build !unix

package pack

import (
	"io/fs"
	"os"
)

func lock(*os.File) error { return nil }

// unsupported reports whether a folder cannot be flushed at all.
func unsupported(error) bool { return true }

// links returns how many names a file has, as far as it is known.
func links(fs.FileInfo) int { return 1 }
