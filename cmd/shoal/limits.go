package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/transfer"
)

// limitFlags are those of the commands that move data for long.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("limit-up", "send at most `RATE` bytes/s to all peers together, such as 500K or 2M (of 1024; at least 16K)"),
		stringFlag("limit-down", "receive at most `RATE` bytes/s from all peers together"),
		intFlag("max-peers", "`N` connections at once, 1 to 64", "64"),
	}
}

// waitFlags say how long to wait for others.
func waitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "timeout", Usage: "give up when no peer was found for `TIME`", Value: 30 * time.Minute, EnvVars: env("timeout")},
		&cli.DurationFlag{Name: "stall-timeout", Usage: "give up when nothing new has come for `TIME`, once a peer was found", DefaultText: "as --timeout", EnvVars: env("stall-timeout")},
	}
}

// readLimits sets the limits of this run to what the flags say. They hold for
// all that it moves together.
func (a *app) readLimits(cc *cli.Context) (l *transfer.Limits, maxPeers int, err error) {
	up, err := parseRate(cc, "limit-up")
	if err != nil {
		return nil, 0, err
	}
	down, err := parseRate(cc, "limit-down")
	if err != nil {
		return nil, 0, err
	}
	a.settingsMu.Lock()
	defer a.settingsMu.Unlock()
	a.up, a.down = up, down
	a.limits.Set(up, down)
	return &a.limits, cc.Int("max-peers"), nil
}

// limitsNow returns the limits that hold now, in bytes/s; 0: none.
func (a *app) limitsNow() (up, down int64) {
	a.settingsMu.Lock()
	defer a.settingsMu.Unlock()
	return a.up, a.down
}

const rateText = "it is bytes/s, with an optional K, M or G, and at least 16K; without a limit, leave it out"

// parseRate reads a flag with a rate; 0 means that it was not given.
func parseRate(cc *cli.Context, flag string) (int64, error) {
	if !cc.IsSet(flag) {
		return 0, nil
	}
	s := cc.String(flag)
	n, err := parseSize(s)
	if err != nil || n < transfer.MinLimit {
		return 0, usagef("--%s %q: %s", flag, s, rateText)
	}
	return n, nil
}

// timeoutsOf returns the values of --timeout and --stall-timeout. Whoever gives
// only the first means both.
func timeoutsOf(cc *cli.Context) (first, stall time.Duration, err error) {
	if first, err = timeoutOf(cc, "timeout"); err != nil {
		return 0, 0, err
	}
	if !cc.IsSet("stall-timeout") {
		return first, first, nil
	}
	stall, err = timeoutOf(cc, "stall-timeout")
	return first, stall, err
}

// timeoutOf returns the value of a flag that says how long to wait.
func timeoutOf(cc *cli.Context, flag string) (time.Duration, error) {
	d := cc.Duration(flag)
	if d <= 0 {
		return 0, usagef("--%s %v: it must be positive; to wait long, say 1000h", flag, d)
	}
	return d, nil
}

func checkMaxPeers(cc *cli.Context, name string) error {
	if n := cc.Int(name); n < 1 || n > transfer.MaxPeers {
		return usagef("--%s %d: it is a number from 1 to %d", name, n, transfer.MaxPeers)
	}
	return nil
}

// limitText returns a limit as people read it.
func limitText(rate int64) string {
	if rate == 0 {
		return "none"
	}
	return fmt.Sprintf("%s/s", bytesText(rate))
}
