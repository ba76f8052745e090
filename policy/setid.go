package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/selector"
)

// SetKind says what a set holds.
type SetKind uint8

const (
	// PodSet holds the addresses of the pods that any of its selectors picks.
	PodSet SetKind = iota
	// BlockSet holds the ranges of ipBlocks.
	BlockSet
	// PortSet holds address, protocol and number of named ports, for every pod that any of its
	// selectors picks.
	PortSet
	// LocalPortSet is a PortSet of this node's endpoints only, for ingress.
	LocalPortSet
)

// SetID identifies a set: at one time, equal IDs mean equal members.
type SetID struct {
	Kind SetKind
	// For is what the rules do that look into the set. What it takes to change a set depends on
	// that, so rules share one only if they do the same.
	For Verdict
	// Peers spells the selectors or blocks, and Ports the named ports, sorted; where that is long,
	// its beginning and a hash of it.
	Peers, Ports string
}

func (id SetID) String() string {
	if id.Ports == "" {
		return id.Peers
	}
	return id.Ports + " of " + id.Peers
}

// Set is a set that clauses refer to, with what is needed to fill it.
type Set struct {
	ID     SetID
	Pods   []selector.Selector // any of which picks the pods, with the keys in Keys
	Keys   []selector.Key
	Blocks []Block
	Ports  []NamedPort
	// Union says that these are several policies' peers, in the order of their texts. They may
	// change while the ID stays, which belongs to the rules of one Ref.
	Union bool
}

// Equal reports whether two sets have the same members, whichever pods there are. Nil is no set.
func (s *Set) Equal(o *Set) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.ID == o.ID && (!s.Union ||
		slices.Equal(s.Keys, o.Keys) && slices.EqualFunc(s.Blocks, o.Blocks, Block.same))
}

// forVerdict is the set for rules that do this; nil is no set.
func (s *Set) forVerdict(v Verdict) *Set {
	if s == nil {
		return nil
	}
	out := *s
	out.ID.For = v
	return &out
}

// Nobody reports whether the set has no member, whichever pods there are.
func (s *Set) Nobody() bool { return s != nil && len(s.Keys)+len(s.Blocks) == 0 }

// Within is a union with only those selectors and blocks that another one has as well.
func (s *Set) Within(o *Set) *Set {
	out := *s
	out.Pods, out.Keys, out.Blocks = nil, nil, nil
	keys, blocks := map[selector.Key]bool{}, map[string]bool{}
	for _, k := range o.Keys {
		keys[k] = true
	}
	for _, b := range o.Blocks {
		blocks[b.String()] = true
	}
	for i, k := range s.Keys {
		if keys[k] {
			out.Pods, out.Keys = append(out.Pods, s.Pods[i]), append(out.Keys, k)
		}
	}
	for _, b := range s.Blocks {
		if blocks[b.String()] {
			out.Blocks = append(out.Blocks, b)
		}
	}
	return &out
}

// Member is an element of a set: one address (Last equals First), a range of them in a BlockSet, an
// address with a protocol and port in a PortSet.
type Member struct {
	First, Last netip.Addr
	Protocol    uint8
	Port        uint16
}

func podSet(pods []selector.Selector) *Set {
	out := &Set{Pods: pods, Keys: make([]selector.Key, len(pods))}
	texts := make([]string, len(pods))
	for i, s := range pods {
		out.Keys[i] = s.Key()
		texts[i] = string(out.Keys[i])
	}
	out.ID = SetID{Kind: PodSet, Peers: spell(texts)}
	return out
}

func portSet(kind SetKind, pods []selector.Selector, ports []NamedPort) *Set {
	out := podSet(pods)
	texts := make([]string, len(ports))
	for i, n := range ports {
		texts[i] = n.String()
	}
	out.ID.Kind, out.ID.Ports, out.Ports = kind, spell(texts), ports
	return out
}

func blockSet(blocks []Block) *Set {
	texts := make([]string, len(blocks))
	for i, b := range blocks {
		texts[i] = b.String()
	}
	return &Set{ID: SetID{Kind: BlockSet, Peers: spell(texts)}, Blocks: blocks}
}

// maxSpelt is how long the text of a SetID may be, in bytes, before the hash.
const maxSpelt = 200

// spell joins texts, in an order that depends on nothing but them.
func spell(texts []string) string {
	slices.Sort(texts)
	out := strings.Join(texts, "; ")
	if len(out) <= maxSpelt {
		return out
	}
	sum := sha256.Sum256([]byte(out))
	return strings.ToValidUTF8(out[:maxSpelt], "") + "... " + hex.EncodeToString(sum[:])
}
