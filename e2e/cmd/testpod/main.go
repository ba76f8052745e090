// Command testpod is what the end-to-end tests run in pods. It needs nothing of its image but
// itself: no shell, no library, and of files only the /etc/resolv.conf and /etc/hosts that the
// kubelet mounts. Raw packets (icmp, sctp) take NET_RAW, which pods have unless they drop it.
//
//	serve    answers on ports, and can say who came
//	connect  tries each target once, as a new connection
//	resolve  looks a name up
//	send     moves many bytes, or one large packet
//	first    connects with its first instructions, where it must not and where it may
//	watch    connects again and again until a signal ends it, and says what wasn't as expected
//
// What it prints is in package testprogram. It exits with 0 if it could do its work, with any
// outcome of the connections: the reader judges that.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

func main() {
	// The first process of a container gets no signal that it has no handler for.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "testpod:", err)
		os.Exit(1)
	}
}

// run does what the arguments say until that is done or ctx ends, and prints to out.
func run(ctx context.Context, args []string, out io.Writer) error {
	commands := map[string]func(context.Context, []string, *printer) error{
		"serve": serve, "connect": connect, "resolve": resolve, "send": send, "first": first,
		"watch": watch,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("expected serve, connect, resolve, send, first or watch, got %q", args)
	}
	return commands[args[0]](ctx, args[1:], &printer{out: out})
}

// printer writes values as whole lines of JSON. It may be used concurrently.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *printer) print(value any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := json.NewEncoder(p.out).Encode(value); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// report is print for goroutines that can't return an error.
func (p *printer) report(report testprogram.Report) {
	if err := p.print(report); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "testpod:", err)
	}
}

// targetList is a flag that may be repeated, each with one target.
type targetList []testprogram.Target

func (l *targetList) String() string {
	texts := make([]string, len(*l))
	for i, target := range *l {
		texts[i] = target.String()
	}
	return strings.Join(texts, " ")
}

func (l *targetList) Set(text string) error {
	target, err := testprogram.ParseTarget(text)
	*l = append(*l, target)
	return err
}

// targetsOf reads the arguments behind the flags.
func targetsOf(args []string) (targetList, error) {
	var targets targetList
	for _, text := range args {
		if err := targets.Set(text); err != nil {
			return nil, err
		}
	}
	if len(targets) == 0 {
		return nil, errors.New("expected a target, such as tcp://10.244.1.2:80")
	}
	return targets, nil
}
