// Package transfer moves shares: it serves one to any number of peers
// ([NewShare]), and fetches one from all peers it can reach at once ([Get]),
// going on where an earlier get was stopped.
//
// It knows neither sockets nor flags. What it needs of the network is the
// small [Network] and [Conn]; package peer provides both. What it does to the
// disk goes through package transfer/store.
package transfer

import (
	"context"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
	"github.com/shoal-p2p/shoal/transfer/store"
)

// Handler is what a Conn calls for each line the other side sends. All calls
// of one Conn come from the goroutine in [Conn.Run], one at a time. An error
// ends the connection with that reason.
//
// It is an alias of an unnamed interface so that a package that may not import
// this one can still name the same type.
type Handler = interface {
	// HaveAll and Have say which chunks the other side offers. Indexes are
	// below chunk.MaxNum, but not checked against the share. rs is only valid
	// during the call.
	HaveAll() error
	Have(rs []chunk.Range) error
	// Want asks for chunks, Cancel takes that back, Gone refuses chunks that
	// we asked for.
	Want(rs []chunk.Range) error
	Cancel(rs []chunk.Range) error
	Gone(rs []chunk.Range) error
	// WantManifest asks for the manifest; Manifest announces the length in
	// bytes of the one we asked for, 1 to manifest's limit.
	WantManifest() error
	Manifest(size int64) error
	// Segment returns the buffer for n bytes that are about to arrive, which
	// lie at off in chunk i, or in the manifest for i == -1. Received says
	// that they are in it.
	Segment(i, off, n int) ([]byte, error)
	Received(i, off, n int) error
	// Peers are addresses, host:port, at which the swarm may have others;
	// Listening is the port at which the other side accepts connections.
	Peers(addrs []string) error
	Listening(port int) error
}

// Conn is one admitted connection to a peer of the swarm. The Send methods
// fill a buffer that Flush sends; any goroutine may call them.
type Conn interface {
	ID() [32]byte
	RemoteAddr() string
	Dialled() bool
	RTT() time.Duration // the smallest round trip seen; 0 if none was yet
	Run(ctx context.Context, h Handler) error

	SendHaveAll() error
	SendHaves(b *chunk.Bitfield) error
	SendHave(rs []chunk.Range) error
	SendWant(rs []chunk.Range) error
	SendCancel(rs []chunk.Range) error
	SendGone(rs []chunk.Range) error
	SendWantManifest() error
	SendManifest(size int64) error
	SendData(i, off int, p []byte) error
	SendPeers(addrs []string) error
	SendListen(port int) error
	Flush() error
	Close(reason error) error
}

// Network reaches peers. A key names the swarm and is the right to join it: a
// share's key is its root.
type Network interface {
	// Dial returns an admitted connection to the peer at addr, host:port.
	Dial(ctx context.Context, addr string, key [32]byte) (Conn, error)
	// Accept calls f, each time in a new goroutine, for every peer that comes
	// in and proves that it knows key, until stop is called. stop waits for
	// the calls that run.
	Accept(key [32]byte, f func(Conn)) (stop func())
	// ID is what peers know us by.
	ID() [32]byte
	// IsSelf and IsNoShare tell what an error of Dial means: that the address
	// is our own, or that the peer does not have this share.
	IsSelf(err error) bool
	IsNoShare(err error) bool
}

// An Event tells what a transfer does. Events come one at a time.
type Event interface{ event() }

type (
	// Hashing reports how far NewShare is, in bytes.
	Hashing struct{ Done, Total int64 }
	// Found reports that the manifest is known; From is the address it came
	// from, or "" if it was on disk.
	Found struct {
		Manifest *manifest.Manifest
		From     string
	}
	// Resumed reports that Kept of Total bytes are there from an earlier get.
	Resumed struct{ Kept, Total int64 }
	// Reusing reports how much of Options.Reuse was read, and how much of that
	// can be used, in bytes; it comes a few times a second, and once with Done.
	Reusing struct {
		Read, Found int64
		Shared      int64 // of Found: lies on disk only once, under both names
		Done        bool
	}
	// Comparing reports how much of the files that lie at the place of the share, and
	// that it might have, was compared, in bytes. It comes often.
	Comparing struct{ Done, Total int64 }
	// Merging reports that there is something at the place of the share: Kept
	// files with KeptSize bytes are the same and stay, Fetch others are missing,
	// differ, or can only be compared when they are here.
	Merging struct {
		Path                string
		Kept, Fetch         int
		KeptSize, FetchSize int64
	}
	// Progress comes a few times a second while a get runs.
	Progress struct {
		Done, Total int64   // bytes that are on disk; bytes that the selection has
		Rate        float64 // bytes/s over the last seconds
		Peers       int     // connected
	}
	// PeerUp and PeerDown report connections. Err is nil after a clean end.
	PeerUp struct {
		Addr string
		ID   [32]byte
	}
	PeerDown struct {
		Addr   string
		ID     [32]byte
		Err    error
		Banned bool // it sent wrong bytes and is not asked again
	}
	// Waiting reports that nothing can be fetched now, and why, address by
	// address. It comes again when the reasons change. Unless something comes, the
	// get ends at GivesUp.
	Waiting struct {
		Since, GivesUp time.Time
		Reasons        []string
	}
	// Skipped reports something in the tree that is not shared.
	Skipped struct{ Path, Why string }
	// Warning is anything else that the user should know.
	Warning struct{ Text string }
	// Finishing reports that all bytes are there and the tree is flushed.
	Finishing struct{}
	// Finished reports that the share is complete under its final name; with
	// GetOptions.Seed the get goes on serving after it.
	Finished struct{ Result *Result }
)

