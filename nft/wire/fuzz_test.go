package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// A dumped is a netlink socket that answers each request of the reader with what was dumped. It is
// no fake of the kernel: it carries nothing out.
type dumped struct {
	dump    []dumpedBody
	request netlink.Message
}

// A dumpedBody is one message of a dump, after its nfgenmsg.
type dumpedBody struct {
	request uint16 // that it answers, an NFT_MSG_GET*
	body    []byte
}

func (d *dumped) Close() error                     { return nil }
func (d *dumped) SetDeadline(time.Time) error      { return nil }
func (d *dumped) SetReadDeadline(time.Time) error  { return nil }
func (d *dumped) SetWriteDeadline(time.Time) error { return nil }
func (d *dumped) SendMessages([]netlink.Message) error {
	return errors.New("nothing is to be written")
}
func (d *dumped) Receive() ([]netlink.Message, error) {
	return nil, errors.New("not by the iterator")
}

func (d *dumped) Send(m netlink.Message) error {
	d.request = m
	return nil
}

func (d *dumped) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		kind := uint16(d.request.Header.Type) & 0xff
		header := d.request.Header
		header.Flags = netlink.Multi
		for _, b := range d.dump {
			if b.request != kind || kind == unix.NFT_MSG_GETSETELEM && !d.isAboutTheSet(b) {
				continue
			}
			data := b.body
			if kind != unix.NFT_MSG_GETGEN { // whose answers are arbitrary from their first byte
				data = append([]byte{familyINet, unix.NFNETLINK_V0, 0, 0}, data...)
			}
			if !yield(netlink.Message{Header: header, Data: data}, nil) {
				return
			}
		}
		header.Type = netlink.Done
		yield(netlink.Message{Header: header, Data: make([]byte, 4)}, nil)
	}
}

// isAboutTheSet tells whether elements are of the set that was asked for.
func (d *dumped) isAboutTheSet(b dumpedBody) bool {
	name := ""
	_ = decode(d.request.Data[4:], func(ad *netlink.AttributeDecoder) error {
		if ad.Type() == unix.NFTA_SET_ELEM_LIST_SET {
			name = ad.String()
		}
		return nil
	})
	return strings.Contains(string(b.body), name+"\x00")
}

// conn is a connection to what was dumped.
func (d *dumped) conn() *Conn { return &Conn{raw: netlink.NewConn(d, 1), timeout: time.Minute} }

// dumpOf is the dump of a table with this content. Messages that write have the attributes of those
// that list.
func dumpOf(t testing.TB, r *nft.Ruleset) []dumpedBody {
	t.Helper()
	c := &Conn{}
	batch := nft.Plan(nft.NewRuleset(), nft.Diff(nft.NewRuleset(), r))
	for _, op := range batch.Ops() {
		if err := c.queueOp(op, r.Sets); err != nil {
			t.Fatal(err)
		}
	}
	lists := map[uint16]uint16{
		unix.NFT_MSG_NEWTABLE: unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWCHAIN: unix.NFT_MSG_GETCHAIN,
		unix.NFT_MSG_NEWRULE: unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWSET: unix.NFT_MSG_GETSET,
		unix.NFT_MSG_NEWSETELEM: unix.NFT_MSG_GETSETELEM,
	}
	var out []dumpedBody
	for _, m := range c.messages {
		out = append(out, dumpedBody{lists[uint16(m.Header.Type)&0xff], m.Data[4:]})
	}
	return out
}

// dumpText and parseDump are the form of a dump in the corpus: for each message what it answers,
// its length in two bytes, and it.
func dumpText(dump []dumpedBody) []byte {
	var out []byte
	for _, b := range dump {
		out = append(out, byte(b.request))
		out = binary.BigEndian.AppendUint16(out, uint16(len(b.body)))
		out = append(out, b.body...)
	}
	return out
}

