package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
)

// Address is where a node reaches the API server, in its own namespace.
const Address = "127.0.0.1:6443"

// Proxy carries TCP connections from a node's loopback to the API server, which listens in the
// host's namespace.
type Proxy struct {
	space  string // of the node
	target string

	mu       sync.Mutex
	listener net.Listener // nil while cut
	conns    map[net.Conn]bool
	lines    map[*line]bool
	done     sync.WaitGroup
	late     atomic.Int64 // see Delay
}

// line is a connection through the proxy.
type line struct{ dead atomic.Bool }

// New returns a proxy in a namespace to what listens at an address of this one. It is cut until
// Restore.
func New(space, target string) *Proxy {
	return &Proxy{space: space, target: target, conns: map[net.Conn]bool{}, lines: map[*line]bool{}}
}

// Restore lets connections pass. It may be called while they do.
func (p *Proxy) Restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	err := namespace.In(p.space, func() (err error) {
		p.listener, err = net.Listen("tcp4", Address)
		return err
	})
	if err != nil {
		return fmt.Errorf("listening on %s: %w", Address, err)
	}
	listener := p.listener
	p.done.Go(func() { p.accept(listener) })
	return nil
}

// Cut ends all connections and refuses new ones, until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

// Hold makes the connections that there are carry nothing any more, and lets them live. New ones
// are as always.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.dead.Store(true)
	}
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		p.done.Go(func() { p.carry(conn) })
	}
}

// carry copies both ways until either side ends.
func (p *Proxy) carry(client net.Conn) {
	defer p.drop(client)
	if !p.keep(client) {
		return
	}
	server, err := net.Dial("tcp4", p.target)
	if err != nil {
		return // the client notices
	}
	defer p.drop(server)
	if !p.keep(server) {
		return
	}
	l := &line{}
	p.mu.Lock()
	p.lines[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.copyAndClose(server, client) })
	if late := time.Duration(p.late.Load()); late > 0 {
		both.Go(func() { l.copyLate(client, server, late) })
	} else {
		both.Go(func() { l.copyAndClose(client, server) })
	}
	both.Wait()
	p.mu.Lock()
	delete(p.lines, l)
	p.mu.Unlock()
}

// Write loses what a dead line is given.
func (w lineWriter) Write(b []byte) (int, error) {
	if w.line.dead.Load() {
		return len(b), nil
	}
	return w.to.Write(b)
}

type lineWriter struct {
	line *line
	to   io.Writer
}

// copyAndClose ends both directions with the first that ends: the API server's clients don't
// half-close.
func (l *line) copyAndClose(to, from net.Conn) {
	_, _ = io.Copy(lineWriter{l, to}, from)
	_ = to.Close()
	_ = from.Close()
}

// keep notes a connection that cut is to close, unless that was called already.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// Delay has answers arrive so much later, on connections that are made from now on.
func (p *Proxy) Delay(by time.Duration) { p.late.Store(int64(by)) }

// copyLate is copyAndClose of what arrives later than it was sent.
func (l *line) copyLate(to, from net.Conn, by time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	const most = 1 << 16
	under := make(chan piece, most)
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for p := range under {
			<-time.After(time.Until(p.due))
			if _, err := (lineWriter{l, to}).Write(p.data); err != nil {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
	for {
		data := make([]byte, most)
		n, err := from.Read(data)
		if n > 0 {
			under <- piece{data[:n], time.Now().Add(by)}
		}
		if err != nil {
			break
		}
	}
	close(under)
	carrying.Wait()
	_ = from.Close()
}
