package peer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/chunk/crew"
)

// Defaults of Config.
const (
	DefaultMaxPending   = 32
	DefaultMaxPerAddr   = 8
	DefaultAdmitTimeout = 10 * time.Second
)

// A Config says how a Node behaves. The zero Config is a good one.
type Config struct {
	Identity *Identity    // nil: a fresh one
	Agent    string       // program and version, told to admitted peers: printable ASCII, at most 64 bytes; "": "shoal"
	Logger   *slog.Logger // nil: silent. What strangers cause is logged at a bounded rate

	MaxPending   int           // connections of others that are not admitted yet; 0: DefaultMaxPending
	MaxPerAddr   int           // connections of others from one address, admitted or not; 0: DefaultMaxPerAddr
	AdmitTimeout time.Duration // for connecting, TLS handshake and admission together; 0: DefaultAdmitTimeout

	// DialContext makes the carrier of a connection; nil: TCP, as net.Dialer does it.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A Node is this program among its peers. Its methods may be called at the same
// time by several goroutines.
type Node struct {
	cfg Config
	tls *tls.Config
	*gate
	limiter *rate.Limiter // of the log
	nobody  secrets       // stands in for an unknown share, so that it takes the same time

	wg     crew.Crew // all goroutines that the node starts
	ctx    context.Context
	cancel context.CancelFunc

	nmu       sync.Mutex
	closed    bool
	listeners []net.Listener
	shares    map[[32]byte]*share   // by name on the wire
	conns     map[*Conn]struct{}    // admitted
	halfway   map[*bufConn]struct{} // in admission
	dropped   int                   // log messages that were not written
}

type share struct {
	secrets
	f     func(*Conn)
	calls sync.WaitGroup // of f; Add only while the node's shares hold it, under nmu
}

// NewNode returns a node that neither dials nor listens yet.
func NewNode(cfg Config) (*Node, error) {
	if cfg.Identity == nil {
		var err error
		if cfg.Identity, err = NewIdentity(); err != nil {
			return nil, err
		}
	}
	if cfg.Agent == "" {
		cfg.Agent = "shoal"
	}
	if !validAgent(cfg.Agent) {
		return nil, fmt.Errorf("agent %.80q: not 1 to %d printable ASCII characters", cfg.Agent, maxAgent)
	}
	if cfg.MaxPending < 0 || cfg.MaxPerAddr < 0 || cfg.AdmitTimeout < 0 {
		return nil, errors.New("negative limit")
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	if cfg.MaxPerAddr == 0 {
		cfg.MaxPerAddr = DefaultMaxPerAddr
	}
	if cfg.AdmitTimeout == 0 {
		cfg.AdmitTimeout = DefaultAdmitTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.DialContext == nil {
		cfg.DialContext = dialFew(nil)
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:     cfg,
		tls:     cfg.Identity.tlsConfig(),
		gate:    newGate(cfg.MaxPending, cfg.MaxPerAddr),
		limiter: rate.NewLimiter(1, 10),
		nobody:  newSecrets(key),
		shares:  make(map[[32]byte]*share),
		conns:   make(map[*Conn]struct{}),
		halfway: make(map[*bufConn]struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n, nil
}

// ID returns the ID that other peers see.
func (n *Node) ID() ID { return n.cfg.Identity.id }

// Accept calls f with each connection of a peer that knows key, in a goroutine
// of its own that Close waits for. f has the connection to itself and calls Run;
// it is closed when f returns. A later Accept of the same key takes its place.
// stop ends it for further peers and waits until the calls of f have returned,
// which is for them or their owner to bring about: stop closes no connection.
// It must not be called from f.
func (n *Node) Accept(key [32]byte, f func(*Conn)) (stop func()) {
	s := &share{secrets: newSecrets(key), f: f}
	n.nmu.Lock()
	n.shares[s.name] = s
	n.nmu.Unlock()
	return func() {
		n.nmu.Lock()
		if n.shares[s.name] == s {
			delete(n.shares, s.name)
		}
		n.nmu.Unlock()
		s.calls.Wait()
	}
}

// Listen takes connections on addr ("host:port", TCP) until Close, and returns
// the address with the port that it got. It may be called several times.
func (n *Node) Listen(addr string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(n.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := n.ServeListener(l); err != nil {
		return nil, err
	}
	return l.Addr(), nil
}

// ServeListener takes connections from l until Close, which closes it.
func (n *Node) ServeListener(l net.Listener) error {
	n.nmu.Lock()
	defer n.nmu.Unlock()
	if n.closed {
		l.Close()
		return ErrClosed
	}
	n.listeners = append(n.listeners, l)
	n.wg.Go(func() { n.serve(l) })
	return nil
}

func (n *Node) serve(l net.Listener) {
	var wait time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			wait = 0
			n.Serve(nc)
			continue
		}
		if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors, most likely: others may close some.
		n.log(slog.LevelWarn, "accept", "addr", l.Addr().String(), "err", err)
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return
		}
	}
}

// Serve takes the listener's side on a carrier that somebody else has made. It
// returns at once; the connection is handed to the function given to Accept.
func (n *Node) Serve(nc net.Conn) {
	bc := newBufConn(nc, idleLimit)
	v := n.enter(bc)
	if v == nil {
		nc.Close()
		n.log(slog.LevelInfo, "refused: too many connections", "addr", nc.RemoteAddr().String())
		return
	}
	n.nmu.Lock()
	defer n.nmu.Unlock()
	if n.closed {
		nc.Close()
		n.leave(v)
		return
	}
	n.halfway[bc] = struct{}{}
	n.wg.Go(func() {
		c, s, err := n.welcome(bc, v)
		n.nmu.Lock()
		delete(n.halfway, bc)
		n.nmu.Unlock()
		if err != nil {
			bc.Conn.Close()
			n.leave(v)
			n.log(slog.LevelInfo, "not admitted", "addr", nc.RemoteAddr().String(), "err", err)
			return
		}
		defer s.calls.Done()
		defer c.Close(nil)
		s.f(c)
	})
}

// log writes a message that strangers can cause, at a bounded rate.
func (n *Node) log(level slog.Level, msg string, args ...any) {
	if !n.cfg.Logger.Enabled(n.ctx, level) {
		return
	}
	n.nmu.Lock()
	if !n.limiter.Allow() {
		n.dropped++
		n.nmu.Unlock()
		return
	}
	dropped := n.dropped
	n.dropped = 0
	n.nmu.Unlock()
	if dropped > 0 {
		args = append(args, "dropped", dropped)
	}
	n.cfg.Logger.Log(n.ctx, level, msg, args...)
}

// welcome admits a peer as the listener.
func (n *Node) welcome(bc *bufConn, v *visit) (*Conn, *share, error) {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.AdmitTimeout)
	defer cancel()
	bc.SetDeadline(deadline(ctx))
	tune(bc.Conn)
	a, err := n.handshake(ctx, bc, false)
	if err != nil {
		return nil, nil, err
	}

	// The peer proves itself first. Until then it hears nothing of us but a key.
	if err := a.expect(verbHello); err != nil {
		return nil, nil, a.refuse(err)
	}
	if err := a.expect(verbJoin); err != nil {
		return nil, nil, a.refuse(err)
	}
	n.nmu.Lock()
	s := n.shares[a.in.name]
	n.nmu.Unlock()
	key := &n.nobody
	if s != nil {
		key = &s.secrets
	}
	proof := key.prove(a.exporter, a.theirs, n.ID(), roleDialler)
	// One answer to both, after the same work: who does not know the key does
	// not learn either whether we have the share.
	if subtle.ConstantTimeCompare(proof[:], a.in.proof[:]) != 1 || s == nil {
		return nil, nil, a.refuse(&shareError{})
	}
	proof = key.prove(a.exporter, a.theirs, n.ID(), roleListener)
	if err := a.say(n.cfg.Agent, s.name, proof); err != nil {
		return nil, nil, err
	}
	if !n.admit(v) {
		return nil, nil, ErrBusy
	}
	c, err := n.open(a, s, func() { n.leave(v) })
	return c, s, err
}

// Dial connects to addr ("host:port") and joins the share with this key. The
// errors are ErrNotShoal, ErrVersion, ErrNoShare, ErrSelf, ErrBusy, ErrLost and
// ErrTimeout with more text, or the system's for a carrier that was not made.
func (n *Node) Dial(ctx context.Context, addr string, key [32]byte) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.AdmitTimeout)
	defer cancel()
	stop := context.AfterFunc(n.ctx, crew.Guard(cancel))
	defer stop()
	nc, err := n.cfg.DialContext(ctx, "tcp", addr)
	if err != nil {
		if isTimeout(err) {
			return nil, fmt.Errorf("%w: dial %s: no answer", ErrTimeout, addr)
		}
		return nil, err
	}
	c, err := n.Join(ctx, nc, key)
	if err != nil {
		return nil, fmt.Errorf("join at %s: %w", addr, err)
	}
	return c, nil
}

