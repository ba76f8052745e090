package others

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults of TrialOptions.
const (
	defaultTimeout   = time.Second
	defaultSysctlDir = "/proc/sys/net"
)

// repeatAfter is the time between a packet and its repetition: a link that has just come up may
// drop a few.
const repeatAfter = 20 * time.Millisecond

// Path is where a trial's packets come from and go to: two addresses of one family. They should be
// of the pod network, without an owner at the time, and none that the table `inet sluice` judges as
// one of the node's pods.
type Path struct {
	Source, Destination netip.Addr
}

// TrialOptions are a trial's settings.
type TrialOptions struct {
	IPv4, IPv6 Path          // one at least; the zero Path leaves the family out
	timeout    time.Duration // how long to try; zero: a second
	// the node's /proc/sys/net; empty: /proc/sys/net. It is written to only where new links
	// don't take or
	// forward packets
	SysctlDir string
}

// TryForwarding finds out whether the node forwards packets between pods: it makes two veth pairs,
// sends UDP packets in at one, and looks whether they leave by the other. The node routes them like
// those of pods, by routes to both addresses (RouteProtocol), so all rules of the node judge them;
// rules about an interface's name see slprobe0 and slprobe2. A packet that comes through ends the
// trial at once. Links and routes are gone when it returns, and a new trial removes those of one
// that was killed. There must be no other trial in the network namespace at the same time.
//
// It fails if it couldn't try to the end: because ctx ended before, or, for instance, because of a
// route to exactly one of the addresses, which then has an owner.
func TryForwarding(ctx context.Context, o TrialOptions) (Result, error) {
	if o.timeout == 0 {
		o.timeout = defaultTimeout
	}
	if o.SysctlDir == "" {
		o.SysctlDir = defaultSysctlDir
	}
	trials, err := o.trials()
	if err == nil && len(undecided(trials)) > 0 {
		err = try(ctx, trials, o)
	}
	if err != nil {
		return Result{}, fmt.Errorf("trying whether packets are forwarded: %w", err)
	}
	var r Result
	for _, t := range trials {
		if t.path.Source.Is4() {
			r.IPv4 = t.outcome
		} else {
			r.IPv6 = t.outcome
		}
	}
	return r, nil
}

// trial is that of one family.
type trial struct {
	path    Path
	token   []byte // what the payload is, and no other packet's
	outcome Outcome
}

// trials returns a trial for each family with a Path. Its outcome is ForwardingOff, or Blocked
// until a packet comes through.
func (o TrialOptions) trials() ([]*trial, error) {
	var trials []*trial
	switches, err := ReadSwitches(o.SysctlDir)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		path    Path
		is4, on bool
	}{
		{o.IPv4, true, switches.IPv4},
		{o.IPv6, false, switches.IPv6},
	} {
		if f.path == (Path{}) {
			continue
		}
		if !f.path.valid(f.is4) {
			return nil, fmt.Errorf("from %s to %s isn't a path between two addresses of the family",
				f.path.Source, f.path.Destination)
		}
		t := &trial{path: f.path, token: make([]byte, tokenLen), outcome: Blocked}
		if _, err := rand.Read(t.token); err != nil {
			return nil, err
		}
		if !f.on {
			t.outcome = ForwardingOff
		}
		trials = append(trials, t)
	}
	if len(trials) == 0 {
		return nil, errors.New("no addresses to try")
	}
	return trials, nil
}

func (p Path) valid(is4 bool) bool {
	return p.Source != p.Destination && p.Source.IsValid() && p.Destination.IsValid() &&
		p.Source.Is4() == is4 && p.Destination.Is4() == is4
}

// Switches say which families the node forwards at all: net.ipv4.ip_forward and
// net.ipv6.conf.all.forwarding.
type Switches struct {
	IPv4, IPv6 bool
}

// ReadSwitches reads them below the node's /proc/sys/net; empty: /proc/sys/net. A change of theirs
// can change a trial's result.
func ReadSwitches(sysctlDir string) (s Switches, err error) {
	if sysctlDir == "" {
		sysctlDir = defaultSysctlDir
	}
	if s.IPv4, err = readSwitch(filepath.Join(sysctlDir, "ipv4/ip_forward")); err == nil {
		s.IPv6, err = readSwitch(filepath.Join(sysctlDir, "ipv6/conf/all/forwarding"))
	}
	if err != nil {
		return Switches{}, fmt.Errorf("reading whether the node forwards packets: %w", err)
	}
	return s, nil
}

// readSwitch reads a sysctl that is on unless 0. One that isn't there is off.
func readSwitch(path string) (on bool, err error) {
	value, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(value)) != "0", err
}

// undecided returns the trials whose packets are still awaited.
func undecided(trials []*trial) []*trial {
	var out []*trial
	for _, t := range trials {
		if t.outcome == Blocked {
			out = append(out, t)
		}
	}
	return out
}

// try makes the links, sends, and removes the links.
func try(ctx context.Context, trials []*trial, o TrialOptions) (err error) {
	l, err := makeLinks(o.SysctlDir, undecided(trials))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.remove()) }()
	sender, err := packetSocket(l.farIn, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sender)
	receiver, err := packetSocket(l.farOut, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	defer unix.Close(receiver)
	for deadline := time.Now().Add(o.timeout); len(undecided(trials)) > 0 &&
		time.Now().Before(deadline); {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, t := range undecided(trials) {
			if err := send(sender, frame(t.path, l.nearMAC, t.token)); err != nil {
				return err
			}
		}
		if err := receive(receiver, trials); err != nil {
			return err
		}
	}
	return nil
}

// receive reads packets until all trials are decided, or none has come for an interval.
func receive(socket int, trials []*trial) error {
	buffer := make([]byte, 2048)
	for len(undecided(trials)) > 0 {
		n, _, err := unix.Recvfrom(socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		for _, t := range trials {
			if bytes.Contains(buffer[:n], t.token) {
				t.outcome = Passed
			}
		}
	}
	return nil
}
