package others

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
)

const (
	// comment is on every rule of an Accepter, which knows its rules by it.
	comment = "sluice: pod network"

	// dockerUser is where Docker wants the rules that others have for forwarded packets.
	dockerUser = "DOCKER-USER"

	// kubeProxy begins the names of kube-proxy's chains. Its jumps at the head of FORWARD reject
	// packets to Services without endpoints, so they stay first.
	kubeProxy = "KUBE-"
)

// Why a rule can't be put where it is needed.
var (
	// errOwned says that only the process that owns the table may change it (firewalld, for
	// instance).
	errOwned = errors.New("the table is owned by another process")

	// errNoProgram says that a chain of legacy iptables can't be changed without its program, which
	// isn't here.
	errNoProgram = errors.New("no legacy iptables program here")
)

// Accepter keeps rules in other tables that accept what is forwarded from or to the pod network. Of
// each table that may block it takes the chain DOCKER-USER if packets get there, else the base
// chain itself:
//
//   - in nftables, which is also where the common iptables program writes, chains that block by
//     policy or last rule, and FORWARD of the tables filter (ip and ip6) if it has rules;
//   - in legacy iptables, FORWARD if its policy is DROP, or if it has rules and the program is
//     here.
//
// New rules go to the chain's head, but behind kube-proxy's jumps. Existing rules stay where they
// are: rules that others put in front later are meant to be first. A rule in one table doesn't help
// against another table's drop, so try again after a change.
//
// Only one method may run at a time on a node; a zero Accepter is ready for use.
type Accepter struct {
	procNet  string                            // threadNet if empty
	lookPath func(file string) (string, error) // exec.LookPath if nil
}

// Ensure makes the accepting rules those for networks, of both families, and reports whether it
// changed anything. Call it regularly; with nothing to do it only reads. After an error for one
// chain (ErrOwned, ErrNoProgram) it goes on with the others.
func (a *Accepter) Ensure(ctx context.Context, networks []netip.Prefix) (changed bool, err error) {
	for _, n := range networks {
		if !n.IsValid() || n.Bits() == 0 {
			return false, fmt.Errorf("accepting forwarded packets of %s: not a pod network", n)
		}
	}
	changed, err = ensureChains(ctx, networks)
	errs := []error{err}
	for _, f := range legacyFamilies() {
		c, err := a.ensureLegacy(ctx, f, networks)
		changed = changed || c
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

// Remove removes every rule of an Accepter, and no other.
func (a *Accepter) Remove(ctx context.Context) error {
	_, err := a.Ensure(ctx, nil)
	return err
}

func (a *Accepter) net() string {
	if a.procNet == "" {
		return threadNet
	}
	return a.procNet
}

func (a *Accepter) look(file string) (string, error) {
	if a.lookPath == nil {
		return exec.LookPath(file)
	}
	return a.lookPath(file)
}

// ofFamily returns the networks that a table of the family judges, masked.
func ofFamily(networks []netip.Prefix, family string) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range networks {
		if family == familyINet || n.Addr().Is4() == (family == familyIP) {
			out = append(out, n.Masked())
		}
	}
	return out
}
