package wire

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// A kernelRule is a rule as the kernel lists it, each expression in canonical text: two rules do
// the same if, and only if, their texts are the same. Running values (counters, set numbers) are
// left out.
type kernelRule struct {
	table, chain string
	exprs        []string
	refs         []nft.Ref // by expression
	comment      string
}

func (r *kernelRule) text() string {
	return strings.Join(r.exprs, " ") + " comment " + r.comment
}

// foreign is the rule for a ruleset.
func (r *kernelRule) foreign() nft.Rule {
	rule := nft.Rule{Comment: r.comment}
	for i, text := range r.exprs {
		rule.Statements = append(rule.Statements, nft.Foreign{Text: text, Ref: r.refs[i]})
	}
	return rule
}

func readRule(body []byte) (*kernelRule, error) {
	r := &kernelRule{}
	err := decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			r.table = ad.String()
		case unix.NFTA_RULE_CHAIN:
			r.chain = ad.String()
		case unix.NFTA_RULE_USERDATA:
			r.comment = userComment(ad.Bytes(), ruleCommentType)
		case unix.NFTA_RULE_EXPRESSIONS:
			return decode(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				return r.addExpr(ad.Bytes())
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading a rule of chain %s: %w", r.chain, err)
	}
	return r, nil
}

// addExpr decodes one expression. One that the library doesn't know, or can't read, is kept as its
// bytes: it is none of ours.
func (r *kernelRule) addExpr(body []byte) error {
	name, data, err := splitExpr(body)
	if err != nil {
		return err
	}
	text, to := fmt.Sprintf("[ %s 0x%x ]", name, data), nft.Ref{}
	if x := newExpr(name, data); x != nil && readable(x, data) {
		text, to = canonical(name, x)
	}
	r.exprs, r.refs = append(r.exprs, text), append(r.refs, to)
	return nil
}

// splitExpr takes an expression apart.
func splitExpr(body []byte) (name string, data []byte, err error) {
	err = decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = ad.String()
		case unix.NFTA_EXPR_DATA:
			data = ad.Bytes()
		}
		return nil
	})
	return name, data, err
}

// readable decodes an expression, and reports whether it could. The library looks into some
// attributes without asking how long they are.
func readable(x expr.Any, data []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return expr.Unmarshal(familyINet, data, x) == nil
}

// newExpr returns an empty expression of those kinds that our rules consist of.
func newExpr(name string, data []byte) expr.Any {
	switch name {
	case "meta":
		return &expr.Meta{}
	case "cmp":
		return &expr.Cmp{}
	case "payload":
		return &expr.Payload{}
	case "lookup":
		return &expr.Lookup{}
	case "bitwise":
		return &expr.Bitwise{}
	case "ct":
		return &expr.Ct{}
	case "fib":
		return &expr.Fib{}
	case "limit":
		return &expr.Limit{}
	case "log":
		return &expr.Log{}
	case "counter":
		return &expr.Counter{}
	case "reject":
		return &expr.Reject{}
	case "nat":
		return &expr.NAT{}
	case "notrack":
		return &expr.Notrack{}
	case "immediate":
		imm := &expr.Immediate{}
		if readable(imm, data) && len(imm.Data) == 0 {
			return &expr.Verdict{}
		}
		return imm
	}
	return nil
}

// canonical is the expression without its running values, and what it refers to.
func canonical(name string, x expr.Any) (string, nft.Ref) {
	var to nft.Ref
	switch x := x.(type) {
	case *expr.Counter:
		*x = expr.Counter{}
	case *expr.Lookup:
		x.SetID = 0
		to.Set = x.SetName
	case *expr.Verdict:
		to.Chain = x.Chain
	}
	v := reflect.ValueOf(x).Elem()
	var b strings.Builder
	b.WriteString("[ " + name)
	for i := range v.NumField() {
		if field := v.Field(i); !field.IsZero() {
			if field.Kind() == reflect.Slice {
				fmt.Fprintf(&b, " %s=0x%x", v.Type().Field(i).Name, field.Bytes())
				continue
			}
			fmt.Fprintf(&b, " %s=%v", v.Type().Field(i).Name, field.Interface())
		}
	}
	b.WriteString(" ]")
	return b.String(), to
}

// canonicalRules returns the texts by which readRule will know the rules of every chain: each is
// encoded, and decoded as if the kernel had sent it.
func canonicalRules(r *nft.Ruleset) (map[string][]string, error) {
	texts := make(map[string][]string, len(r.Chains))
	for name, chain := range r.Chains {
		list := make([]string, 0, len(chain.Rules))
		for i, rule := range chain.Rules {
			text, err := canonicalRule(rule, r.Sets)
			if err != nil {
				return nil, fmt.Errorf("chain %s, rule %d: %w", name, i+1, err)
			}
			list = append(list, text)
		}
		texts[name] = list
	}
	return texts, nil
}

func canonicalRule(rule nft.Rule, sets map[string]*nft.Set) (string, error) {
	exprs, err := encodeRule(rule, sets)
	if err != nil {
		return "", err
	}
	r := &kernelRule{comment: nft.ClampComment(rule.Comment)}
	for _, body := range exprs {
		if err := r.addExpr(body); err != nil {
			return "", err
		}
	}
	return r.text(), nil
}
