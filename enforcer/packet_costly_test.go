package enforcer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
)

// costlyRules is a policy of n rules that share nothing, the last of which lets all use port 80.
func costlyRules(n int) string {
	var rules strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&rules,
			"{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}, ", i, 10_000+i)
	}
	return `{podSelector: {}, ingress: [` + rules.String() +
		`{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}`
}

// progress returns the number of updates, and of those that are wholly in the kernel.
func (w *enforcerWorld) progress() (updates, done uint64) {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	return w.e.updates, w.e.done
}

func (w *enforcerWorld) settle() {
	w.T.Helper()
	w.until("everything to be in the kernel", func() bool {
		updates, done := w.progress()
		return done == updates
	})
}

// TestOthersDontWaitForCostlyPolicies: a tenant's policies cost a node seconds, and a pod of
// another namespace is attached meanwhile. Where they cost too much, the costliest allow nothing,
// which is reported, and are back when others are gone.
func TestOthersDontWaitForCostlyPolicies(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{})
	shed := make(chan policy.Key, 100)
	w.e.opts.OnShed = func(s Shed) {
		for _, k := range s.Policies {
			shed <- k
		}
	}
	w.run()
	w.settle()
	toTenant := []string{"dev/db > prod/web tcp/80"}
	w.Denied(toTenant...)
	before := w.installed()

	w.setPolicies(map[string]string{"prod/a": costlyRules(900), "prod/b": costlyRules(900),
		"prod/c": costlyRules(900), "prod/d": costlyRules(900)})
	if err := w.reattach("dev/web"); err != nil {
		t.Fatal(err)
	}
	if updates, done := w.progress(); done == updates {
		t.Error("the pod was attached only after everything else was done")
	} else if behind := w.e.opts.Metrics.secondsBehind(); behind <= 0 {
		t.Errorf("rules wait, and the ruleset is %g s behind", behind)
	}
	w.Allowed(dbByPod...)
	w.settle()
	if behind := w.e.opts.Metrics.secondsBehind(); behind != 0 {
		t.Errorf("nothing waits, and the ruleset is %g s behind", behind)
	}
	w.Allowed(toTenant...)
	w.Denied("ops/probe > prod/web tcp/81")

	w.setPolicies(map[string]string{"prod/e": costlyRules(901)})
	w.settle()
	if k := <-shed; k != (policy.Key{Namespace: "prod", Name: "e"}) {
		t.Errorf("%s is reported as too costly, want the costliest", k)
	}
	w.Allowed(dbByPod...)

	w.e.Update(func(c *Model) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			c.DeletePolicy(policy.Key{Namespace: "prod", Name: name})
		}
	})
	w.settle()
	w.Denied(toTenant...)
	if after := w.installed(); after != before {
		t.Errorf("something is left:\n%s\nbefore:\n%s", after, before)
	}
}

// TestDiesAmongParts: an agent that ends while policies are written part by part leaves less
// allowed than they say, for their own pods alone; the next one writes the rest.
func TestDiesAmongParts(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{})
	stop := w.run()
	w.settle()
	tenants := map[string]string{"prod/a": costlyRules(900), "prod/b": costlyRules(900),
		"prod/c": costlyRules(900)}
	const last = "dev/db > prod/web tcp/80"
	w.setPolicies(tenants)
	w.until("the tenant's pod to be isolated, and rules to wait", func() bool {
		w.e.mu.Lock()
		defer w.e.mu.Unlock()
		return w.e.isolated == w.e.updates && w.e.done < w.e.updates
	})
	stop()
	if updates, done := w.progress(); done == updates {
		t.Error("everything was written before the agent ended")
	}
	w.Denied("ops/probe > prod/web tcp/81", "prod/web > dev/db tcp/80")
	w.Allowed(slices.Concat(dbByPod, rest)...)

	if err := w.Table.Close(); err != nil {
		t.Fatal(err)
	}
	w.enforcer(table.Options{NetNS: w.Node.NSFd()})
	w.setPolicies(map[string]string{"dev/db": dbPolicy, "dev/web": webPolicy,
		"prod/web": webPolicy})
	w.setPolicies(tenants)
	w.run()
	w.settle()
	w.Allowed(slices.Concat([]string{last}, dbByPod, rest)...)
	w.Denied("ops/probe > prod/web tcp/81", "prod/web > dev/db tcp/80")
}

// installed is the ruleset as the kernel lists it, without counters, line by line.
func (w *enforcerWorld) installed() string {
	lines := strings.Split(w.Node.Nft("--stateless", "list", "table", "inet", nft.TableName), "\n")
	slices.Sort(lines) // objects are listed as they came
	return strings.Join(lines, "\n")
}

// reattach takes the attachment of a pod away, and makes it again.
func (w *enforcerWorld) reattach(pod string) error {
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	namespace, name, _ := strings.Cut(pod, "/")
	id := w.Hosts[pod].Interface()
	if err := w.e.Detach(ctx, id); err != nil {
		return err
	}
	for _, in := range cases.Pods() {
		if in.Namespace != namespace || in.Name != name {
			continue
		}
		p := policy.PodFrom(in)
		w.e.Update(func(c *Model) {
			c.SetEndpoint(policy.Endpoint{ID: id, Pod: p.ID, Interface: id, Addresses: p.Addresses})
		})
	}
	return w.e.await(ctx, func() error {
		if _, ok := w.e.enforced[id]; !ok {
			return fmt.Errorf("%s isn't enforced", pod)
		}
		return nil
	})
}