// Join takes the dialler's side on a carrier that somebody else has made. On an
// error nc is closed.
func (n *Node) Join(ctx context.Context, nc net.Conn, key [32]byte) (*Conn, error) {
	c, err := n.join(ctx, nc, key)
	if err != nil {
		nc.Close()
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return c, nil
}

func (n *Node) join(ctx context.Context, nc net.Conn, key [32]byte) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.AdmitTimeout)
	defer cancel()
	bc := newBufConn(nc, idleLimit)
	bc.SetDeadline(deadline(ctx))
	stop := context.AfterFunc(ctx, crew.Guard(func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // then reads and writes end by themselves, and say why
			nc.Close()
		}
	}))
	defer stop()
	tune(nc)
	a, err := n.handshake(ctx, bc, true)
	if err != nil {
		return nil, err
	}
	s := newSecrets(key)
	began := time.Now()
	if err := a.say(n.cfg.Agent, s.name, s.prove(a.exporter, n.ID(), a.theirs, roleDialler)); err != nil {
		return nil, err
	}
	if err := a.expect(verbHello); err != nil {
		return nil, a.refuse(err)
	}
	if err := a.expect(verbJoin); err != nil {
		return nil, a.refuse(err)
	}
	rtt := time.Since(began)
	proof := s.prove(a.exporter, n.ID(), a.theirs, roleListener)
	if subtle.ConstantTimeCompare(proof[:], a.in.proof[:]) != 1 || a.in.name != s.name {
		return nil, a.refuse(&shareError{})
	}
	if !stop() {
		return nil, fmt.Errorf("%w: admission", ErrTimeout)
	}
	c, err := n.open(a, nil, nil)
	if err != nil {
		return nil, err
	}
	c.sawRTT(rtt)
	return c, nil
}

