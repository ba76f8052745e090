package ruleset

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
)

// TestCutRules: with each configuration, the rule stands before the one that accepts established
// connections; and not on output.
func TestCutRules(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {IPVS: true}, {CutLabel: 5},
		{Network: Network{Masquerade: true}}} {
		base := cfg.base()
		want := cfg.cutting()
		for _, name := range []string{"egress", "input"} {
			rules := base.Chains[baseChain(name)].Rules
			if len(rules) == 0 || rules[0].String() != want.String() {
				t.Errorf("%+v: %s doesn't begin with %s", cfg, name, want)
			}
		}
		if !strings.Contains(base.Chains[cutChain].String(), "ct label set") {
			t.Errorf("%+v: nothing makes room for labels", cfg)
		}
		for _, chain := range base.Chains {
			if chain.Base != nil && chain.Base.Hook == nft.HookOutput &&
				strings.Contains(chain.String(), "ct label") {
				t.Errorf("%+v: a chain on output looks at labels:\n%s", cfg, chain)
			}
		}
	}
}
