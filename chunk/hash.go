// Package chunk holds what is known of one chunk of a share and of sets of them:
// the hash that names its bytes, the cutters that find where it ends, and the
// bitfields and ranges in which peers and the disk speak about chunk indexes.
package chunk

import (
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// Limits of a share's chunks (manifest/SPEC.md, "Limits").
const (
	MinSize = 128 << 10 // smallest nominal chunk size, in bytes
	MaxSize = 16 << 20  // largest nominal chunk size, and the longest chunk, in bytes
	MaxNum  = 1 << 20   // most chunks of one share
)

// hashLen is the length of a hash as text: 32 bytes in base64 without padding.
const hashLen = 43

// A Hash is the BLAKE3-256 hash of some bytes. The zero Hash is of no known bytes.
type Hash [32]byte

// encoding refuses a last character whose unused bits are not zero, so that a
// hash has one text form only.
var encoding = base64.RawURLEncoding.Strict()

// Sum returns the hash of p. It does not allocate; any goroutine may call it.
func Sum(p []byte) Hash {
	h := NewHasher()
	h.h.Write(p)
	sum := h.Sum()
	h.Release()
	return sum
}

// ParseHash parses the text form of a hash: 43 characters of base64url without
// padding, the last of which has no stray bits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hashLen {
		return Hash{}, fmt.Errorf("chunk: hash of %d characters, want %d", len(s), hashLen)
	}
	// base64 skips line breaks; a hash has none.
	for i := range len(s) {
		if s[i] < '-' {
			return Hash{}, fmt.Errorf("chunk: hash has the character %q at offset %d, which base64url does not have", s[i], i)
		}
	}
	var in [hashLen]byte
	copy(in[:], s)
	n, err := encoding.Decode(h[:], in[:])
	if err != nil || n != len(h) {
		return Hash{}, fmt.Errorf("chunk: hash %q is not base64url of 32 bytes", s)
	}
	return h, nil
}

// String returns the 43 characters that ParseHash reads.
func (h Hash) String() string {
	var b [hashLen]byte
	encoding.Encode(b[:], h[:])
	return string(b[:])
}

// AppendText appends the text form of h to b. The error is always nil.
func (h Hash) AppendText(b []byte) ([]byte, error) {
	return encoding.AppendEncode(b, h[:]), nil
}

// MarshalText returns the text form of h, so that JSON shows hashes as people see them.
func (h Hash) MarshalText() ([]byte, error) {
	return h.AppendText(make([]byte, 0, hashLen))
}

// UnmarshalText is the reverse of MarshalText.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// A Hasher hashes bytes that come in pieces. It is not safe for concurrent use.
type Hasher struct {
	h   *blake3.Hasher
	sum [32]byte
}

// A hasher has 10 KiB of state: allocating one for each chunk costs more than
// the hash of a small one.
var hashers = sync.Pool{New: func() any { return &Hasher{h: blake3.New()} }}

// NewHasher returns an empty hasher from a pool. Release gives it back.
func NewHasher() *Hasher {
	return hashers.Get().(*Hasher)
}

// Write adds p to what is hashed. It never fails and does not keep p.
func (h *Hasher) Write(p []byte) (int, error) {
	return h.h.Write(p)
}

// Sum returns the hash of all that was written; more may be written after it.
func (h *Hasher) Sum() Hash {
	h.h.Sum(h.sum[:0])
	return h.sum
}

// Reset makes the hasher empty again.
func (h *Hasher) Reset() {
	h.h.Reset()
}

// Release empties the hasher and returns it to the pool. It must not be used afterwards.
func (h *Hasher) Release() {
	h.h.Reset()
	hashers.Put(h)
}

// WriteString is Write for a string.
func (h *Hasher) WriteString(s string) (int, error) {
	return h.h.WriteString(s)
}
