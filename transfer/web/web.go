// Package web makes a web server a source of a share: any HTTP server that has
// the same files, asked for ranges of them. What it gives is checked by whoever
// fetches, chunk by chunk.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

const (
	width        = 4                // chunks that are asked for at once
	maxRedirects = 5                // that one request follows
	maxHeader    = 64 << 10         // bytes of the head of an answer
	answerTime   = 30 * time.Second // for the head of an answer
	idleTime     = 30 * time.Second // without a byte of its body
	skipLimit    = 1 << 20          // bytes that are thrown away if a server ignores ranges
)

// A Source is a web server that has the files of a share.
type Source struct {
	base   *url.URL
	client *http.Client

	mu   sync.Mutex
	m    *manifest.Manifest
	root *url.URL // of the files, once it is known
}

var _ transfer.Source = (*Source)(nil)

// Check reports why s cannot be a source.
func Check(s string) error {
	_, err := parse(s)
	return err
}

func parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not a URL") // err may hold a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("not a URL of the form http://HOST/PATH or https://HOST/PATH")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("port %s; a port is a number from 1 to 65535", strconv.Quote(p))
		}
	}
	u.Fragment = ""
	return u, nil
}

// New returns the source at a URL: that of the file, or of the folder that holds
// the files or the share. A user and a password in it are sent to that server
// alone, and never shown.
func New(s string) (*Source, error) { return open(s, &guard{}) }

// NewHint is New for a URL that a manifest names, whose author must not reach
// into this machine: unless near, loopback and link-local addresses are refused.
func NewHint(s string, near bool) (*Source, error) {
	if err := manifest.CheckWeb(s); err != nil {
		return nil, err
	}
	return open(s, &guard{far: !near})
}

func open(s string, guard *guard) (*Source, error) {
	u, err := parse(s)
	if err != nil {
		return nil, err
	}
	src := &Source{base: u}
	src.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            guard.dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  answerTime,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    width,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: checkRedirect,
	}
	return src, nil
}

// String is the URL without a user, a password or a query.
func (s *Source) String() string {
	u := *s.base
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// Width is how many chunks are asked for at once.
func (*Source) Width() int { return width }

func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("redirects to the scheme %s", strconv.Quote(req.URL.Scheme))
	case first.URL.Scheme == "https" && req.URL.Scheme == "http":
		return errors.New("redirects from https to http")
	}
	// A password goes to its own server alone; net/http sees to that for the
	// header, and a URL may bring its own.
	req.URL.User = nil
	req.Header.Del("Referer") // the query of a URL may be a secret as well
	return nil
}

// Open finds out where below the URL the files lie.
func (s *Source) Open(ctx context.Context, m *manifest.Manifest) (*chunk.Bitfield, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m = m
	probe := -1
	for e := range m.Entries() {
		if m.Entries()[e].Kind == manifest.File && m.Entries()[e].Size > 0 {
			probe = e
			break
		}
	}
	if probe < 0 {
		return nil, nil
	}
	root, err := transfer.FirstPlace(s.roots(m), func(root *url.URL) error {
		return s.get(ctx, root, manifest.Extent{Entry: probe, Len: 1}, io.Discard)
	})
	s.root = root
	return nil, err
}

// roots are where the files may be: at the URL, or in a folder there that has
// the share's name. For a share of one file they are URLs of the file.
func (s *Source) roots(m *manifest.Manifest) []*url.URL {
	below := s.base.JoinPath(url.PathEscape(m.Name()))
	if m.IsFile() && strings.HasSuffix(s.base.Path, "/") {
		return []*url.URL{below}
	}
	return []*url.URL{s.base, below}
}

// Fetch writes chunk i to w, one request for each file in it.
func (s *Source) Fetch(ctx context.Context, i int, w io.Writer) error {
	s.mu.Lock()
	m, root := s.m, s.root
	s.mu.Unlock()
	if root == nil {
		return errors.New("not open")
	}
	for x := range m.Extents(i) {
		if err := s.get(ctx, root, x, w); err != nil {
			return err
		}
	}
	return nil
}

