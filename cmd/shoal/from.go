package main

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
	"github.com/shoal-p2p/shoal/transfer/local"
	"github.com/shoal-p2p/shoal/transfer/s3"
	"github.com/shoal-p2p/shoal/transfer/web"
)

// fromFlags are those of the commands that fetch.
func fromFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("from", "also take from `SOURCE`: http://, https:// or s3://BUCKET/PREFIX, or a folder; may be repeated"),
		boolFlag("no-web", "do not ask the web servers that a manifest names"),
	}
}

// fromSources checks the values of --from and makes sources of them. kept is how
// they are remembered for resume: folders by absolute path, URLs without a
// password.
func fromSources(values []string) (sources []transfer.Source, kept []string, err error) {
	for _, v := range values {
		scheme, _, isURL := strings.Cut(v, "://")
		var s transfer.Source
		switch {
		case v == "":
			return nil, nil, usagef("--from needs a URL or a folder")
		case isURL && (scheme == "http" || scheme == "https"):
			if s, err = web.New(v); err != nil {
				return nil, nil, usagef("--from %q: %v", withoutPassword(v), err)
			}
			v = withoutUser(v)
		case isURL && scheme == "s3":
			if s, err = s3.New(v); err != nil {
				return nil, nil, usagef("--from %q: %v", withoutPassword(v), err)
			}
		case isURL:
			return nil, nil, usagef("--from %q: the scheme %q is not one of http, https and s3; a folder is given by its path", withoutPassword(v), scheme)
		default:
			if v, err = filepath.Abs(v); err != nil {
				return nil, nil, err
			}
			if s, err = folderSource(v); err != nil {
				return nil, nil, err
			}
		}
		sources, kept = append(sources, s), append(kept, v)
	}
	return sources, kept, nil
}

func folderSource(dir string) (transfer.Source, error) {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, usagef("--from: there is no folder %q; a web server is given as http://HOST/PATH or https://HOST/PATH", dir)
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, usagef("--from: %q is a file; give the folder that holds it", dir)
	}
	return local.New(dir)
}

// closeSources closes those that hold something open.
func closeSources(sources []transfer.Source) {
	for _, s := range sources {
		if c, ok := s.(interface{ Close() error }); ok {
			_ = c.Close() // they were only read
		}
	}
}

// webSource returns what makes sources of the URLs that a manifest names. Its
// author must not reach into this machine: a loopback address counts only where all
// peers that were named are on it. Whoever made the manifest may have made the
// ticket too, and would put a loopback address beside the own one.
func webSource(addrs []string) func(string) (transfer.Source, error) {
	near := len(addrs) > 0
	for _, a := range addrs {
		host, _, _ := net.SplitHostPort(a)
		ip, err := netip.ParseAddr(host)
		near = near && (host == "localhost" || err == nil && ip.IsLoopback())
	}
	return func(u string) (transfer.Source, error) { return web.NewHint(u, near) }
}

// webFlag returns the URLs of --web.
func webFlag(cc *cli.Context) ([]string, error) {
	urls := cc.StringSlice("web")
	for _, u := range urls {
		if err := manifest.CheckWeb(u); err != nil {
			return nil, usagef("--web %q: %v", withoutPassword(u), err)
		}
	}
	if len(urls) > manifest.MaxWeb {
		return nil, usagef("--web: a manifest names at most %d web servers, not %d", manifest.MaxWeb, len(urls))
	}
	return urls, nil
}

// withoutPassword returns a URL as it can be shown. What is no URL may hold one
// as well.
func withoutPassword(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	i := strings.LastIndexByte(authority, '@')
	if i < 0 {
		return s
	}
	user, _, secret := strings.Cut(authority[:i], ":")
	if !secret {
		return s
	}
	return scheme + "://" + user + ":PASSWORD" + authority[i:] + path
}

func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// warnOfNearWeb tells of URLs that nobody will follow from a manifest.
func (a *app) warnOfNearWeb(urls []string) {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() == "localhost" || err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) {
			a.warnf("--web %s leads to this machine alone; others do not follow it, unless they name it with --from", s)
		}
	}
}
