package transfer

import (
	"fmt"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/chunk"
	"github.com/shoal-p2p/shoal/manifest"
)

// leastPatience is how long a peer has at least for what it was asked.
const leastPatience = 3 * time.Second

// An askLog sees what a node asks each of its peers for and what comes, on the line
// alone, and says what was asked twice.
type askLog struct {
	m *manifest.Manifest

	mu    sync.Mutex
	first map[int]time.Time              // when a chunk was first asked for
	open  map[*memPipe]map[int]time.Time // what was asked by a line, and has neither come nor been cancelled
	done  map[int]time.Time
	twice []asked // while another peer had it to send, and time left to do so
	after []asked // that had come already
}

type asked struct {
	i  int
	at time.Time
}

func newAskLog(m *manifest.Manifest) *askLog {
	return &askLog{m: m, first: map[int]time.Time{}, open: map[*memPipe]map[int]time.Time{}, done: map[int]time.Time{}}
}

// want notes a message of a node that gets its answers by in.
func (l *askLog) want(in *memPipe, rs []chunk.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.open[in] == nil {
		l.open[in] = map[int]time.Time{}
	}
	for _, r := range rs {
		for i := r.First; i < r.First+r.N; i++ {
			if at, ok := l.done[i]; ok && now.After(at) {
				l.after = append(l.after, asked{i, now})
			}
			for o, theirs := range l.open {
				if _, ok := theirs[i]; ok && !o.closed() && now.Sub(oldest(theirs)) < leastPatience {
					l.twice = append(l.twice, asked{i, now})
				}
			}
			if _, ok := l.first[i]; !ok {
				l.first[i] = now
			}
			l.open[in][i] = now
		}
	}
}

// oldest returns the first of some times: a peer that is late with one chunk is
// late with all that it was asked for.
func oldest(times map[int]time.Time) (t time.Time) {
	for _, u := range times {
		if t.IsZero() || u.Before(t) {
			t = u
		}
	}
	return t
}

func (l *askLog) cancel(in *memPipe, rs []chunk.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range rs {
		for i := r.First; i < r.First+r.N; i++ {
			delete(l.open[in], i)
		}
	}
}

// got notes that the bytes of chunk i before end have come by in.
func (l *askLog) got(in *memPipe, i, end int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end != l.m.ChunkLen(i) {
		return
	}
	delete(l.open[in], i)
	if _, ok := l.done[i]; !ok {
		l.done[i] = time.Now()
	}
}

// check returns what was asked for twice without need: before the endgame, which
// begins when each chunk was asked for once, or once the chunk was there.
func (l *askLog) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var endgame time.Time
	for _, t := range l.first {
		if t.After(endgame) {
			endgame = t
		}
	}
	if len(l.first) != l.m.NumChunks() {
		return fmt.Errorf("%d of %d chunks were asked for", len(l.first), l.m.NumChunks())
	}
	for _, a := range l.twice {
		if a.at.Before(endgame) {
			return fmt.Errorf("chunk %d was asked for twice, %v before the endgame (and so were %d in all)", a.i, endgame.Sub(a.at), len(l.twice))
		}
	}
	if len(l.after) > 0 {
		return fmt.Errorf("chunk %d was asked for when it was there, and so were %d more", l.after[0].i, len(l.after)-1)
	}
	return nil
}

func (p *memPipe) closed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
