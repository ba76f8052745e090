package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parts []string
		want  string // a trailing "*" stands for a hash
	}{
		{[]string{"pod", "dev", "web-0", "ingress"}, "pod/dev/web-0/ingress"},
		{[]string{"profile", "3f2a99", "egress"}, "profile/3f2a99/egress"},
		{[]string{"policy", "kube-system", "allow.80", "ingress"},
			"policy/kube-system/allow.80/ingress"},
		{[]string{"egress", "1"}, "egress/1"},
		{[]string{"pods", "dev", "app=web"}, "pods/dev/app_web.h*"},
		{[]string{"a/b", "c"}, "a_b/c.h*"},
		{[]string{"1a", "b"}, "_1a/b.h*"},
		{[]string{".a", "b"}, "_.a/b.h*"},
		{[]string{"fwd"}, "_fwd"},
		{[]string{"gc-interval"}, "_gc-interval"},
		{[]string{"_fwd"}, "_fwd.h*"},
		{[]string{""}, "_.h*"},
		{nil, "_.h*"},
		{[]string{"pod", "é"}, "pod/_.h*"},
		{[]string{"x", "y.h0123456789abcdef01234567"}, "x/y.h0123456789abcdef01234567.h*"},
	} {
		got := Name(c.parts...)
		if prefix, isHashed := strings.CutSuffix(c.want, "*"); isHashed {
			if rest, ok := strings.CutPrefix(got, prefix); !ok || len(rest) != hashDigits {
				t.Errorf("Name(%q) = %q, want %s", c.parts, got, c.want)
			}
		} else if got != c.want {
			t.Errorf("Name(%q) = %q, want %s", c.parts, got, c.want)
		}
	}
}

func TestNamesDiffer(t *testing.T) {
	t.Parallel()
	part := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9./_=-]{0,6}`),
		rapid.SampledFrom([]string{"a", "_a", "a/b", "", "fwd", strings.Repeat("x", 250),
			strings.Repeat("x", 251)}),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(part, 0, 3).Draw(t, "a")
		b := rapid.SliceOfN(part, 0, 3).Draw(t, "b")
		if rapid.Bool().Draw(t, "b is a's name") {
			b = []string{Name(a...)}
			if rapid.Bool().Draw(t, "in parts") {
				b = strings.Split(Name(a...), "/")
			}
			if slices.Equal(a, b) {
				return
			}
			if Name(b...) == Name(a...) && !slices.Equal(a, b) {
				t.Fatalf("%q and %q are both %q", a, b, Name(a...))
			}
			return
		}
		if name := Name(a...); len(name) > MaxName || (name == Name(b...)) != slices.Equal(a, b) {
			t.Fatalf("%q: %q, %q: %q", a, name, b, Name(b...))
		}
	})
}

func TestComments(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 253)
	for _, c := range []struct{ in, want string }{
		{"dev/allow-80: rule 1 [ingress]", "dev/allow-80: rule 1 [ingress]"},
		{strings.Repeat("x", 127), strings.Repeat("x", 127)},
		{"é", "é"},
		{`a "quoted"` + "\nline", "a _quoted__line ~*"},
		{"dev/\x1b[2J\u009b\u202ex", "dev/_[2J__x ~*"},
		{long, long[:113] + " ~*"},
		{strings.Repeat("é", 100), strings.Repeat("é", 56) + " ~*"},
	} {
		got := ClampComment(c.in)
		prefix, isHashed := strings.CutSuffix(c.want, "*")
		if !strings.HasPrefix(got, prefix) || len(got) > maxComment || !isHashed && got != c.want {
			t.Errorf("ClampComment(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	seen := map[string]string{}
	for i := range 100 {
		c := ClampComment(long + fmt.Sprint(i))
		if seen[c] != "" {
			t.Errorf("two comments are %q", c)
		}
		seen[c] = c
	}
}