// A shareError is ErrNoShare as it is told to the peer.
type shareError struct{}

func (*shareError) Error() string        { return ErrNoShare.Error() + ", or a wrong proof" }
func (*shareError) Is(target error) bool { return target == ErrNoShare }
func (*shareError) ProtocolCode() string { return codeShare }
func (*shareError) lineText() string     { return "no such share" }

// An admission is a connection between its TLS handshake and its first line as
// a Conn.
type admission struct {
	bc       *bufConn
	tc       *tls.Conn
	lr       *lineReader
	dialler  bool
	theirs   ID
	exporter []byte
	state    state
	newer    bool
	agent    string
	in       line
}

func (n *Node) handshake(ctx context.Context, bc *bufConn, dialler bool) (*admission, error) {
	a := &admission{bc: bc, dialler: dialler}
	if dialler {
		a.tc = tls.Client(bc, n.tls)
	} else {
		a.tc = tls.Server(bc, n.tls)
	}
	if err := a.tc.HandshakeContext(ctx); err != nil {
		return nil, handshakeError(err)
	}
	bc.capped.Store(false)
	cs := a.tc.ConnectionState()
	pub, err := peerKey(&cs)
	if err != nil { // verifyPeer has seen to it
		return nil, fmt.Errorf("%w: %w", ErrNotShoal, err)
	}
	a.theirs = idOf(pub)
	a.exporter, err = cs.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("peer: export keying material: %w", err)
	}
	a.lr = newLineReader(a.tc)
	return a, nil
}

