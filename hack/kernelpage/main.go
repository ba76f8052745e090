// Command kernelpage fills the generated parts of docs/kernels.md, which it reads from stdin and
// writes to stdout.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/sluice-net/sluice/internal/kernels"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kernelpage:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	page, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("reading the page: %w", err)
	}
	filled, err := kernels.FillPage(string(page))
	if err != nil {
		return fmt.Errorf("filling the page: %w", err)
	}
	_, err = io.WriteString(out, filled)
	return err
}
