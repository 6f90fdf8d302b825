//go:build unix && !linux

package manifest

import "errors"

func setfsuid(back int) func() { panic("not called") }

func mkdev(path string) error { return errors.ErrUnsupported }
