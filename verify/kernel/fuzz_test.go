package kernel_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/test/testnet"
	"github.com/sluice-net/sluice/verify/kernel"
)

// FuzzDecode: whatever the messages hold, decoding and evaluating them ends, without a panic, and
// takes no more memory than its input accounts for.
func FuzzDecode(f *testing.F) {
	n := testnet.NewNode(f)
	n.NftInput(`table inet sluice {
		set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/24 }; }
		set p { type inet_service . inet_proto; flags interval; elements = { 80-90 . tcp }; }
		map m { type ipv4_addr . ifname : verdict; elements = { 10.1.0.1 . "slup1" : jump c }; }
		chain c { ip saddr @s th dport . meta l4proto @p accept; ct state invalid drop; }
		chain b { type filter hook forward priority 0; ip daddr . oifname vmap @m; oifname "slup*" counter drop; }
	}
`)
	d, err := kernel.ReadDump(context.Background(), kernel.Options{NetNS: n.NSFd()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(flatten(d))
	f.Add(flatten(d)[:len(flatten(d))-3])
	f.Add([]byte{1, 0, 4, 0, 0, 0, 0}) // an attribute of no length
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		p, err := kernel.Decode(unflatten(data))
		if err != nil {
			return
		}
		ev := kernel.NewEvaluator(p)
		p.Interfaces(kernel.Forward)
		for _, a := range append(p.Addresses(), p.Dispatched()...) {
			ev.Signature(a)
		}
		for _, a := range []netip.Addr{netip.MustParseAddr("10.0.0.1"),
			netip.MustParseAddr("fd00::1")} {
			for hook := kernel.Prerouting; hook <= kernel.Postrouting; hook++ {
				// an error is fine
				_, _ = ev.Evaluate(hook,
					kernel.Class{In: "slup1", Out: "slup1", Src: a, Dst: a, State: kernel.New})
			}
		}
	})
}

// flatten writes a dump as kinds, lengths and bodies.
func flatten(d *kernel.Dump) []byte {
	var out []byte
	put := func(kind byte, bodies [][]byte) {
		for _, b := range bodies {
			out = append(out, kind)
			out = binary.BigEndian.AppendUint16(out, uint16(len(b)))
			out = append(out, b...)
		}
	}
	for i, part := range [][][]byte{d.Table, d.Chains, d.Sets, d.Rules, d.Objects, d.Flowtables,
		d.Elements["s"], d.Elements["p"], d.Elements["m"]} {
		put(byte(i), part)
	}
	return out
}

func unflatten(data []byte) *kernel.Dump {
	parts := [9][][]byte{}
	for len(data) >= 3 {
		kind, size := data[0]%9, int(binary.BigEndian.Uint16(data[1:]))
		data = data[3:]
		size = min(size, len(data))
		parts[kind] = append(parts[kind], data[:size])
		data = data[size:]
	}
	return &kernel.Dump{
		Table: parts[0], Chains: parts[1], Sets: parts[2], Rules: parts[3], Objects: parts[4],
		Flowtables: parts[5],
		Elements:   map[string][][]byte{"s": parts[6], "p": parts[7], "m": parts[8]},
	}
}
