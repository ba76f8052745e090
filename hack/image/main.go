package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	run, args := runBuild, os.Args[1:]
	if len(args) > 0 {
		switch args[0] {
		case "index":
			run, args = runIndex, args[1:]
		case "sbom":
			run, args = runSBOM, args[1:]
		}
	}
	if err := run(args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
