package conntrack_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/conntrack"
)

// Every connection that a pod opened to port 80, and is still alive, gets bit 127 of its label.
// A rule can match that.
func ExampleTable() {
	table, err := conntrack.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer table.Close()
	pod := netip.MustParseAddr("10.244.1.2")
	queries := []conntrack.Query{conntrack.OpenedBy(pod)}
	entries, err := table.Find(queries, func(e *conntrack.Entry) bool {
		return e.Orig.Src == pod && e.Reply.SrcPort == 80 && e.State.GoesOn()
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	const bit = 127
	for i := range entries {
		if err := table.SetLabel(&entries[i], bit, true); err != nil {
			fmt.Println(err)
		}
	}
}
