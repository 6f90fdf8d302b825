package main

import (
	"io/fs"
	"time"

	"golang.org/x/sys/windows"
)

// modesCount: the folder of a user's state is closed to others by its ACL.
const modesCount = false

func ownedByUs(fs.FileInfo) bool { return true }

// cpuTime returns how long processors have worked for this process.
func cpuTime() time.Duration {
	var created, ended, kernel, user windows.Filetime
	if windows.GetProcessTimes(windows.CurrentProcess(), &created, &ended, &kernel, &user) != nil {
		return 0
	}
	ticks := func(t windows.Filetime) int64 { return int64(t.HighDateTime)<<32 | int64(t.LowDateTime) }
	return time.Duration(ticks(kernel)+ticks(user)) * 100
}
