package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// A Break makes the code subtly wrong, so that one guarantee no longer holds.
type Break struct {
	// Name is the file's name without its ending: 10-owned-table.
	Name string `json:"-"`
	// Guarantee is the sentence of docs/guarantees.md that no longer holds.
	Guarantee string `json:"guarantee"`
	// Test has to notice: the fastest one that can.
	Test    Test     `json:"test"`
	Changes []Change `json:"changes"`
}

// A Test is what go test runs, in the folder Module, for the package Package, by the expression
// Run.
type Test struct {
	Module  string `json:"module"`
	Package string `json:"package"`
	Run     string `json:"run"`
}

// A Change puts New in the place of Old, which stands in File exactly once.
type Change struct {
	File string `json:"file"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Load reads the breaks of a folder, in the order of their names.
func Load(folder string) ([]Break, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var breaks []Break
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		b := Break{Name: strings.TrimSuffix(filepath.Base(file), ".yaml")}
		if err := yaml.UnmarshalStrict(text, &b); err != nil {
			return nil, fmt.Errorf("reading the break %s: %w", file, err)
		}
		if err := b.complete(); err != nil {
			return nil, fmt.Errorf("reading the break %s: %w", file, err)
		}
		breaks = append(breaks, b)
	}
	return breaks, nil
}

func (b *Break) complete() error {
	if b.Guarantee == "" || b.Test.Module == "" || b.Test.Package == "" || b.Test.Run == "" {
		return errors.New("guarantee, test.module, test.package and test.run have to be there")
	}
	if len(b.Changes) == 0 {
		return errors.New("changes: expected at least one")
	}
	for i, c := range b.Changes {
		switch {
		case strings.HasSuffix(c.File, "_test.go") || !strings.HasSuffix(c.File, ".go"):
			return fmt.Errorf("changes[%d].file: %q: expected Go code that isn't a test", i, c.File)
		case c.Old == "":
			return fmt.Errorf("changes[%d].old: expected text", i)
		case c.Old == c.New:
			return fmt.Errorf("changes[%d].new: it is the same as old", i)
		}
	}
	return nil
}

// Sentence is the guarantee as a cell of the table in docs/guarantees.md.
func (b *Break) Sentence() string {
	return "| " + strings.TrimSuffix(b.Guarantee, ".") + " |"
}

// Apply makes the changes in the tree at root. The function that it returns takes them back. Where
// one of them doesn't fit, nothing is changed.
func (b *Break) Apply(root string) (undo func() error, err error) {
	before, after := map[string]string{}, map[string]string{}
	for _, c := range b.Changes {
		text, known := after[c.File]
		if !known {
			read, err := os.ReadFile(filepath.Join(root, c.File))
			if err != nil {
				return nil, err
			}
			text = string(read)
			before[c.File] = text
		}
		if n := strings.Count(text, c.Old); n != 1 {
			return nil, fmt.Errorf("%s: the old text stands there %d times, expected once: %s",
				c.File, n, c.Old)
		}
		after[c.File] = strings.Replace(text, c.Old, c.New, 1)
	}
	undo = func() error { return write(root, before) }
	if err := write(root, after); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

func write(root string, files map[string]string) error {
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
