// Package peer carries one connection between two peers and the text protocol
// spoken on it; SPEC.md beside this file describes every byte.
//
// A [Node] has a key of its own, dials and listens. Both sides of a connection
// prove that they know the 32-byte key of a share before either says anything
// about it; what comes out is a [Conn]. The package knows chunk numbers, never
// files.
package peer

// Sizes on the wire (SPEC.md, "Limits").
const (
	MaxSegment      = 256 << 10 // most bytes that one data line carries
	MaxManifestSize = 64 << 20  // largest manifest, in bytes
)
