package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab"
)

// nameFlag parses args with the flag --name alone, and returns what is behind.
func nameFlag(command string, args []string) (name string, rest []string, err error) {
	flags := flag.NewFlagSet("lab "+command, flag.ContinueOnError)
	flags.StringVar(&name, "name", lab.DefaultName, "name of the lab")
	err = flags.Parse(args)
	return name, flags.Args(), err
}

// build makes what labs run, so that a later command doesn't take minutes.
func build(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab build", flag.ContinueOnError)
	others := flags.Bool("others", false,
		"also what networks of others need, for tests beside them: the stock CNI plugins and "+
			"multus")
	debian := flags.Bool("debian", false,
		"also a Debian with the firewalls and network managers that nodes may have")
	if err := flags.Parse(args); err != nil {
		return err
	}
	control, err := assets.ControlPlane(ctx, os.Stderr)
	if err == nil {
		_, err = assets.Wiring(ctx, os.Stderr, false)
	}
	if err == nil && *others {
		_, err = assets.Foreign(ctx, os.Stderr)
	}
	if err == nil && *debian {
		_, err = assets.Debian(ctx, os.Stderr)
	}
	if err == nil {
		fmt.Println("etcd and kube-apiserver are in", filepath.Dir(control.APIServer))
	}
	return err
}

func down(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab down", flag.ContinueOnError)
	name := flags.String("name", lab.DefaultName, "name of the lab")
	all := flags.Bool("all", false, "remove all labs of this machine")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !*all {
		return lab.Down(ctx, *name)
	}
	names, err := lab.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, lab.Down(ctx, name))
	}
	return errors.Join(errs...)
}

func list(ctx context.Context, _ []string) error {
	names, err := lab.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		description, err := lab.Describe(ctx, name)
		if err != nil {
			description = fmt.Sprintf("%s: %s", name, err) // killed before it had written its state
		}
		fmt.Println(description)
	}
	return nil
}

func probe(ctx context.Context, args []string) error {
	name, _, err := nameFlag("probe", args)
	if err != nil {
		return err
	}
	l, err := lab.OpenLab(name)
	if err != nil {
		return err
	}
	matrix, err := l.Probe(ctx, nil, nil)
	if err != nil {
		return err
	}
	fmt.Print(matrix)
	fmt.Println(lab.Legend)
	for _, cell := range matrix.Cells {
		if !cell.Result.OK && !cell.Denied() {
			fmt.Printf("error: %s -> %s %s %s: %s\n", cell.From, cell.To, cell.Protocol, cell.Dst,
				cell.Result)
		}
	}
	return nil
}

func execute(ctx context.Context, args []string) error {
	name, rest, err := nameFlag("exec", args)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("expected a place and a command: lab exec dev/web -- ip address")
	}
	place, command := rest[0], rest[1:]
	if command[0] == "--" && len(command) > 1 {
		command = command[1:]
	}
	l, err := lab.OpenLab(name)
	if err != nil {
		return err
	}
	// The process inherits the namespace of the thread that starts it.
	return l.Do(place, func() error {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return commandError(max(1, exit.ExitCode()))
		}
		return err
	})
}

// commandError is the exit code of what lab exec has run.
type commandError int

func (c commandError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func why(ctx context.Context, args []string) error {
	name, rest, err := nameFlag("why", args)
	if err != nil {
		return err
	}
	if len(rest) != 4 {
		return errors.New("expected a node, a source, a destination and a port: lab why node1 " +
			"dev/web 10.244.2.3 80")
	}
	l, err := lab.OpenLab(name)
	if err != nil {
		return err
	}
	answer, err := l.Why(ctx, rest[0], rest[1], rest[2], rest[3])
	if err == nil {
		fmt.Println(answer)
	}
	return err
}
