package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	kubejson "sigs.k8s.io/json"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// ParseClusterObject reads a ClusterNetworkPolicy of any version as an API server sends it.
//
// A field that isn't known here may narrow what a rule matches, as "ports" did in drafts of
// v1alpha2. So a rule with one is closed. One of the policy may say when it holds, and one of its
// subject for whom: then its rules only deny.
//
// If a field has a value of another type than v1beta1 says, the policy is asked first, and denies
// everything of every pod: the definition that the API server checks it by isn't the API's.
func ParseClusterObject(name string, object map[string]any) Policy {
	cnp := &networkpolicyapi.ClusterNetworkPolicy{}
	cnp.Name = name
	unknown, err := decode(object["spec"], &cnp.Spec)
	if err != nil {
		everything := func() *Section {
			return &Section{Rules: []Rule{{Verdict: Deny, AnyPeer: true, AnyPort: true}}}
		}
		return Policy{
			Key: Key{Name: name}, Tier: TierAdmin, Priority: math.MinInt32,
			Ingress: everything(), Egress: everything(),
			Problems: []Problem{{specPath.String(), shorten(err.Error()),
				"the types of v1beta1; the policy denies everything"}},
		}
	}
	return parseCluster(cnp, unknown)
}

// unknownFields are the fields of a spec that aren't known here, by their paths in it.
type unknownFields []string

// within are those in a part of the spec, "ingress[3]" for one.
func (u unknownFields) within(part string) (out []string) {
	for _, field := range u {
		if strings.HasPrefix(field, part+".") {
			out = append(out, field)
		}
	}
	return out
}

// outside are those that aren't in a rule.
func (u unknownFields) outside() (out []string) {
	for _, field := range u {
		if !strings.HasPrefix(field, "ingress[") && !strings.HasPrefix(field, "egress[") {
			out = append(out, field)
		}
	}
	return out
}

// mostUnknown is how many unknown fields the decoder names. Beyond that it isn't known where more
// are.
const mostUnknown = 99

// decode goes by way of JSON: its numbers don't wrap around, as those of a converter between types
// can. Keys that differ in their case are other keys.
func decode(from, into any) (unknown unknownFields, err error) {
	text, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	strict, err := kubejson.UnmarshalStrict(text, into, kubejson.DisallowUnknownFields)
	if err != nil {
		return nil, err
	}
	if len(strict) > mostUnknown {
		return nil, fmt.Errorf("more than %d unknown fields", mostUnknown)
	}
	for _, problem := range strict {
		var at kubejson.FieldError
		if !errors.As(problem, &at) {
			return nil, problem
		}
		unknown = append(unknown, at.FieldPath())
	}
	return unknown, nil
}
