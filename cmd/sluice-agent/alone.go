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

// onlyAgent keeps other agents from working on the node: before wait returns, nothing may be
// written. The lock is one of the state directory itself (flock(2)): it needs no file, ends with
// its process, and only root can take it.
type onlyAgent struct {
	stateDir, socket string
	standsBy         func(why string) // called once, when there is another agent
	// called where there can't be a lock: then only a socket shows another agent
	noLock func(err error)
	lock   *os.File // nil: there is none
}

// wait returns nil once no other agent is there, at once when the last one ends, or the context's
// error. An agent of a version without a lock is known by its socket. Where the directory can't be
// made or locked, on a full disk for instance, there is no lock: policy is enforced all the same.
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

// release lets the next agent go on. The garbage collector also releases the lock of an onlyAgent
// without references, as it closes the file.
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
	for reported := false; cni.IsAnswered(ctx, a.socket); {
		if !reported {
			reported = true
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

// awaitOtherAgents waits until this is the node's only agent, which it is until release. While
// another one runs, it reports that one, and serves this agent's health where the address is free.
func awaitOtherAgents(ctx context.Context, o *options, events notify.NodeEvents,
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

// serveStandby serves that this agent lives and isn't ready, unless another agent has the address;
// at is where, or empty.
func serveStandby(ctx context.Context, address, why string) (at string, stop func()) {
	if address == "0" {
		return "", func() {}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return "", func() {} // the first agent has it: kubelet asks that one
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
