package testnet

import "github.com/sluice-net/sluice/test/probe"

// ServeTCP serves port on every address of both families until the host ends, as probe.ServeTCP
// does under the host's name.
func (h *Host) ServeTCP(port uint16) {
	h.t.Helper()
	h.serve(func() (*probe.Server, error) { return probe.ServeTCP(h.name, port) })
}

// ServeUDP serves port on every address of both families until the host ends, as probe.ServeUDP
// does under the host's name.
func (h *Host) ServeUDP(port uint16) {
	h.t.Helper()
	h.serve(func() (*probe.Server, error) { return probe.ServeUDP(h.name, port) })
}

func (h *Host) serve(start func() (*probe.Server, error)) {
	h.t.Helper()
	var server *probe.Server
	err := h.Do(func() (err error) {
		server, err = start()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	h.onStop(server.Close)
}

// ServeSCTP answers an INIT to port, on every address of both families, with an INIT ACK until the
// host ends. An INIT to another port of the host is answered with an ABORT from then on.
func (h *Host) ServeSCTP(port uint16) {
	h.t.Helper()
	server, err := h.sctpServer()
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	if err := h.Do(func() error { return server.Open(port) }); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

// sctpServer returns the host's one server, which it starts at the first call.
func (h *Host) sctpServer() (*probe.SCTPServer, error) {
	h.sctpMu.Lock()
	defer h.sctpMu.Unlock()
	if h.sctp != nil {
		return h.sctp, nil
	}
	err := h.Do(func() (err error) {
		h.sctp, err = probe.ListenSCTP(h.name)
		return err
	})
	if err != nil {
		return nil, err
	}
	h.onStop(h.sctp.Close)
	return h.sctp, nil
}

// Sink opens a port on every address of both families, until the host ends. The protocol must be
// UDP.
func (h *Host) Sink(proto Protocol, port uint16) *Sink {
	h.t.Helper()
	if proto != UDP {
		h.t.Fatalf("%s: no sinks for %s", h.name, proto)
	}
	var sink *Sink
	err := h.Do(func() (err error) {
		sink, err = probe.NewSink(port)
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	h.onStop(sink.Close)
	return sink
}
