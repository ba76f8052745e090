package others

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ensureLegacy does what Ensure says in one family of legacy iptables. Its rules can be read
// without a program, but changing them takes one.
func (a *Accepter) ensureLegacy(ctx context.Context, f legacyFamily,
	networks []netip.Prefix) (changed bool, err error) {
	table, err := f.read(a.net(), Forward)
	if err != nil || !table.present {
		return false, err
	}
	networks = ofFamily(networks, f.name)
	wanted := len(networks) > 0 && (table.policy == verdictDrop || table.rules)
	if !wanted && !table.mentions(comment) {
		return false, nil
	}
	program, err := a.legacyProgram(ctx, f)
	if err != nil {
		if !table.blocker().blocks() && !table.mentions(comment) {
			return false, nil // nothing says that its rules are in the way
		}
		return false, fmt.Errorf("changing %s: %w", table.blocker(), err)
	}
	out, err := run(ctx, program, "-w", "-S")
	if err != nil {
		return false, err
	}
	for _, args := range legacyChanges(strings.Split(out, "\n"), networks) {
		if _, err := run(ctx, program, append([]string{"-w"}, args...)...); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// legacyProgram finds the program that writes legacy tables. One called plain iptables may be
// either.
func (a *Accepter) legacyProgram(ctx context.Context, f legacyFamily) (string, error) {
	if path, err := a.look(f.program + "-legacy"); err == nil {
		return path, nil
	}
	path, err := a.look(f.program)
	if err != nil {
		return "", errNoProgram
	}
	version, err := run(ctx, path, "--version")
	if err != nil {
		return "", err
	}
	if strings.Contains(version, "nf_tables") {
		return "", fmt.Errorf("%w: %s writes to nftables", errNoProgram, path)
	}
	return path, nil
}

// ourRule is a rule of ours as the program lists it: chain, -s or -d, network.
var ourRule = regexp.MustCompile(`^-A (\S+) (-[sd]) (\S+) -m comment --comment "` +
	regexp.QuoteMeta(comment) + `" -j ACCEPT$`)

// legacyChanges returns the arguments of the commands that lead from the listed rules of the table
// to those for networks.
func legacyChanges(listed []string, networks []netip.Prefix) [][]string {
	chain := Forward.legacy
	if slices.ContainsFunc(listed,
		func(line string) bool {
			return ruleOf(line, Forward.legacy) && legacyJump(line) == dockerUser
		}) {
		chain = dockerUser
	}
	type rule struct{ chain, side, network string }
	var want []rule
	for _, n := range networks {
		want = append(want, rule{chain, "-s", n.String()}, rule{chain, "-d", n.String()})
	}
	var changes [][]string
	arguments := func(r rule) []string {
		return []string{r.side, r.network, "-m", "comment", "--comment", comment, "-j", "ACCEPT"}
	}
	there := map[rule]bool{}
	position, head := 1, true
	for _, line := range listed {
		if m := ourRule.FindStringSubmatch(line); m != nil {
			r := rule{m[1], m[2], m[3]}
			if there[r] || !slices.Contains(want, r) {
				changes = append(changes, append([]string{"-D", r.chain}, arguments(r)...))
			}
			there[r] = true
		} else if ruleOf(line, chain) {
			if head = head && strings.HasPrefix(legacyJump(line), kubeProxy); head {
				position++
			}
		}
	}
	for _, r := range slices.Backward(want) {
		if !there[r] {
			changes = append(changes,
				append([]string{"-I", r.chain, strconv.Itoa(position)}, arguments(r)...))
		}
	}
	return changes
}

func ruleOf(line, chain string) bool { return strings.HasPrefix(line, "-A "+chain+" ") }

// legacyJump returns the target of a listed rule.
func legacyJump(line string) string {
	words := strings.Fields(line)
	if i := slices.Index(words, "-j"); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// run runs a program and returns what it prints.
func run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running %s: %w: %s", cmd, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
