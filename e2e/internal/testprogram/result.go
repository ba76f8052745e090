package testprogram

import (
	"fmt"
	"net/netip"
)

// Kind is what became of a connection.
type Kind string

// The kinds. Denied by a policy means Timeout or Reset; the others are neither a success nor a
// denial.
const (
	OK          Kind = "ok"
	Timeout     Kind = "timeout"     // no answer of any kind
	Reset       Kind = "reset"       // refused, or ended, by the other end or in its name
	Unreachable Kind = "unreachable" // no way there: an ICMP error, or no route
	NoName      Kind = "dns"         // the host's name has no address, or no server answered
	NoReply     Kind = "no-reply"    // there was a handshake, but no answer: packets do pass
	TooBig      Kind = "too-big"     // larger than the path's MTU, and not to be fragmented
	Unsupported Kind = "unsupported" // the program can't speak it here; the error says why
	Failed      Kind = "failed"      // anything else, such as an answer that isn't what was sent
)

// Denied says whether the kind is how a policy denies: silence, or a reset.
func (k Kind) Denied() bool { return k == Timeout || k == Reset }

// Result is the outcome of one new connection.
type Result struct {
	Target string `json:"target"` // as it was given
	OK     bool   `json:"ok"`
	// the server's name and the client's address as the server saw it; for ICMP the address that
	// answered
	Reply string `json:"reply,omitempty"`
	Error string `json:"error,omitempty"` // why not, if not OK
	Kind  Kind   `json:"kind"`
}

// String is for failure messages.
func (r Result) String() string {
	if r.OK {
		return fmt.Sprintf("%s: ok (%q)", r.Target, r.Reply)
	}
	return fmt.Sprintf("%s: %s (%s)", r.Target, r.Kind, r.Error)
}

// Resolved is the outcome of a name's resolution. Addresses are sorted.
type Resolved struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Error     string       `json:"error,omitempty"`
}

// Sent is the outcome of one transfer.
type Sent struct {
	Result

	// bytes that were to be sent: of content, or with --df of the packet
	Size int `json:"size"`
	// with --df: of the path, as the sender's kernel knows it afterwards
	MTU     int     `json:"mtu,omitempty"`
	Seconds float64 `json:"seconds"`
}
