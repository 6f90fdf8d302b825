package peer

import (
	"bytes"
	"io"
	"strings"
)

// A lineReader splits what a peer sends into lines and the bytes of bodies.
//
// Its buffer holds one TLS record, and a read from TLS never returns more than
// one. As a data line is sent in a record of its own, the bytes after it are
// then still to be read, and go straight to where they belong.
type lineReader struct {
	r          io.Reader
	buf        []byte
	start, end int // buf[start:end] is not used yet
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, 16<<10)}
}

// next returns the next line without its LF. The line is valid until the next
// call. A line without a LF is reported once it is too long for its verb.
func (lr *lineReader) next() ([]byte, error) {
	for seen := 0; ; {
		have := lr.buf[lr.start:lr.end]
		if i := bytes.IndexByte(have[seen:], '\n'); i >= 0 {
			lr.start += seen + i + 1
			return have[:seen+i], nil
		}
		seen = len(have)
		if seen >= maxLine {
			if most := lineLimit(have); seen >= most {
				return nil, protocolErrorf(codeLimit, "line of more than %d bytes", most)
			}
		}
		if lr.start > 0 {
			copy(lr.buf, have)
			lr.start, lr.end = 0, len(have)
		}
		n, err := lr.r.Read(lr.buf[lr.end:])
		lr.end += n
		if n == 0 && err != nil {
			if err == io.EOF && lr.end > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// lineLimit returns how long the line that begins with b may become.
func lineLimit(b []byte) int {
	word, _, _ := strings.Cut(string(b[:maxVerb+1]), " ")
	if v, ok := parseVerb(word); ok {
		return v.maxLen()
	}
	return maxLine
}

// body fills p with the bytes that follow the line.
func (lr *lineReader) body(p []byte) error {
	n := copy(p, lr.buf[lr.start:lr.end])
	lr.start += n
	for n < len(p) {
		m, err := lr.r.Read(p[n:])
		n += m
		if m == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
