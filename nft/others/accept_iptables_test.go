package others

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAccepterGoesBehindKubeProxy(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, args := range []string{
				"-N KUBE-SERVICES", "-N KUBE-FORWARD", "-N MINE", "-P FORWARD DROP",
				"-A FORWARD -m conntrack --ctstate NEW -m comment --comment services -j " +
					"KUBE-SERVICES", "-A FORWARD -j KUBE-FORWARD",
				"-A FORWARD -j MINE", "-A FORWARD -j KUBE-FORWARD",
			} {
				w.run(program, strings.Fields(args)...)
			}
			before := w.run(program, "-S")
			w.mustEnsure(&Accepter{}, true, networks...)
			third := "-A FORWARD -j MINE\n"
			want := strings.Replace(before, third,
				strings.ReplaceAll(ourRules4, "CHAIN", "FORWARD")+third, 1)
			if diff := cmp.Diff(want, w.run(program, "-S")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			w.mustReach(familyIP)
			w.mustRemove(&Accepter{})
			if diff := cmp.Diff(before, w.run(program, "-S")); diff != "" {
				t.Errorf("after Remove, -before +after:\n%s", diff)
			}
		})
	}
}

func TestAccepterMovesToDockerUser(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run(program, "-P", "FORWARD", "DROP")
			w.mustEnsure(&Accepter{}, true, networks...)
			if got := w.run(program, "-S"); !strings.HasSuffix(got,
				strings.ReplaceAll(ourRules4, "CHAIN", "FORWARD")) {
				t.Errorf("before Docker:\n%s", got)
			}
			w.installDocker(program)
			w.mustEnsure(&Accepter{}, true, networks...)
			got := w.run(program, "-S")
			drop := "-A DOCKER-USER -s 192.0.2.1/32 -j DROP\n"
			if !strings.Contains(got, strings.ReplaceAll(ourRules4, "CHAIN", dockerUser)+drop) ||
				strings.Count(got, comment) != 2 {
				t.Errorf("with Docker:\n%s", got)
			}
			w.mustReach(familyIP)
		})
	}
}

func TestAccepterInLegacyIPTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := &Accepter{}
	w.mustReach(familyIP, familyIP6)
	w.installDocker("iptables-legacy")
	w.run("ip6tables-legacy", "-P", "FORWARD", "DROP")
	before := w.run("iptables-legacy", "-S") + w.run("ip6tables-legacy", "-S")
	w.mustNotReach(familyIP, familyIP6)

	// An image without the program can't, and says so; the name alone doesn't make a program the
	// right one.
	nowhere := &Accepter{lookPath: func(string) (string, error) { return "", exec.ErrNotFound }}
	if changed, err := w.ensure(nowhere, networks...); !errors.Is(err, errNoProgram) || changed ||
		!strings.Contains(err.Error(),
			"legacy ip6tables table filter, chain FORWARD (policy DROP)") {
		t.Errorf("without the program: %v, %v", changed, err)
	}
	wrong := &Accepter{lookPath: func(file string) (string, error) {
		if strings.HasSuffix(file, "-legacy") {
			return "", exec.ErrNotFound
		}
		return exec.LookPath(file + "-nft")
	}}
	if changed, err := w.ensure(wrong, networks...); !errors.Is(err, errNoProgram) || changed {
		t.Errorf("with iptables-nft: %v, %v", changed, err)
	}

	w.mustEnsure(a, true, networks...)
	w.mustReach(familyIP, familyIP6)
	w.mustEnsure(a, false, networks...)
	w.run("iptables-legacy", "-F", "DOCKER-USER")
	w.run("iptables-legacy", "-A", "DOCKER-USER", "-s", "192.0.2.1", "-j", "DROP")
	w.run("iptables-legacy", "-A", "DOCKER-USER", "-j", "RETURN")
	w.mustEnsure(a, true, networks...)
	w.mustReach(familyIP, familyIP6)
	w.mustEnsure(a, true, network6)
	w.mustNotReach(familyIP)
	w.mustReach(familyIP6)
	if changed, err := w.ensure(nowhere); !errors.Is(err, errNoProgram) || changed {
		t.Errorf("removing without the program: %v, %v", changed, err)
	}
	w.mustRemove(a)
	diff := cmp.Diff(before, w.run("iptables-legacy", "-S")+w.run("ip6tables-legacy", "-S"))
	if diff != "" {
		t.Errorf("after Remove, -before +after:\n%s", diff)
	}
	// Nothing of ours is there: no program is needed to see that.
	w.mustRemove(nowhere)
	w.run("ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
	w.run("iptables-legacy", "-P", "FORWARD", "ACCEPT")
	w.mustEnsure(nowhere, false, networks...)
}

func TestAccepterMeetsALegacyRejection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
	w.mustEnsure(&Accepter{}, false, networks...)
	w.run("ip6tables-legacy", "-A", "FORWARD", "-j", "REJECT")
	w.mustNotReach(familyIP6)
	w.mustEnsure(&Accepter{}, true, networks...)
	w.mustReach(familyIP6)
}
