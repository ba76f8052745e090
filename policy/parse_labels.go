package policy

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/selector"
)

// labels reads a label selector; ok is false when some requirement was lost.
func (l *limits) labels(at *field.Path, s *metav1.LabelSelector) (out selector.Labels, ok bool) {
	ok = true
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		ok = l.requirement(&out, at.Child("matchLabels").Key(k), k, selector.In,
			[]string{s.MatchLabels[k]}) && ok
	}
	for i, e := range s.MatchExpressions {
		ok = l.requirement(&out, at.Child("matchExpressions").Index(i), e.Key,
			selector.Op(e.Operator), e.Values) && ok
	}
	return out.Canonical(), ok
}

// operators spells the operators of a label selector the way labels does.
var operators = map[selector.Op]selection.Operator{
	selector.In:           selection.In,
	selector.NotIn:        selection.NotIn,
	selector.Exists:       selection.Exists,
	selector.DoesNotExist: selection.DoesNotExist,
}

func (l *limits) requirement(out *selector.Labels, at *field.Path, key string, op selector.Op,
	values []string) bool {
	operator, known := operators[op]
	if !known {
		l.problem(at.Child("operator"), op, "In, NotIn, Exists or DoesNotExist")
		return false
	}
	if _, err := labels.NewRequirement(key, operator, values, field.WithPath(at)); err != nil {
		l.problem(at, fmt.Sprintf("%s %s %v", key, op, values), err.Error())
		return false
	}
	*out = append(*out, selector.Requirement{Key: key, Op: op, Values: values})
	return true
}
