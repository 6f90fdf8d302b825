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

	Peers []PeerNow // connections
}

// PeerNow is one connection, as of now.
type PeerNow struct {
	Addr     string
	Source   bool // a web server, a bucket or a folder
	Dialled  bool // we have called it, and not it us
	Seed     bool // it has everything
	RTT      time.Duration
	Rate     float64 // bytes/s that it lately gave us,
	OutRate  float64 // and we gave it
	InFlight int     // bytes that it was asked for and that did not come yet
	Refused  int     // chunks that it would not give

	// Of all connections to it, since the start.
	Received, Used, Sent int64
}

// Now returns a snapshot; ok is false before the transfer has begun.
func (in *Inspector) Now() (s Snapshot, ok bool) {
	in.mu.Lock()
	sw := in.sw
	in.mu.Unlock()
	if sw == nil {
		return s, false
	}
	st := sw.statsNow()
	s = Snapshot{At: time.Now(), Received: st.Received, Sent: st.Sent, Wasted: st.Wasted}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if f := sw.get; f != nil {
		s.Done, s.Total, s.Wanting = f.done, f.total, !f.want.None()
		s.Workers = numWorkers()
	}
	s.Hash, s.Write, s.Flush = time.Duration(sw.spent.hash.Load()), time.Duration(sw.spent.write.Load()), time.Duration(sw.spent.flush.Load())
	for _, c := range sw.sessions {
		_, source := c.conn.(*sourceConn)
		s.Peers = append(s.Peers, PeerNow{
			Addr: c.stats.Addr, Source: source, Dialled: c.conn.Dialled(), Seed: c.seed, RTT: c.conn.RTT(),
			Rate: c.flow.usual(), OutRate: c.out.rate, InFlight: c.inflight, Refused: c.refused,
			Received: c.stats.Received, Used: c.stats.Used, Sent: c.stats.Sent,
		})
	}
	return s, true
}