func parseDump(data []byte) []dumpedBody {
	var out []dumpedBody
	for len(data) >= 3 {
		length := min(int(binary.BigEndian.Uint16(data[1:])), len(data)-3)
		out = append(out, dumpedBody{uint16(data[0]), data[3 : 3+length]})
		data = data[3+length:]
	}
	return out
}

// TestReaderReadsDumps is the control: what the fuzz target changes is read as it is meant.
func TestReaderReadsDumps(t *testing.T) {
	t.Parallel()
	want := nfttest.Everything()
	dump := dumpedBodies(t, want)
	got, err := (&dumped{dump: parseDump(dumpText(dump))}).conn().readOnce(want, mustCanon(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if list := got.Differences(want); len(list) > 0 {
		t.Errorf("differs:\n%s", strings.Join(list, "\n"))
	}
}

func dumpedBodies(t testing.TB, r *nft.Ruleset) []dumpedBody {
	t.Helper()
	generation, err := netlink.MarshalAttributes(
		[]netlink.Attribute{{Type: unix.NFTA_GEN_ID, Data: []byte{0, 0, 0, 7}}})
	if err != nil {
		t.Fatal(err)
	}
	return append(dumpOf(t, r),
		dumpedBody{unix.NFT_MSG_GETGEN, append([]byte{0, 0, 0, 0}, generation...)})
}

func mustCanon(t testing.TB, r *nft.Ruleset) map[string][]string {
	t.Helper()
	canon, err := canonicalRules(r)
	if err != nil {
		t.Fatal(err)
	}
	return canon
}

// aLittle is a ruleset of few bytes with one of each kind of object.
func aLittle() *nft.Ruleset {
	r := nft.NewRuleset()
	r.AddSet(&nft.Set{Name: "s", Key: []nft.Field{nft.SrcAddr4}, Interval: true,
		Elements: map[nft.Element]nft.Verdict{
			nft.RangeElement(nfttest.Addr("10.0.0.1"), nfttest.Addr("10.0.0.4")):        {},
			nft.RangeElement(nfttest.Addr("10.0.0.9"), nfttest.Addr("255.255.255.255")): {},
		}})
	r.AddSet(&nft.Set{Name: "p", Key: []nft.Field{nft.DstPort, nft.L4Proto}, Interval: true,
		Elements: map[nft.Element]nft.Verdict{nft.PortsElement(6, 1, 9): {}}})
	r.AddSet(&nft.Set{Name: "m", Key: []nft.Field{nft.SrcAddr4}, Verdicts: true,
		Elements: map[nft.Element]nft.Verdict{
			nft.AddrElement(nfttest.Addr("10.0.0.1")): nft.JumpTo("c")}})
	r.AddSet(&nft.Set{Name: "n", Key: []nft.Field{nft.L4Proto, nft.DstPort}, Targets: nft.DstAddr4,
		Elements: map[nft.Element]nft.Verdict{
			nft.ProtoPortElement(6, 80): nft.NATTarget(netip.MustParseAddrPort("10.0.0.1:80")),
		}})
	r.AddChain(&nft.Chain{Name: "c", Rules: []nft.Rule{
		{Statements: []nft.Statement{nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "s"},
			nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}}}, Comment: "why"},
	}})
	r.AddChain(&nft.Chain{Name: "b", Base: &nft.Base{Hook: nft.HookForward},
		Rules: []nft.Rule{nfttest.Rule(nft.Dispatch{Fields: []nft.Field{nft.SrcAddr4}, Map: "m"})}})
	return r
}

