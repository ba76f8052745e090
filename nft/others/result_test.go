package others

import "testing"

func TestExplain(t *testing.T) {
	t.Parallel()
	docker := Blocker{Backend: NFTables, Family: familyIP, Table: "filter", Chain: "FORWARD",
		Policy: "drop"}
	legacy := Blocker{Backend: LegacyIPTables, Family: familyIP6, Table: "filter", Chain: "FORWARD",
		Policy: "drop"}
	firewall := Blocker{Backend: NFTables, Family: familyINet, Table: "fw", Chain: "f",
		Policy: "accept", lastRule: "reject"}
	all := []Blocker{docker, legacy, firewall}
	for _, tt := range []struct {
		result   Result
		blockers []Blocker
		want     string
	}{
		{Result{Passed, NotTried}, all, ""},
		{Result{Blocked, Passed}, all, "Forwarded IPv4 packets don't come through: blocked by " +
			"nftables table ip filter, chain FORWARD " +
			"(policy drop) or nftables table inet fw, chain f (policy accept, last rule reject)."},
		{Result{NotTried, Blocked}, all[:2],
			"Forwarded IPv6 packets don't come through: blocked by legacy ip6tables table " +
				"filter, " +
				"chain FORWARD (policy DROP)."},
		{Result{ForwardingOff, Blocked}, all[:1],
			"This node doesn't forward IPv4: net.ipv4.ip_forward isn't 1. Forwarded IPv6 packets " +
				"don't come through although no chain drops by policy: some rule drops or " +
				"rejects " +
				"them."},
	} {
		if got := tt.result.Explain(tt.blockers); got != tt.want {
			t.Errorf("%v with %v:\n got %s\nwant %s", tt.result, tt.blockers, got, tt.want)
		}
	}
}
