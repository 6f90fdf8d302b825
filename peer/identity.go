package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/zeebo/blake3"
)

// An ID names a peer: the BLAKE3 hash of the 32 bytes of its Ed25519 public key.
type ID [32]byte

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns the first 80 bits of the ID in lower-case base32, enough to
// tell peers apart in a message. Compare IDs, not their strings.
func (id ID) String() string { return idEncoding.EncodeToString(id[:10]) }

func idOf(pub ed25519.PublicKey) ID { return blake3.Sum256(pub) }

// An Identity is the key pair of a node. It is never written anywhere.
type Identity struct {
	cert tls.Certificate
	id   ID
}

// NewIdentity returns a fresh identity. Its certificate says nothing but the
// public key: the other fields are the same for everybody.
func NewIdentity() (*Identity, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	// The dates are there because X.509 wants some; nobody looks at them, as
	// the clock of either side may be wrong.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, priv)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv},
		id:   idOf(pub),
	}, nil
}

// ID returns the ID that other peers see.
func (id *Identity) ID() ID { return id.id }

const (
	alpn = "shoal/1"

	// maxCertLen is ten times what an Ed25519 certificate needs without names.
	maxCertLen = 1024
)

// tlsConfig is used for both roles. Nothing of Web PKI applies: a peer is its
// key, so the one check is verifyPeer, and it always runs (VerifyConnection is
// called on both sides, and nothing is ever resumed).
func (id *Identity) tlsConfig() *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{id.cert},
		MinVersion:                  tls.VersionTLS13,
		MaxVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{alpn},
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // verifyPeer below pins the key instead
		VerifyConnection:            id.verifyPeer,
		SessionTicketsDisabled:      true,
		Renegotiation:               tls.RenegotiateNever,
		DynamicRecordSizingDisabled: true,
	}
}

// verifyPeer refuses all but one small certificate with an Ed25519 key that is
// not our own. It runs before crypto/tls checks the peer's signature, so that
// no other kind of key is ever computed with.
func (id *Identity) verifyPeer(cs tls.ConnectionState) error {
	pub, err := peerKey(&cs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotShoal, err)
	}
	theirs := idOf(pub)
	if subtle.ConstantTimeCompare(theirs[:], id.id[:]) == 1 {
		return ErrSelf
	}
	return nil
}

func peerKey(cs *tls.ConnectionState) (ed25519.PublicKey, error) {
	if cs.Version != tls.VersionTLS13 {
		return nil, errors.New("not TLS 1.3")
	}
	if cs.NegotiatedProtocol != alpn {
		return nil, errors.New("it did not agree on " + alpn)
	}
	if cs.DidResume {
		return nil, errors.New("resumed session")
	}
	if n := len(cs.PeerCertificates); n != 1 {
		return nil, fmt.Errorf("%d certificates instead of 1", n)
	}
	cert := cs.PeerCertificates[0]
	if len(cert.Raw) > maxCertLen {
		return nil, fmt.Errorf("certificate of %d bytes", len(cert.Raw))
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return nil, errors.New("not an Ed25519 key")
	}
	return pub, nil
}

// The strings of SPEC.md, "Admission".
const (
	exporterLabel = "EXPORTER-shoal-1"
	nameContext   = "shoal 1 share name"
	proofContext  = "shoal 1 share proof"
	roleDialler   = "dialler"
	roleListener  = "listener"
)

// secrets is what admission needs of a share's key.
type secrets struct {
	name  [32]byte // what the share is called on the wire
	proof [32]byte // key of the proofs
}

func newSecrets(key [32]byte) (s secrets) {
	blake3.DeriveKey(nameContext, key[:], s.name[:])
	blake3.DeriveKey(proofContext, key[:], s.proof[:])
	return s
}

// prove returns the proof that role knows the key on this connection.
func (s *secrets) prove(exporter []byte, dialler, listener ID, role string) (p [32]byte) {
	h, err := blake3.NewKeyed(s.proof[:])
	if err != nil {
		panic("peer: internal error: " + err.Error())
	}
	h.Write(exporter)
	h.Write(dialler[:])
	h.Write(listener[:])
	h.WriteString(role)
	h.Sum(p[:0])
	return p
}
