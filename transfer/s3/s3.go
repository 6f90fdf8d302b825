// Package s3 makes a bucket of an S3 server a source of a share: objects whose
// keys are the paths of the files. The protocol and its signatures are minio-go's.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer"
)

const (
	width      = 4 // chunks that are asked for at once
	maxRetries = 3 // of one request; whoever fetches tries again later
	idleTime   = 30 * time.Second
)

// A Source is a bucket, or the keys below a prefix in one.
type Source struct {
	bucket, prefix string
	core           *minio.Core
	transport      *http.Transport

	mu  sync.Mutex
	m   *manifest.Manifest
	top string // of the keys, once it is known
}

var _ transfer.Source = (*Source)(nil)

// New returns the source at s3://BUCKET/PREFIX. Server, region and keys are what
// the variables AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE,
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN and the AWS
// credentials file say; without keys, requests are anonymous.
func New(s string) (*Source, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL") // err may hold a password
	case u.Scheme != "s3" || u.Host == "":
		return nil, errors.New("not a URL of the form s3://BUCKET/PREFIX")
	case u.User != nil:
		return nil, errors.New("keys do not belong into the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("an s3 URL has neither ? nor #; write %3F or %23 for a key that has them")
	}
	host, secure, err := endpoint()
	if err != nil {
		return nil, err
	}
	tr, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{Profile: os.Getenv("AWS_PROFILE")},
		}),
		Secure: secure, Region: region(), MaxRetries: maxRetries, Transport: tr,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return &Source{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), core: &minio.Core{Client: client}, transport: tr}, nil
}

// endpoint returns the host of the server, and whether it speaks TLS.
func endpoint() (host string, secure bool, err error) {
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		v := os.Getenv(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return "", false, fmt.Errorf("%s is not a URL of the form https://HOST:PORT", name)
		}
		return u.Host, u.Scheme == "https", nil
	}
	return "s3.amazonaws.com", true, nil
}

func region() string {
	if r := os.Getenv("AWS_REGION"); r != "" {
		return r
	}
	return os.Getenv("AWS_DEFAULT_REGION")
}

func (s *Source) String() string {
	u := url.URL{Scheme: "s3", Host: s.bucket, Path: "/" + s.prefix}
	return u.String()
}

// Width is how many chunks are asked for at once.
func (*Source) Width() int { return width }

// Close ends connections that are kept open.
func (s *Source) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Open finds out below which prefix the files lie.
func (s *Source) Open(ctx context.Context, m *manifest.Manifest) (*chunk.Bitfield, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m, s.top = m, ""
	if m.NumChunks() == 0 {
		return nil, nil
	}
	var x manifest.Extent
	for x = range m.Extents(0) {
		break
	}
	x.Len = 1
	top, err := transfer.FirstPlace(s.tops(m), func(top string) error { return s.get(ctx, top, x, io.Discard) })
	s.top = top
	return nil, err
}

// tops are the prefixes below which the files may be: the one in the URL, or that
// and the share's name. For a share of one file they are those of its folder, or
// the key itself.
func (s *Source) tops(m *manifest.Manifest) []string {
	if m.IsFile() {
		return []string{path.Join(s.prefix, m.Name()), s.prefix}
	}
	return []string{s.prefix, path.Join(s.prefix, m.Name())}
}

func (s *Source) key(top string, e *manifest.Entry) string {
	if s.m.IsFile() {
		return top
	}
	return path.Join(top, e.Path)
}

// Fetch writes chunk i to w, one request for each file in it.
func (s *Source) Fetch(ctx context.Context, i int, w io.Writer) error {
	s.mu.Lock()
	m, top := s.m, s.top
	s.mu.Unlock()
	for x := range m.Extents(i) {
		if err := s.get(ctx, top, x, w); err != nil {
			return err
		}
	}
	return nil
}

// get writes a part of one object to w.
func (s *Source) get(ctx context.Context, top string, x manifest.Extent, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	key := s.key(top, &s.m.Entries()[x.Entry])
	if key == "" {
		return &transfer.GoneError{Err: errors.New("names no object")}
	}
	var o minio.GetObjectOptions
	if err := o.SetRange(x.Off, x.Off+int64(x.Len)-1); err != nil {
		return err
	}
	body, info, _, err := s.core.GetObject(ctx, s.bucket, key, o)
	if err != nil {
		return s.explain(ctx, err)
	}
	defer body.Close()
	if info.Size != int64(x.Len) {
		return &transfer.GoneError{Err: fmt.Errorf("gives %d bytes where %d were asked for: another object, or a server that ignores ranges", info.Size, x.Len)}
	}
	in := transfer.NewIdleReader(body, idleTime, func() { cancel(fmt.Errorf("no byte in %v", idleTime)) })
	defer in.Stop()
	n, err := io.CopyN(w, in, int64(x.Len))
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("the answer breaks off after %d of %d bytes", n, x.Len)
	}
	return nil
}

// explain makes an error of minio-go one of ours, without what the server says.
func (s *Source) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	res := minio.ToErrorResponse(err)
	switch res.Code {
	case "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "AccessDenied", "InvalidRange", "InvalidAccessKeyId",
		"SignatureDoesNotMatch", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName":
		return &transfer.GoneError{Err: fmt.Errorf("answers %s", res.Code)}
	}
	switch res.StatusCode {
	case 0:
		var u *url.Error
		if errors.As(err, &u) {
			return u.Err
		}
		return errors.New("does not answer like an S3 server")
	case http.StatusNotFound, http.StatusForbidden, http.StatusGone, http.StatusRequestedRangeNotSatisfiable:
		return &transfer.GoneError{Err: fmt.Errorf("answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))}
	}
	return fmt.Errorf("answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))
}
