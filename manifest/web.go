package manifest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// web reads the lines that name web servers.
func (p *parser) web() error {
	for strings.HasPrefix(p.rest, "web ") {
		u, err := p.next("web ")
		if err != nil {
			return err
		}
		if err := CheckWeb(u); err != nil {
			return &SyntaxError{p.line, "web", err}
		}
		web := p.m.web
		switch {
		case len(web) > 0 && web[len(web)-1] >= u:
			return p.errorf("web", "URLs are not in order, or one comes twice")
		case len(web) == MaxWeb:
			return p.errorf("web", "more than %d URLs", MaxWeb)
		}
		p.m.web = append(web, u)
	}
	return nil
}

// CheckWeb reports why a URL cannot be in a manifest; nil if it can. It is what
// it stands for in one way only: absolute, http or https, in ASCII without
// spaces, and with no user, password, query or fragment, since a manifest is
// passed on.
func CheckWeb(s string) error {
	if len(s) > MaxURL {
		return fmt.Errorf("a URL of %d bytes; the limit is %d", len(s), MaxURL)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("a URL with byte 0x%02x; escape it with %%", s[i])
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL") // err may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("not a URL that begins with http://HOST or https://HOST")
	case u.User != nil:
		return errors.New("a URL with a user or a password, which everybody would get with the manifest")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return errors.New("a URL with a query or a fragment")
	}
	return nil
}

// sortedWeb returns the URLs as a manifest has them.
func sortedWeb(urls []string) ([]string, error) {
	web := slices.Clone(urls)
	slices.Sort(web)
	web = slices.Compact(web)
	if len(web) > MaxWeb {
		return nil, fmt.Errorf("%d web servers; a manifest names at most %d", len(web), MaxWeb)
	}
	for _, u := range web {
		if err := CheckWeb(u); err != nil {
			return nil, err
		}
	}
	return web, nil
}
