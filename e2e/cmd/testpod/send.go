package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// sendLine is how much "send" puts into one line of a TCP connection.
const sendLine = 32 << 10

// send moves many bytes over TCP and checks what comes back, or sends one large packet and waits
// for the answer of the same size.
func send(ctx context.Context, args []string, out *printer) error {
	flags := flag.NewFlagSet("send", flag.ContinueOnError)
	size := flags.Int("size", 1<<20, "bytes of content; with --df, of the IP packet")
	df := flags.Bool("df", false,
		"send one UDP or ICMP packet of this size that nobody may fragment")
	timeout := flags.Duration("timeout", 30*time.Second, "how long all may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	targets, err := targetsOf(flags.Args())
	if err != nil {
		return err
	}
	target := targets[0]
	if len(targets) > 1 || *size <= 0 || target.Protocol == testprogram.SCTP ||
		*df && target.Protocol == testprogram.TCP {
		return errors.New(
			"expected one target and a size above 0: tcp; udp or icmp with --df, udp without")
	}
	began := time.Now()
	sent := testprogram.Sent{Size: *size}
	addr, err := address(ctx, target, *timeout)
	var reply string
	if err == nil {
		deadline := began.Add(*timeout)
		if target.Protocol == testprogram.TCP {
			reply, err = sendStream(addr, *size, deadline)
		} else {
			reply, sent.MTU, err = sendPacket(target.Protocol, addr, *size, *df, deadline)
		}
	}
	sent.Seconds = time.Since(began).Seconds()
	sent.Result = testprogram.Result{Target: target.String(), OK: true, Reply: reply,
		Kind: testprogram.OK}
	if err != nil {
		sent.Result = failed(target, err)
	}
	return out.print(sent)
}

// sendStream sends lines of random content, while it checks the answers. It returns the greeting.
func sendStream(addr netip.AddrPort, size int, deadline time.Time) (string, error) {
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", addr.String())
	if err != nil {
		return "", socketError(err)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return "", errors.Join(err, conn.Close())
	}
	content := randomText(min(size, sendLine))
	var writing sync.WaitGroup
	defer writing.Wait() // after the connection is closed
	defer func() { _ = conn.Close() }()
	writing.Go(func() {
		for left := size; left > 0; left -= len(content) {
			if _, err := fmt.Fprintln(conn, content[:min(left, len(content))]); err != nil {
				return // then the answer doesn't come
			}
		}
	})
	lines := bufio.NewReader(conn)
	var greeting string
	for left := size; left > 0; left -= len(content) {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", socketError(err)
		}
		want := " " + content[:min(left, len(content))] + "\n"
		var same bool
		if greeting, same = strings.CutSuffix(line, want); !same {
			return "", fmt.Errorf("%d bytes before the end: the answer isn't what was sent", left)
		}
	}
	return greeting, nil
}

// randomText is that many printable bytes.
func randomText(size int) string {
	raw := make([]byte, size/2+1)
	_, _ = rand.Read(raw) // which doesn't fail
	return hex.EncodeToString(raw)[:size]
}

// socketError gives an error of a socket the meaning that package probe gives it.
func socketError(err error) error {
	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%w: %w", probe.ErrTimeout, err)
	case isAny(err, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE):
		return fmt.Errorf("%w: %w", probe.ErrReset, err)
	case isAny(err, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %w", probe.ErrUnreachable, err)
	}
	return err
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
