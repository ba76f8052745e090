package probe

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// ServeTCP serves port on every address of both families. Each line received is answered with one
// line: name, the peer as the server sees it ("pod-a 10.0.0.2:4242"), and the received line behind
// it. An HTTP request for a GET (RFC 9112) is answered with the first two of these, and the
// connection closed, so that readiness probes and curl work too.
func ServeTCP(name string, port uint16) (*Server, error) {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("serving tcp port %d: %w", port, err)
	}
	s := &tcpServer{name: name, listener: listener, conns: map[net.Conn]bool{}}
	s.done.Go(s.accept)
	return &Server{stop: s.stop}, nil
}

type tcpServer struct {
	name     string
	listener net.Listener
	done     sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	stopped bool
}

func (s *tcpServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		if s.add(conn) {
			s.done.Go(func() { s.serve(conn) })
		}
	}
}

// add notes conn, or closes it when the server has stopped.
func (s *tcpServer) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

// serve talks until either end closes; an error is the client's to notice.
func (s *tcpServer) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	greeting := greet(s.name, addrPort(conn.RemoteAddr()))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "GET /") {
			answerHTTP(lines, conn, greeting)
			return
		}
		if _, err := fmt.Fprintf(conn, "%s %s\n", greeting, lines.Text()); err != nil {
			return
		}
	}
}

// answerHTTP reads the rest of a request's header and answers it.
func answerHTTP(lines *bufio.Scanner, w io.Writer, greeting string) {
	for lines.Scan() {
		if lines.Text() == "" {
			_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Type: "+
				"text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
				len(greeting)+1, greeting)
			return
		}
	}
}

func (s *tcpServer) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.stopped = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// lineTalk is a client's side of a connection to a TCP server.
type lineTalk struct {
	conn    net.Conn
	lines   *bufio.Reader
	partial string // what came of a line before the deadline
}

func newLineTalk(conn net.Conn) *lineTalk {
	return &lineTalk{conn: conn, lines: bufio.NewReader(conn)}
}

// ask sends word and waits for the line that ends with it, passing over others. It returns what is
// before it.
func (l *lineTalk) ask(word string) (string, error) {
	if _, err := fmt.Fprintln(l.conn, word); err != nil {
		return "", err
	}
	for {
		line, err := l.lines.ReadString('\n')
		l.partial += line
		if err != nil {
			return "", err
		}
		line, l.partial = l.partial, ""
		if answer, found := strings.CutSuffix(line, " "+word+"\n"); found {
			return answer, nil
		}
	}
}
