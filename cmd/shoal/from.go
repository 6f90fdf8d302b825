package main

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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

// fromSources checks the values of --from and makes sources of them. They are
// remembered for resume in r: folders by absolute path, and URLs without what may be
// a secret in them.
func fromSources(values []string, r *request) (sources []transfer.Source, err error) {
	r.From, r.Hidden = nil, nil
	for _, v := range values {
		scheme, _, isURL := strings.Cut(v, "://")
		var s transfer.Source
		switch {
		case v == "":
			return nil, usagef("--from needs a URL or a folder")
		case isURL && (scheme == "http" || scheme == "https"):
			if s, err = web.New(v); err != nil {
				return nil, usagef("--from %q: %v", withoutSecrets(v), err)
			}
			if withoutSecrets(v) != v {
				v = bareURL(v)
				r.Hidden = append(r.Hidden, v)
			}
		case isURL && scheme == "s3":
			if s, err = s3.New(v); err != nil {
				return nil, usagef("--from %q: %v", withoutSecrets(v), err)
			}
		case isURL:
			return nil, usagef("--from %q: the scheme %q is not one of http, https and s3; a folder is given by its path", withoutSecrets(v), scheme)
		default:
			if v, err = filepath.Abs(v); err != nil {
				return nil, err
			}
			if s, err = folderSource(v); err != nil {
				return nil, err
			}
		}
		sources, r.From = append(sources, s), append(r.From, v)
	}
	return sources, nil
}

// resumedSources is fromSources for a get that is resumed: given are the values of
// --from now, and r is what it was begun with. A source of then whose secret was not
// kept is left out, and told of, if it was not given again; r still names it.
func (a *app) resumedSources(given []string, r *request) ([]transfer.Source, error) {
	again := make(map[string]bool)
	for _, v := range given {
		again[bareURL(v)] = true
	}
	values, lacking := slices.Clone(given), []string(nil)
	for _, v := range r.From {
		switch {
		case !slices.Contains(r.Hidden, v):
			values = append(values, v)
		case !again[v]:
			lacking = append(lacking, v)
			a.warnf("%s was given with a user, a password or a query, which are not kept; to take from it as well, give it again with --from", v)
		}
	}
	sources, err := fromSources(merge(values, nil), r)
	r.From, r.Hidden = append(r.From, lacking...), append(r.Hidden, lacking...)
	return sources, err
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
			return nil, usagef("--web %q: %v", withoutSecrets(u), err)
		}
	}
	if len(urls) > manifest.MaxWeb {
		return nil, usagef("--web: a manifest names at most %d web servers, not %d", manifest.MaxWeb, len(urls))
	}
	return urls, nil
}

// withoutSecrets returns a URL as it can be shown: without a password, a user that
// stands alone (it may be a token), and a query. What is no URL may hold them as well.
func withoutSecrets(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, _, both := strings.Cut(authority[:i], ":")
		if both {
			user += ":PASSWORD"
		} else {
			user = "USER"
		}
		authority = user + authority[i:]
	}
	if i := strings.IndexByte(path, '?'); i >= 0 && i+1 < len(path) {
		path = path[:i] + "?QUERY"
	}
	return scheme + "://" + authority + path
}

// bareURL returns a URL without what withoutSecrets hides.
func bareURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
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
