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
		{[]string{"policy", "kube-system", "allow.80", "ingress"}, "policy/kube-system/allow.80/ingress"},
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
		rapid.SampledFrom([]string{"a", "_a", "a/b", "", "fwd", strings.Repeat("x", 250), strings.Repeat("x", 251)}),
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
		if name := Name(a...); len(name) > maxName || (name == Name(b...)) != slices.Equal(a, b) {
			t.Fatalf("%q: %q, %q: %q", a, name, b, Name(b...))
		}
	})
}

// nft takes whatever Name makes, wherever a name can stand, and lists it so
// that it takes it back; the same goes for comments.
func TestNFTParsesNamesAndComments(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	rapid.Check(t, func(t *rapid.T) {
		table, err := Open(Options{NetNS: int(n.ns.Fd())})
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		words := rapid.OneOf(
			rapid.SampledFrom([]string{"fwd", "tcp", "ip", "th", "last", "0x1", "1d", "accept", "policy", "a:b", "ct", "::1", "10.0.0.1"}),
			rapid.StringMatching(`[a-zA-Z0-9./_=:@{}"*-]{0,12}`),
			rapid.String(),
			rapid.Just(strings.Repeat("p", 253)),
		)
		name := func(what string) string {
			return Name(rapid.SliceOfN(words, 1, 3).Draw(t, what)...)
		}
		comment := rapid.OneOf(words, rapid.StringN(0, 300, -1)).Draw(t, "comment")
		r := NewRuleset()
		chain, set, verdicts := name("chain"), name("set"), name("map")
		if set == verdicts {
			return
		}
		r.AddSet(&Set{Name: set, Key: []Field{SrcAddr4}, Comment: comment})
		r.AddSet(&Set{Name: verdicts, Key: []Field{SrcAddr4}, Verdicts: true, Comment: comment, Elements: map[Element]Verdict{
			AddrElement(addr("10.0.0.1")): JumpTo(chain),
		}})
		r.AddChain(&Chain{Name: chain, Rules: []Rule{{Statements: []Statement{InSet{[]Field{SrcAddr4}, set}, accept}, Comment: comment}}})
		if user := Name("user", "of", chain); user != chain {
			r.AddChain(&Chain{Name: user, Rules: []Rule{
				rule(jump(chain)), rule(Dispatch{[]Field{SrcAddr4}, verdicts}),
			}})
		}
		mustSyncRapid(t, table, r)
		if list, err := table.Check(t.Context()); err != nil || len(list) > 0 {
			t.Fatalf("Check: %v\n%s", err, strings.Join(list, "\n"))
		}
		listing, err := n.try("", "list", "table", "inet", TableName)
		if err != nil {
			t.Fatalf("nft list: %v\n%s", err, listing)
		}
		if out, err := n.try(listing, "-c", "-f", "-"); err != nil {
			t.Fatalf("nft -c: %v\n%s\n%s", err, out, listing)
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
		got := clampComment(c.in)
		prefix, isHashed := strings.CutSuffix(c.want, "*")
		if !strings.HasPrefix(got, prefix) || len(got) > maxComment || !isHashed && got != c.want {
			t.Errorf("clampComment(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	seen := map[string]string{}
	for i := range 100 {
		c := clampComment(long + fmt.Sprint(i))
		if seen[c] != "" {
			t.Errorf("two comments are %q", c)
		}
		seen[c] = c
	}
}
