package nft

import (
	"fmt"
	"strings"
)

// An OpKind says what an Op does.
type OpKind uint8

// The operations, in the words of nft.
const (
	AddTable    OpKind = iota + 1
	AddChain           // creates Chain without its rules
	AddRules           // appends Rules to Chain
	FlushChain         // deletes all rules of Chain
	DeleteChain        // deletes Chain, which nothing refers to
	AddSet             // creates Set without its elements
	SetElements        // deletes Leave from Set, then adds Join
	DeleteSet          // deletes Set, which nothing refers to
)

// An Op is one step of a transaction. It is never divided.
type Op struct {
	Kind  OpKind
	Chain *Chain
	Set   *Set
	Rules []Rule

	Leave []Element
	Join  []Member
}

// A Member is an element with its verdict, which is zero in a plain set.
type Member struct {
	Element
	Verdict Verdict
}

// String is the operation as a command of nft.
func (o Op) String() string {
	switch o.Kind {
	case AddTable:
		return "add table inet " + TableName
	case AddChain:
		if o.Chain.Base != nil {
			return fmt.Sprintf("add chain %s { %s }", o.Chain.Name, o.Chain.Base)
		}
		return "add chain " + o.Chain.Name
	case AddRules:
		lines := make([]string, len(o.Rules))
		for i, r := range o.Rules {
			lines[i] = fmt.Sprintf("add rule %s %s", o.Chain.Name, r)
		}
		return strings.Join(lines, "\n")
	case FlushChain:
		return "flush chain " + o.Chain.Name
	case DeleteChain:
		return "delete chain " + o.Chain.Name
	case AddSet:
		flags := ""
		if o.Set.Interval {
			flags = " flags interval;"
		}
		return fmt.Sprintf("add %s %s { type %s;%s }", o.Set.Kind(), o.Set.Name,
			o.Set.TypeString(), flags)
	case SetElements:
		return o.elementsString()
	case DeleteSet:
		return fmt.Sprintf("delete %s %s", o.Set.Kind(), o.Set.Name)
	}
	return "unknown operation"
}

func (o Op) elementsString() string {
	var lines []string
	if len(o.Leave) > 0 {
		texts := make([]string, len(o.Leave))
		for i, e := range o.Leave {
			texts[i] = e.Text(o.Set.Key)
		}
		lines = append(lines,
			fmt.Sprintf("delete element %s { %s }", o.Set.Name, strings.Join(texts, ", ")))
	}
	if len(o.Join) > 0 {
		texts := make([]string, len(o.Join))
		for i, m := range o.Join {
			texts[i] = o.Set.ElementString(m.Element, m.Verdict)
		}
		lines = append(lines,
			fmt.Sprintf("add element %s { %s }", o.Set.Name, strings.Join(texts, ", ")))
	}
	return strings.Join(lines, "\n")
}

// messages is the number of netlink messages that the operation takes.
func (o Op) messages() int {
	switch o.Kind {
	case AddRules:
		return len(o.Rules)
	case SetElements:
		return len(Chunked(Plain(o.Leave))) + len(Chunked(o.Join))
	default:
		return 1
	}
}

// An attribute of a netlink message must stay below 64 KiB: the library cuts a longer one silently.
// So a message carries at most this many elements, and at most this many bytes of them.
const (
	ChunkElements = 512
	chunkBytes    = 60000
)

// elementBytes is more than an element takes in a message: attribute headers, markers, and both
// ends of a range.
func elementBytes(m Member) int {
	return 96 + 2*len(m.First) + len(m.Last) + len(m.Verdict.Chain)
}

// Chunked cuts a list of members into lists that fit into a message each.
func Chunked(list []Member) [][]Member {
	var parts [][]Member
	start, size := 0, 0
	for i, m := range list {
		if size += elementBytes(m); i > start && (size > chunkBytes || i-start >= ChunkElements) {
			parts = append(parts, list[start:i])
			start, size = i, elementBytes(m)
		}
	}
	if start < len(list) {
		parts = append(parts, list[start:])
	}
	return parts
}

// Split cuts a list of operations into transactions of at most that many messages; 0 doesn't cut.
func Split(ops []Op, most int) [][]Op {
	if most == 0 && len(ops) > 0 {
		return [][]Op{ops}
	}
	var parts [][]Op
	start, messages := 0, 0
	for i, op := range ops {
		n := op.messages()
		if messages += n; i > start && messages > most {
			parts = append(parts, ops[start:i])
			start, messages = i, n
		}
	}
	if start < len(ops) {
		parts = append(parts, ops[start:])
	}
	return parts
}
