package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/controllers/notify"
)

// lookAgain is the time between two looks for an agent that takes no lock.
const lookAgain = 100 * time.Millisecond

// onlyAgent sees to it that one agent at a time works on a node: before it returns, nothing may be
// written. The lock is one of the state directory itself (flock(2)): it needs no file, ends with
// the process that has it, however that ends, and nobody but root can take it.
type onlyAgent struct {
	stateDir, socket string
	standsBy         func(why string) // told once, when there is another agent
	// told where there can't be a lock: then only a socket tells of another agent
	noLock func(err error)
	lock   *os.File // nil: there is none
}

// wait returns nil once no other agent is there, at once when the last one ends, or the context's
// error. An agent of before there was a lock is known by its socket. Where the directory can't be
// made or locked, as its disk is full, say, nobody is kept from enforcing policy.
func (a *onlyAgent) wait(ctx context.Context) error {
	dir, err := a.openDir()
	if err == nil {
		if err = a.takeLock(ctx, dir); err == nil {
			a.lock = dir
		} else {
			err = errors.Join(err, dir.Close())
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		a.noLock(err)
	}
	return a.awaitSilence(ctx)
}

func (a *onlyAgent) openDir() (*os.File, error) {
	if err := os.MkdirAll(a.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("making --state-dir: %w", err)
	}
	dir, err := os.Open(a.stateDir)
	if err != nil {
		return nil, fmt.Errorf("locking --state-dir: %w", err)
	}
	return dir, nil
}

// release lets the next agent go on. An agent that isn't referred to any more loses its lock as
// well, as files are closed then.
func (a *onlyAgent) release() {
	if a.lock != nil {
		_ = a.lock.Close()
	}
}

func (a *onlyAgent) takeLock(ctx context.Context, dir *os.File) error {
	err := flock(dir, unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	a.standsBy("another agent has locked " + a.stateDir)
	locked := make(chan error, 1)
	go func() { locked <- flock(dir, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ctx.Err() // the process ends, and the wait with it
	}
}

func flock(dir *os.File, how int) error {
	for {
		err := unix.Flock(int(dir.Fd()), how) //nolint:gosec // descriptors are small
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("locking --state-dir: %w", err)
		}
		return nil
	}
}

func (a *onlyAgent) awaitSilence(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for told := false; cni.IsAnswered(ctx, a.socket); {
		if !told {
			told = true
			a.standsBy("another agent, of a version that takes no lock, answers on " + a.socket)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// beAlone waits until this is the node's only agent, tells of another one, and answers for its
// health meanwhile, where the address is free. It is the only one until it is released.
func beAlone(ctx context.Context, o *options, events notify.NodeEvents,
	log logr.Logger) (*onlyAgent, error) {
	stop := func() {}
	only := &onlyAgent{stateDir: o.stateDir, socket: o.socket, standsBy: func(why string) {
		stop()
		var health string
		health, stop = serveStandby(ctx, o.httpAddress, why)
		log.Info(
			"Another agent runs on this node: this one stands by, and takes over when that ends",
			"reason", why, "health", health)
		events.Warn("AnotherAgent", "a second agent was started on this node; it writes nothing "+
			"and stands by until the first ends: "+why)
	}, noLock: func(err error) {
		log.Error(err, "A second agent isn't kept from this node but by the socket")
	}}
	err := only.wait(ctx)
	stop()
	return only, err
}

// serveStandby answers that this agent lives and isn't ready, unless the address is another
// agent's; at is where, or empty.
func serveStandby(ctx context.Context, address, why string) (at string, stop func()) {
	if address == "0" {
		return "", func() {}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return "", func() {} // the first agent's: kubelet asks that one
	}
	mux := http.NewServeMux()
	for path, handler := range controllers.HealthHandlers(
		func() error { return errors.New("stands by: " + why) }) {
		mux.Handle(path, handler)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	return listener.Addr().String(), func() {
		_ = server.Close()
		<-ended
	}
}