func (Hashing) event()   {}
func (Found) event()     {}
func (Resumed) event()   {}
func (Reusing) event()   {}
func (Comparing) event() {}
func (Merging) event()   {}
func (Progress) event()  {}
func (PeerUp) event()    {}
func (PeerDown) event()  {}
func (Waiting) event()   {}
func (Skipped) event()   {}
func (Warning) event()   {}
func (Finishing) event() {}
func (Finished) event()  {}

// PeerStats counts what passed between us and one peer, over all connections
// to it. All figures are bytes of chunks, without the protocol's own.
type PeerStats struct {
	Addr     string
	ID       [32]byte
	Source   bool  // a web server, a bucket or a folder
	Received int64 // came in, wanted or not
	Used     int64 // was right, new, and written
	Sent     int64
	Banned   bool

	Lines int           // connections to it now
	Time  time.Duration // in which there was at least one
	since time.Time     // since when there is one
}

// Stats counts what a share or a get did so far.
type Stats struct {
	Peers    []PeerStats // everyone who was ever connected, in order of arrival
	Received int64
	Sent     int64
	Wasted   int64 // received, but wrong or not needed any more
}

// Result describes a finished get.
type Result struct {
	Manifest *manifest.Manifest
	Path     string // where the share is now; of a stream, its name
	Old      string // where what it has replaced is now; "": nowhere
	Already  bool   // it was there before; nothing was fetched
	Size     int64  // bytes of the selection
	Kept     int64  // bytes that an earlier get had fetched
	Reused   int64  // bytes that were found in other files
	Fetched  int64  // bytes that this one got from peers
	Elapsed  time.Duration
	Stats    Stats

	// Of a share that went into a folder that was there: files that had the same
	// content, those that were left as they are although they differ, the names
	// that others got from the disk's folder on, and how many were replaced.
	Merged      bool
	There       int
	Skipped     []string
	Renamed     map[string]string
	Overwritten int
}

// ShareOptions say what NewShare shares.
type ShareOptions struct {
	Paths   []string // files and directories
	Build   manifest.BuildOptions
	Network Network
	Port    int         // at which Network accepts connections; 0: unknown
	Events  func(Event) // nil: none
	Inspect *Inspector  // nil: nobody looks

	Limits   *Limits // nil: none
	MaxPeers int     // connections at once, 1 to MaxPeers; 0: MaxPeers
}

// GetOptions say what Get fetches and where it goes.
type GetOptions struct {
	Root     chunk.Hash
	Manifest *manifest.Manifest // nil: asked from the peers
	Addrs    []string           // host:port of peers to dial

	// Discover looks for more peers until ctx ends, and tells each address,
	// host:port, at which there may be one. Such an address is a hint: it is dialled
	// at most once a second for each host, forgotten if nobody answers, and never
	// given as a reason for waiting. nil: no other peers than Addrs, those that peers
	// tell of, and those that come in.
	Discover func(ctx context.Context, found func(addr string))

	Dir    string // the share becomes Dir/NAME; "" is "."
	Output string // or exactly this path

	// Sources are asked beside the peers. WebSource makes one of a URL that the
	// manifest names; nil: those are left alone.
	Sources   []Source
	WebSource func(url string) (Source, error)

	Only, Exclude []string // globs; see manifest.Select

	Reuse []string       // files and folders in which chunks of the share may lie
	Cache manifest.Cache // of what was found in them; nil: none

	// Update replaces what has the final name already, in one step, when the
	// share is complete; its chunks are reused. With KeepOld it stays beside it.
	Update, KeepOld bool

	Seed    bool // go on serving after the end, until ctx ends
	Recheck bool // hash again what an earlier get left
	AnyName bool // allow names that some systems refuse

	// Timeout is how long to wait for a first peer; it must be positive.
	// StallTimeout is how long to wait after that while nothing new comes; 0 is
	// the same.
	Timeout, StallTimeout time.Duration

	// Existing says what becomes of files that are at the share's place and have
	// other content.
	Existing store.Existing

	// Request is kept in the part, for whoever finds and resumes it.
	Request []byte

	Network Network
	Port    int         // at which Network accepts connections; 0: it does not
	Events  func(Event) // nil: none
	Inspect *Inspector  // nil: nobody looks

	Limits   *Limits // nil: none
	MaxPeers int     // connections at once, 1 to MaxPeers; 0: MaxPeers
}

// MaxPeers is how many connections a transfer has at most.
const MaxPeers = maxPeers

// orMax returns n, or MaxPeers if n is 0 or more than that.
func orMax(n int) int {
	if n < 1 || n > MaxPeers {
		return MaxPeers
	}
	return n
}
