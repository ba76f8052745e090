package cluster_test

import (
	"testing"
)

// TestPeerOfTwoSelectors: a pod that two selectors of a rule pick stays a peer until neither does.
func TestPeerOfTwoSelectors(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [
		{from: [{namespaceSelector: {matchLabels: {team: a}}}, {namespaceSelector: {matchLabels: {env: b}}}]}]}`})
	db, web := pod("db", "u1", "db", dbAddr), pod("web", "u2", "web", remoteAddr)
	web.ID.Namespace = "prod"
	b.c.SetPod(db)
	b.c.SetEndpoint(attach(db, dbAddr))
	b.c.SetPod(web)
	for _, step := range []struct {
		labels map[string]string
		want   bool
	}{
		{nil, false},
		{map[string]string{"team": "a"}, true},
		{map[string]string{"team": "a", "env": "b"}, true},
		{map[string]string{"env": "b"}, true},
		{map[string]string{"team": "a"}, true}, // one comes, the other goes
		{map[string]string{"team": "a", "env": "b"}, true},
		{nil, false},
		{map[string]string{"team": "a", "env": "b"}, true},
	} {
		b.c.SetNamespace("prod", step.labels)
		b.expectCounts()
		b.expect(remoteAddr, dbAddr, step.want)
	}
	b.c.SetPod(web)
	b.c.DeletePod("prod", "web")
	b.expectCounts()
	b.expect(remoteAddr, dbAddr, false)
	if ch := b.c.Take(); !ch.Empty() {
		t.Errorf("something is left to take: %+v", ch)
	}
}

// expectCounts holds what is counted of sets against what is in them.
func (b *bench) expectCounts() {
	b.t.Helper()
	if err := b.c.CheckCounts(); err != nil {
		b.t.Error(err)
	}
}
