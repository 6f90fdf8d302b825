//go:build !unix

package pack

import "os"

func lock(*os.File) error { return nil }

// unsupported reports whether a folder cannot be flushed at all.
func unsupported(error) bool { return true }
