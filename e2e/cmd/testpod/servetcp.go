package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// longestLine is more than "send" puts into one line.
const longestLine = 1 << 20

// openTCP serves a port of every address. A line is answered with one line: the greeting and the
// line. A request of HTTP (RFC 9112) for a GET is answered with the greeting, so that readiness
// probes and curl work too.
func (s *server) openTCP(port uint16) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	s.stops = append(s.stops, func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			switch {
			case err == nil:
				go s.talk(conn, port)
			case errors.Is(err, net.ErrClosed):
				return
			default: // out of descriptors, or reset before it was accepted
				<-time.After(10 * time.Millisecond)
			}
		}
	}()
	return nil
}

// talk answers until either end closes, or the program ends.
func (s *server) talk(conn net.Conn, port uint16) {
	defer func() { _ = conn.Close() }()
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	greeting := s.came(testprogram.TCP, port, from)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "GET /") {
			answerHTTP(lines, conn, greeting)
			return
		}
		if _, err := fmt.Fprintf(conn, "%s %s\n", greeting, lines.Bytes()); err != nil {
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
