package enforcer

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestConnections: entries of the kernel are listed with who asked and who answers, behind a
// translation as well, and with the mark of those that are cut; others' are not.
func TestConnections(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	e.Update(func(*Model) {})
	run()
	if err := e.AwaitFirstCommit(t.Context()); err != nil { // now connections get labels
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	plain := Connection{Protocol: policy.ProtocolTCP, Source: at("10.1.0.2:1000"),
		Destination: at("198.51.100.1:80"), ReplySource: at("198.51.100.1:80")}
	translated := Connection{Protocol: policy.ProtocolUDP, Source: at("10.1.0.3:1001"),
		Destination: at("10.96.0.10:53"), ReplySource: at("10.1.0.2:5353")}
	cut := Connection{Protocol: policy.ProtocolTCP, Source: at("[fd00::3]:1002"),
		Destination: at("[fd00::2]:80"), ReplySource: at("[fd00::2]:80"), Cut: true}
	err := node.Do(func() error {
		if err := testnet.Track(
			testnet.Plain(plain.Protocol, "10.1.0.2:1000", "198.51.100.1:80"),
			testnet.Translated(translated.Protocol, "10.1.0.3:1001", "10.96.0.10:53",
				"10.1.0.2:5353", "10.1.0.3:1001"),
			testnet.Plain(cut.Protocol, "[fd00::3]:1002", "[fd00::2]:80"),
			testnet.Plain(policy.ProtocolTCP, "10.1.0.4:1003", "198.51.100.1:80"),
		); err != nil {
			return err
		}
		if err := label(cut.ReplySource.Addr(), packetworld.CutBit); err != nil {
			return err
		}
		got, err := e.Connections([]netip.Addr{plain.Source.Addr(), cut.ReplySource.Addr()})
		if err != nil {
			return err
		}
		for _, want := range []Connection{plain, translated, cut} {
			if !slices.Contains(got, want) {
				t.Errorf("%+v isn't in %+v", want, got)
			}
		}
		if len(got) != 3 {
			t.Errorf("%d connections, want 3: %+v", len(got), got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// label sets a bit of the label of the connections that an address answers.
func label(answers netip.Addr, bit uint8) error {
	table, err := conntrack.Open()
	if err != nil {
		return err
	}
	defer table.Close()
	entries, err := table.Find([]conntrack.Query{conntrack.AnsweredBy(answers)},
		func(e *conntrack.Entry) bool { return e.Reply.Src == answers })
	if err != nil {
		return err
	}
	for i := range entries {
		if err := table.SetLabel(&entries[i], bit, true); err != nil {
			return err
		}
	}
	return nil
}
