package main

import (
	"io"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sluice-net/sluice/internal/printable"
)

// setLogger returns the agent's log, and makes the libraries write to it.
func setLogger(o *options) logr.Logger {
	log := newLogger(o, os.Stderr)
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client"))
	return log
}

// newLogger returns a log that is safe to print on a terminal, as it has values that others wrote.
func newLogger(o *options, to io.Writer) logr.Logger {
	return zap.New(zap.UseFlagOptions(&o.zap), zap.WriteTo(printable.Writer(to))).
		WithValues("node", o.node)
}