// FuzzReader gives the reader any dump. It may refuse it. What it reads it can compare, print and
// mend, and a table that it takes for the wanted one prints as that.
func FuzzReader(f *testing.F) {
	want := aLittle()
	canon := mustCanon(f, want)
	f.Add(dumpText(dumpedBodies(f, want)))
	f.Add(dumpText([]dumpedBody{
		{unix.NFT_MSG_GETGEN, []byte{0, 0, 0, 0}},
		{unix.NFT_MSG_GETTABLE, nil},
		{unix.NFT_MSG_GETOBJ,
			[]byte("\x0b\x00\x01\x00sluice\x00\x00\x06\x00\x02\x00o\x00\x00\x00")},
		{unix.NFT_MSG_GETFLOWTABLE,
			[]byte("\x0b\x00\x01\x00sluice\x00\x00\x06\x00\x02\x00f\x00\x00\x00")},
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := (&dumped{dump: parseDump(data)}).conn().readOnce(want, canon)
		if err != nil {
			return
		}
		_ = got.Rules.String()
		if len(got.Differences(want)) == 0 && got.Rules.String() != want.String() {
			t.Errorf("taken for the wanted ruleset:\n%s", got.Rules)
		}
		batch := nft.Plan(got.Rules, nft.Diff(got.Rules, want))
		c := &Conn{}
		for _, op := range batch.Ops() {
			if err := c.queueOp(op, want.Sets); err != nil {
				t.Errorf("can't be mended: %s: %v", op, err)
			}
		}
	})
}

// FuzzRule gives the decoder of rules any message: it may refuse it, and what it reads it can
// print.
func FuzzRule(f *testing.F) {
	for _, b := range dumpOf(f, nfttest.Everything()) {
		if b.request == unix.NFT_MSG_GETRULE {
			f.Add(b.body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := readRule(body)
		if err != nil {
			return
		}
		if len(r.exprs) != len(r.refs) {
			t.Errorf("%d expressions refer to %d things", len(r.exprs), len(r.refs))
		}
		_ = r.foreign().String()
		if len(r.text()) > 1000+20*len(body) {
			t.Errorf("%d bytes become %d", len(body), len(r.text()))
		}
	})
}

// TestShortAttributes: what the library can't decode is a foreign rule, and what no kernel says is
// an error.
func TestShortAttributes(t *testing.T) {
	t.Parallel()
	marshal := func(list ...netlink.Attribute) []byte {
		t.Helper()
		b, err := netlink.MarshalAttributes(list)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, short := range map[string][]byte{
		"log": marshal(netlink.Attribute{Type: unix.NFTA_LOG_GROUP, Data: []byte{1}}),
		"immediate": marshal(netlink.Attribute{Type: unix.NFTA_IMMEDIATE_DATA,
			Data: marshal(netlink.Attribute{Type: unix.NFTA_DATA_VERDICT,
				Data: []byte{8, 0, 1, 0}})}),
	} {
		r := &kernelRule{}
		if err := r.addExpr(marshal(nameAttr(unix.NFTA_EXPR_NAME, name),
			netlink.Attribute{Type: unix.NFTA_EXPR_DATA, Data: short})); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if want := fmt.Sprintf("[ %s 0x%x ]", name, short); r.exprs[0] != want {
			t.Errorf("%s: read as %s, want %s", name, r.exprs[0], want)
		}
	}
	want := aLittle()
	for name, spoil := range map[string]func(b *dumpedBody){
		"an answer without a header": func(b *dumpedBody) {
			if b.request == unix.NFT_MSG_GETGEN {
				b.body = b.body[:2]
			}
		},
		"an element that is too short": func(b *dumpedBody) {
			if b.request == unix.NFT_MSG_GETSETELEM {
				b.body = bytes.Replace(b.body, []byte("\x08\x00\x01\x00\x0a\x00\x00\x09"),
					[]byte("\x06\x00\x01\x00\x0a\x00\x00\x00"), 1)
			}
		},
	} {
		dump := dumpedBodies(t, want)
		for i := range dump {
			spoil(&dump[i])
		}
		if got, err := (&dumped{dump: dump}).conn().readOnce(want, mustCanon(t, want)); err == nil {
			t.Errorf("%s: read as\n%s", name, got.Rules)
		}
	}
}
