// Package docs_test holds what the documents name against what there is: tests, files, flags,
// metrics and Events. Whether a sentence about behaviour is true is for the test that the sentence
// names.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/internal/kernels"
)

var repository = os.DirFS("..")

// eachFile calls f with every file of the repository whose name ends so.
func eachFile(t *testing.T, suffix string, f func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() &&
			(name == "bin" || name == "dist" || len(name) > 1 && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		text, err := fs.ReadFile(repository, name)
		f(name, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := fs.ReadFile(repository, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// calls returns every call in the files of a folder that aren't tests.
func calls(t *testing.T, folder string, f func(name string, args []ast.Expr)) {
	t.Helper()
	eachFile(t, ".go", func(name, text string) {
		if path.Dir(name) != folder || strings.HasSuffix(name, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if fun, ok := call.Fun.(*ast.SelectorExpr); ok {
					f(fun.Sel.Name, call.Args)
				}
			}
			return true
		})
	})
}

// literal is the text of a string, or of a number or name as it stands there; "" if an expression
// is neither.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
		return e.Value
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	exist := map[string]bool{}
	definition := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	eachFile(t, "_test.go", func(_, text string) {
		for _, m := range definition.FindAllStringSubmatch(text, -1) {
			exist[m[1]] = true
		}
	})
	named := 0
	mention := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)[`/]")
	eachFile(t, ".md", func(name, text string) {
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			named++
			if !exist[m[1]] {
				t.Errorf("%s: there is no test %s", name, m[1])
			}
		}
	})
	if named < 100 {
		t.Errorf("only %d tests are named: expected many more", named)
	}
}

// anchor is what a heading is linked by.
func anchor(heading string) string {
	dropped := regexp.MustCompile(`[^\w\- ]`)
	return strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	anchors := map[string][]string{}
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	eachFile(t, ".md", func(name, text string) {
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			anchors[name] = append(anchors[name], anchor(m[1]))
		}
	})
	link := regexp.MustCompile(`\]\(([^)\s#]*)(#[^)\s]*)?\)`)
	code := regexp.MustCompile("`[^`\n]*`")
	eachFile(t, ".md", func(name, text string) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, "code"), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := name
			if m[1] != "" {
				target = path.Join(path.Dir(name), m[1])
			}
			if _, err := fs.Stat(repository, target); err != nil {
				t.Errorf("%s: the link to %s: %v", name, m[1], err)
			} else if m[2] != "" && !slices.Contains(anchors[target], m[2][1:]) {
				t.Errorf("%s: %s has no heading %s", name, target, m[2])
			}
		}
	})
}

func TestMetricsAreListed(t *testing.T) {
	t.Parallel()
	listed, made := map[string]bool{}, map[string]bool{}
	row := regexp.MustCompile("(?m)^\\|([^|]*`sluice_[^|]*)\\|")
	metric := regexp.MustCompile(`sluice_\w+`)
	eachFile(t, ".md", func(_, text string) {
		for _, cell := range row.FindAllStringSubmatch(text, -1) {
			for _, m := range metric.FindAllString(cell[1], -1) {
				listed[m] = true
			}
		}
	})
	quoted := regexp.MustCompile(`"(sluice_\w+)"`)
	eachFile(t, ".go", func(name, text string) {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "e2e/") {
			return
		}
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			made[m[1]] = true
		}
	})
	alike(t, "metric", listed, made)
}

func TestEventsAreListed(t *testing.T) {
	t.Parallel()
	listed, put := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile("`([A-Z][A-Za-z]+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[A-Z][^|]*)\\|").
		FindAllStringSubmatch(after(document(t, "docs/network.md"), "| Event |"), -1) {
		for _, m := range name.FindAllStringSubmatch(row[1], -1) {
			listed[m[1]] = true
		}
	}
	quoted := regexp.MustCompile(`"([A-Z]\w+)"`)
	reasons := map[string]bool{}
	eachFile(t, ".go", func(name, text string) {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "e2e/") {
			return
		}
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			reasons[m[1]] = true
		}
	})
	for reason := range listed {
		if reasons[reason] {
			put[reason] = true
		}
	}
	for _, folder := range []string{"controllers", "controllers/answers", "controllers/apiguard",
		"enforcer", "cmd/sluice-agent"} {
		calls(t, folder, func(name string, args []ast.Expr) {
			position := map[string]int{"Warn": 0, "Say": 0, "report": 0, "WarnAbout": 1, "putOn": 2,
				"Eventf": 3}
			at, ok := position[name]
			if ok && at < len(args) &&
				regexp.MustCompile(`^[A-Z]\w+$`).MatchString(literal(args[at])) {
				put[literal(args[at])] = true
			}
		})
	}
	alike(t, "Event", listed, put)
}

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}

// alike demands that what is listed is what there is, and that there is something.
func alike(t *testing.T, what string, listed, is map[string]bool) {
	t.Helper()
	for name := range is {
		if !listed[name] {
			t.Errorf("%s %s isn't in any list of the documents", what, name)
		}
	}
	for name := range listed {
		if !is[name] {
			t.Errorf("the documents list %s %s, which doesn't exist", what, name)
		}
	}
	if len(listed) < 5 {
		t.Errorf("only %d are listed", len(listed))
	}
}

func TestFlagsAreListed(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{}
	calls(t, "cmd/sluice-agent", func(name string, args []ast.Expr) {
		if strings.HasSuffix(name, "Var") && len(args) == 4 {
			defaults[literal(args[1])] = literal(args[2])
		}
	})
	rows := regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| ([^|]*) \\|").
		FindAllStringSubmatch(document(t, "docs/network.md"), -1)
	for _, row := range rows {
		want, ok := defaults[row[1]]
		if !ok {
			t.Errorf("the documents list --%s, which doesn't exist", row[1])
		}
		if got := strings.Trim(row[2], "`"); ok && want != "" && got != want && !computed[row[1]] {
			t.Errorf("--%s: the documents say that the default is %q, it is %q", row[1], got, want)
		}
	}
	if len(rows) < 20 {
		t.Errorf("only %d flags are listed", len(rows))
	}
}

// TestOldestKernelIsNamed: the documents and the agent agree on the oldest Linux.
func TestOldestKernelIsNamed(t *testing.T) {
	t.Parallel()
	oldest := kernels.Minimum().String()
	for name, sentence := range map[string]string{
		"README.md":           "Linux " + oldest + " or later",
		"docs/fail-closed.md": "older than Linux " + oldest,
		"docs/install.md":     "| Linux | " + oldest + " or newer",
	} {
		if !strings.Contains(document(t, name), sentence) {
			t.Errorf("%s lacks %q", name, sentence)
		}
	}
}

// TestKernelPageIsCurrent: make generate writes it.
func TestKernelPageIsCurrent(t *testing.T) {
	t.Parallel()
	page := document(t, "docs/kernels.md")
	if filled, err := kernels.FillPage(page); err != nil || filled != page {
		t.Errorf("docs/kernels.md is stale, run make generate (error %v)", err)
	}
}

// computed are flags whose default is the name of a constant.
var computed = map[string]bool{"log-group": true}