// get writes a part of one file to w.
func (s *Source) get(ctx context.Context, root *url.URL, x manifest.Extent, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e := &s.m.Entries()[x.Entry]
	u := root
	if !s.m.IsFile() {
		u = root.JoinPath(escape(e.Path)...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &transfer.DeadSourceError{Err: errors.New("not a URL")}
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", x.Off, x.Off+int64(x.Len)-1))
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "shoal")
	res, err := s.client.Do(req)
	if err != nil {
		return plain(err)
	}
	defer res.Body.Close()
	skip, err := body(res, x, e.Size)
	if err != nil {
		return err
	}
	in := transfer.NewIdleReader(res.Body, idleTime, func() { cancel(fmt.Errorf("no byte in %v", idleTime)) })
	defer in.Stop()
	if _, err := io.CopyN(io.Discard, in, skip); err != nil {
		return cut(ctx, err)
	}
	if _, err := io.CopyN(w, in, int64(x.Len)); err != nil {
		return cut(ctx, err)
	}
	return nil
}

// escape returns the components of a path as JoinPath takes them.
func escape(p string) []string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return parts
}

// body checks the head of an answer against what was asked for, and returns how
// many bytes of the body come before that.
func body(res *http.Response, x manifest.Extent, size int64) (skip int64, err error) {
	gone := func(format string, args ...any) (int64, error) {
		return 0, &transfer.GoneError{Err: fmt.Errorf(format, args...)}
	}
	switch res.StatusCode {
	case http.StatusPartialContent:
		first, last, total, ok := contentRange(res.Header.Get("Content-Range"))
		switch {
		case !ok:
			return 0, errors.New("answers 206 without a range that can be read")
		case total >= 0 && total != size:
			return gone("has a file of %d bytes where the share has %d", total, size)
		case first != x.Off || last != x.Off+int64(x.Len)-1:
			return 0, fmt.Errorf("was asked for bytes %d to %d and gives %d to %d", x.Off, x.Off+int64(x.Len)-1, first, last)
		case res.ContentLength >= 0 && res.ContentLength != int64(x.Len):
			return 0, fmt.Errorf("says %d bytes where the range has %d", res.ContentLength, x.Len)
		}
		return 0, encoding(res)
	case http.StatusOK:
		switch {
		case res.ContentLength >= 0 && res.ContentLength != size:
			return gone("has a file of %d bytes where the share has %d", res.ContentLength, size)
		case x.Off > skipLimit || size > skipLimit && int64(x.Len) < size:
			return 0, &transfer.DeadSourceError{Err: errors.New("ignores ranges (answers 200), so parts of large files cannot be had from it")}
		}
		return x.Off, encoding(res)
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden, http.StatusUnauthorized, http.StatusRequestedRangeNotSatisfiable:
		return gone("answers %s", status(res))
	}
	return 0, fmt.Errorf("answers %s", status(res))
}

func encoding(res *http.Response) error {
	if e := res.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("sends the encoding %s, which was not asked for", strconv.QuoteToASCII(e[:min(len(e), 40)]))
	}
	return nil
}

// status is the code and its usual name: what the server says is not repeated.
func status(res *http.Response) string {
	return strings.TrimSpace(strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode))
}

// contentRange reads "bytes 0-9/100" or "bytes 0-9/*".
func contentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(s, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	total, err3 := int64(-1), error(nil)
	if all != "*" {
		total, err3 = strconv.ParseInt(all, 10, 64)
	}
	return first, last, total, err1 == nil && err2 == nil && err3 == nil
}

// cut makes the end of a body in the middle an error that says so.
func cut(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the answer breaks off")
	}
	return plain(err)
}

// plain takes the URL out of an error of net/http: it may hold a password, and
// whoever prints the error says where it comes from.
func plain(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	var private *PrivateError
	if errors.As(err, &private) {
		return &transfer.DeadSourceError{Err: private}
	}
	if strings.HasPrefix(u.Err.Error(), "failed to parse Location header") {
		return errors.New("redirects to what is no URL") // which may hold a secret, too
	}
	if strings.Contains(u.Err.Error(), "malformed HTTP") || strings.Contains(u.Err.Error(), "transport connection broken") {
		return errors.New("does not answer like a web server")
	}
	return u.Err
}
