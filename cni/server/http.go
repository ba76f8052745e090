package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
)

const (
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 5 * time.Second
	maxHeaderBytes = 16 << 10
)

// httpServer makes the server of the socket. Requests end with ctx.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:           s.guard(s.mux),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       rememberPeer,
		ReadHeaderTimeout: headerTimeout, // a ReadTimeout would also end the wait for a policy
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(logWriter{s.opts.Log}, "", 0),
	}
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("POST "+cni.PathAdd, answer(s.add))
	mux.Handle("POST "+cni.PathDel, answer(s.del))
	mux.Handle("POST "+cni.PathCheck, answer(s.check))
	mux.Handle("POST "+cni.PathStatus, answer(s.status))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// What a plugin of a later version asks may work once the agent is upgraded too.
		refuse(w, http.StatusNotFound, types.NewError(types.ErrTryAgainLater,
			"this agent speaks version 1 of the protocol only",
			cni.Quote(r.Method+" "+r.URL.Path)+" isn't in it"))
	})
	return mux
}

// guard lets root in only, limits bodies, and contains panics.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if cause := recover(); cause != nil {
				s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "A request failed", "path",
					r.URL.Path, "stack", string(debug.Stack()))
				refuse(w, http.StatusInternalServerError,
					types.NewError(types.ErrInternal, "the agent failed", "its log says more"))
			}
		}()
		if err := checkPeer(r.Context()); err != nil {
			refuse(w, http.StatusForbidden, types.NewError(types.ErrInternal,
				"only root may ask the agent", err.Error()))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, cni.MaxRequestBytes)
		next.ServeHTTP(w, r)
	})
}

// answer makes a handler of a function from a request to an answer.
func answer[Request interface{ Validate() error }, Answer any](
	f func(context.Context, Request) (Answer, error),
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		if err != nil {
			status := http.StatusBadRequest
			if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			refuse(w, status, types.NewError(types.ErrDecodingFailure, "reading the request",
				err.Error()))
			return
		}
		var request Request
		if err := cni.DecodeRequest(body, &request); err != nil {
			refuse(w, http.StatusBadRequest,
				types.NewError(types.ErrDecodingFailure, "decoding the request", err.Error()))
			return
		}
		if err := request.Validate(); err != nil {
			refuse(w, http.StatusBadRequest, asCNIError(err))
			return
		}
		answer, err := f(r.Context(), request)
		if err != nil {
			refuse(w, statusOf(err), asCNIError(err))
			return
		}
		writeBody(w, http.StatusOK, answer)
	})
}

// readBody reads the whole body, and doesn't wait long for it.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	// From here on the connection is read to notice that the plugin is gone, however long that
	// takes.
	return body, errors.Join(err, control.SetReadDeadline(time.Time{}))
}

func writeBody(w http.ResponseWriter, status int, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		// every answer is made of strings and numbers
		panic(fmt.Sprintf("encoding an answer: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A plugin that is gone gets no answer. The request was carried out; its DEL undoes it.
	_, _ = w.Write(append(data, '\n'))
}

func refuse(w http.ResponseWriter, status int, err *types.Error) { writeBody(w, status, err) }

// asCNIError keeps an error of the specification, and calls all others internal.
func asCNIError(err error) *types.Error {
	if known := new(types.Error); errors.As(err, &known) {
		return known
	}
	return types.NewError(types.ErrInternal, "the agent failed", err.Error())
}

func statusOf(err error) int {
	switch asCNIError(err).Code {
	case types.ErrTryAgainLater, cni.CodeNotAvailable:
		return http.StatusServiceUnavailable
	case types.ErrInvalidEnvironmentVariables, types.ErrDecodingFailure,
		types.ErrInvalidNetworkConfig, types.ErrUnknownContainer:
		return http.StatusBadRequest
	default:
		return http.StatusInternalServerError
	}
}

type peerKey struct{}

// peer is who opened a connection.
type peer struct {
	uid uint32
	err error
}

func rememberPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// peerUID asks the kernel who connected (SO_PEERCRED of unix(7)).
func peerUID(conn net.Conn) (uint32, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var credentialsErr error
	err = raw.Control(func(fd uintptr) {
		credentials, credentialsErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credentialsErr); err != nil {
		return 0, fmt.Errorf("asking who connected: %w", err)
	}
	return credentials.Uid, nil
}

func checkPeer(ctx context.Context) error {
	who, ok := ctx.Value(peerKey{}).(peer)
	switch {
	case !ok:
		return errors.New("nobody knows who connected")
	case who.err != nil:
		return who.err
	case who.uid != 0:
		return fmt.Errorf("user %d", who.uid)
	}
	return nil
}

// logWriter takes the HTTP server's own lines, about broken connections.
type logWriter struct{ log logr.Logger }

func (l logWriter) Write(line []byte) (int, error) {
	l.log.V(1).Info("Connection failed", "reason", string(line))
	return len(line), nil
}
