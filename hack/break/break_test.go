package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBreaksFit makes each break, so that a change of the code that one no longer fits is noticed
// at once.
func TestBreaksFit(t *testing.T) {
	t.Parallel()
	const root = "../.."
	breaks, err := Load(filepath.Join(root, "hack/breaks"))
	if err != nil {
		t.Fatal(err)
	}
	if len(breaks) < 100 {
		t.Errorf("%d breaks, expected 100 and more", len(breaks))
	}
	guarantees := read(t, filepath.Join(root, "docs/guarantees.md"))
	for _, b := range breaks {
		if !strings.Contains(guarantees, b.Sentence()) {
			t.Errorf("%s: docs/guarantees.md hasn't its sentence: %s", b.Name, b.Guarantee)
		}
		copied := t.TempDir()
		for _, c := range b.Changes {
			if err := copyFile(filepath.Join(root, c.File),
				filepath.Join(copied, c.File)); err != nil {
				t.Errorf("%s: %v", b.Name, err)
			}
		}
		if _, err := b.Apply(copied); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
		if _, err := os.Stat(filepath.Join(root, b.Test.Module, b.Test.Package)); err != nil {
			t.Errorf("%s: its test: %v", b.Name, err)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		changes []Change
		err     string
	}{
		{"once", []Change{{"a.go", "two", "three"}}, ""},
		{"not there", []Change{{"a.go", "four", "three"}}, "0 times"},
		{"twice", []Change{{"a.go", "one", "three"}}, "2 times"},
		{"the second doesn't fit", []Change{{"a.go", "two", "three"}, {"b.go", "two", "three"}},
			"0 times"},
		{"no file", []Change{{"c.go", "two", "three"}}, "no such file"},
		{"two in one file", []Change{{"a.go", "two", "three"}, {"a.go", "three", "four"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			files := map[string]string{"a.go": "one two one", "b.go": "one"}
			if err := write(root, files); err != nil {
				t.Fatal(err)
			}
			b := Break{Changes: tt.changes}
			undo, err := b.Apply(root)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, expected one with %q", err, tt.err)
				}
				undo = func() error { return nil }
			} else if err != nil || read(t, filepath.Join(root, "a.go")) == files["a.go"] {
				t.Fatalf("error %v, and a.go is %q", err, read(t, filepath.Join(root, "a.go")))
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			for name, text := range files {
				if got := read(t, filepath.Join(root, name)); got != text {
					t.Errorf("in the end %s is %q, expected %q", name, got, text)
				}
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	const sound = "guarantee: It holds.\ntest: {module: ., package: ./a, run: ^TestA$}\nchanges: " +
		"[{file: a/a.go, old: one, new: two}]\n"
	for _, tt := range []struct{ old, new, err string }{
		{"guarantee: It holds.\n", "", "guarantee"},
		{", run: ^TestA$", "", "test.run"},
		{"[{file: a/a.go, old: one, new: two}]", "[]", "changes"},
		{"a/a.go", "a/a_test.go", "changes[0].file"},
		{"old: one", "old: two", "changes[0].new"},
		{"old: one, ", "", "changes[0].old"},
		{"new: two", "with: two", "unknown field"},
	} {
		folder := t.TempDir()
		text := strings.Replace(sound, tt.old, tt.new, 1)
		if err := write(folder, map[string]string{"10-a.yaml": text}); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(folder); err == nil || !strings.Contains(err.Error(), tt.err) ||
			!strings.Contains(err.Error(), "10-a.yaml") {
			t.Errorf("%q instead of %q: error %v, expected one that names the file and %q", tt.new,
				tt.old, err, tt.err)
		}
	}
	folder := t.TempDir()
	if err := write(folder, map[string]string{"10-a.yaml": sound}); err != nil {
		t.Fatal(err)
	}
	if breaks, err := Load(folder); err != nil || len(breaks) != 1 || breaks[0].Name != "10-a" {
		t.Errorf("Load = %v, %v", breaks, err)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const ran = `{"Action":"run","Package":"p","Test":"TestA"}` + "\n"
	for _, tt := range []struct {
		name, output string
		succeeded    bool
		want         outcome
		by           []string
	}{
		{"passes", ran + `{"Action":"pass","Test":"TestA"}`, true, passed, nil},
		{"fails", ran + `{"Action":"fail","Test":"TestA/b"}` + "\n" +
			`{"Action":"fail","Test":"TestA"}`, false, failed, []string{"TestA", "TestA/b"}},
		{"is skipped", ran + `{"Action":"skip","Test":"TestA"}`, true, skipped, nil},
		{"matches nothing", `{"Action":"pass","Package":"p"}`, true, noTest, nil},
		{"is too slow",
			ran +
				`{"Action":"output","Test":"TestA","Output":"panic: test timed out after 20m0s\n"}` +
				"\n" + `{"Action":"fail","Test":"TestA"}`, false, didNot, []string{"TestA"}},
		{"doesn't compile", `{"Action":"fail","Package":"p"}` + "\na.go:1: syntax error", false,
			didNot, nil},
	} {
		got := judge([]byte(tt.output), tt.succeeded)
		if got.outcome != tt.want || !slices.Equal(got.by, tt.by) {
			t.Errorf("%s: %s by %v, expected %s by %v", tt.name, got.outcome, got.by,
				tt.want, tt.by)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
