package transfer

import (
	"sync"
	"sync/atomic"
	"time"
)

// An Inspector looks into a transfer while it runs. The zero Inspector sees
// nothing; give it to one transfer in GetOptions or ShareOptions. Its methods may
// be called from any goroutine.
type Inspector struct {
	mu sync.Mutex
	sw *swarm
}

func (in *Inspector) look(sw *swarm) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sw = sw
}

// spent is where the time of a get goes, in ns, summed over all that do it.
type spent struct{ hash, write, flush atomic.Int64 }

// spend adds the time since began.
func spend(on *atomic.Int64, began time.Time) { on.Add(int64(time.Since(began))) }

// A Snapshot says where a transfer is, and where its time went so far. Two of them
// tell what happened between.
type Snapshot struct {
	At          time.Time
	Done, Total int64 // bytes on disk and wanted; 0 when nothing is fetched
	Wanting     bool  // something is still missing
	Received    int64 // bytes of chunks, from all peers,
	Sent        int64 // and to them
	Wasted      int64

	// What those that hash and write did, in sum; they are Workers. Flush is the
	// time in which the disk was made to keep what it has.
	Workers            int
	Hash, Write, Flush time.Duration

	Peers []PeerNow // everyone who was ever connected, in order of arrival
}

// PeerNow is one peer, as of now. All but the counters is zero once it has gone.
type PeerNow struct {
	PeerStats
	Dialled  bool // we have called it, and not it us
	Seed     bool // it has everything
	RTT      time.Duration
	InFlight int // bytes that it was asked for and that did not come yet
	Refused  int // chunks that it would not give
}

// PeerSince is one peer, and the bytes that passed between two snapshots.
type PeerSince struct {
	PeerNow
	Gave, Took int64 // to us and from us
}

// Since returns the peers of s that are connected, and those that gave or took
// something since before. A peer with several connections is there once.
func (s Snapshot) Since(before Snapshot) []PeerSince {
	was := make(map[[32]byte]*PeerNow, len(before.Peers))
	for k := range before.Peers {
		was[before.Peers[k].ID] = &before.Peers[k]
	}
	var ps []PeerSince
	for _, p := range s.Peers {
		x := PeerSince{p, p.Received, p.Sent}
		if b := was[p.ID]; b != nil {
			x.Gave, x.Took = max(0, p.Received-b.Received), max(0, p.Sent-b.Sent) // it may have been forgotten
		}
		if p.Lines > 0 || x.Gave > 0 || x.Took > 0 {
			ps = append(ps, x)
		}
	}
	return ps
}

// Now returns a snapshot; ok is false before the transfer has begun.
func (in *Inspector) Now() (s Snapshot, ok bool) {
	in.mu.Lock()
	sw := in.sw
	in.mu.Unlock()
	if sw == nil {
		return s, false
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	now := time.Now()
	st := sw.count(now)
	s = Snapshot{At: now, Received: st.Received, Sent: st.Sent, Wasted: st.Wasted}
	if f := sw.get; f != nil {
		s.Done, s.Total, s.Wanting = f.done, f.total, !f.want.None()
		s.Workers = numWorkers()
	}
	s.Hash, s.Write, s.Flush = time.Duration(sw.spent.hash.Load()), time.Duration(sw.spent.write.Load()), time.Duration(sw.spent.flush.Load())
	at := make(map[[32]byte]int, len(st.Peers))
	for k, p := range st.Peers {
		s.Peers = append(s.Peers, PeerNow{PeerStats: p})
		at[p.ID] = k
	}
	for _, c := range sw.sessions {
		p := &s.Peers[at[c.stats.ID]]
		p.Dialled = p.Dialled || c.conn.Dialled()
		p.Seed = p.Seed || c.seed
		if rtt := c.conn.RTT(); p.RTT == 0 || rtt > 0 && rtt < p.RTT {
			p.RTT = rtt
		}
		p.InFlight += c.inflight
		p.Refused += c.refused
	}
	return s, true
}
