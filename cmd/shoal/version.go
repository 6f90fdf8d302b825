package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by release builds.
var version = "0.1.0-dev"

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Description: "shoal version\n" +
			"shoal --version\n" +
			"shoal version --json",
		Flags: []cli.Flag{boolFlag("json", "print a JSON line")},
		Action: func(cc *cli.Context) error {
			if _, err := arguments(cc, 0, 0); err != nil {
				return err
			}
			return a.printVersion(cc.Bool("json"))
		},
	}
}

func (a *app) printVersion(asJSON bool) error {
	rev := ""
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				rev = s.Value[:12] + rev
			case s.Key == "vcs.modified" && s.Value == "true":
				rev += "+"
			}
		}
	}
	if asJSON {
		return a.event("version", map[string]any{"version": version, "revision": rev, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
	}
	if rev != "" {
		rev = " " + rev
	}
	_, err := fmt.Fprintf(a.stdout, "shoal %s%s (%s, %s/%s)\n", version, rev, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