// expect reads the next line, which must be a v.
func (a *admission) expect(v verb) error {
	b, err := a.lr.next()
	if err != nil {
		if isTimeout(err) {
			return &timeoutError{what: v.String() + " line"}
		}
		if _, ok := errors.AsType[*ProtocolError](err); ok {
			return err
		}
		return handshakeError(err)
	}
	if err := a.in.parse(b); err != nil {
		return err
	}
	if a.state, err = a.state.step(a.in.verb, false); err != nil {
		return err
	}
	switch a.in.verb {
	case verbError:
		return remoteError(&a.in)
	case verbHello:
		a.agent = string([]byte(a.in.agent))
		a.newer, err = checkVersion(a.in.version)
	}
	return err
}

// say sends our greeting and proof.
func (a *admission) say(agent string, name, proof [32]byte) error {
	hello := line{verb: verbHello, version: protoText, agent: agent}
	join := line{verb: verbJoin, name: name, proof: proof}
	_, err := a.tc.Write(join.append(hello.append(nil)))
	return handshakeError(err)
}

// refuse tells the peer why it is not admitted, and returns err.
func (a *admission) refuse(err error) error {
	if _, ok := errors.AsType[*RemoteError](err); ok || errors.Is(err, ErrLost) {
		return err
	}
	a.bc.SetDeadline(time.Now().Add(closeLimit))
	code, text := errorLine(err)
	l := line{verb: verbError, code: code, text: text}
	a.tc.Write(l.append(nil))
	a.tc.CloseWrite()
	a.bc.CloseWrite()
	if a.dialler {
		return err
	}
	// Unread bytes would reset the connection before our answer is read; but a
	// stranger does not get long.
	var p [1024]byte
	for range 64 {
		if _, rerr := a.bc.Read(p[:]); rerr != nil {
			break
		}
	}
	return err
}

// open makes the Conn. With a share it also counts a call of its function.
func (n *Node) open(a *admission, s *share, onClose func()) (*Conn, error) {
	a.bc.SetDeadline(time.Time{})
	a.bc.grow()
	c := newConn(a.bc, a.tc, a.lr, nil)
	c.id, c.agent, c.dialled, c.newer = a.theirs, a.agent, a.dialler, a.newer
	c.onClose = func() {
		n.nmu.Lock()
		delete(n.conns, c)
		n.nmu.Unlock()
		if onClose != nil {
			onClose()
		}
	}
	n.nmu.Lock()
	defer n.nmu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	if s != nil {
		if n.shares[s.name] != s {
			return nil, ErrNoShare // stopped meanwhile
		}
		s.calls.Add(1)
	}
	n.conns[c] = struct{}{}
	return c, nil
}

func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline() // both callers have set one
	return t
}

// Close stops listening, says bye on every connection, and waits until all that
// the node has started has ended: the functions given to Accept too.
func (n *Node) Close() error {
	n.nmu.Lock()
	n.closed = true
	listeners := n.listeners
	n.listeners = nil
	for bc := range n.halfway {
		bc.Conn.Close()
	}
	conns := make([]*Conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.nmu.Unlock()
	n.cancel()
	for _, l := range listeners {
		l.Close()
	}
	var closing crew.Crew
	for _, c := range conns {
		closing.Go(func() { c.Close(nil) })
	}
	closing.Wait()
	n.wg.Wait()
	return nil
}
