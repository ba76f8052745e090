package wait

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluice-net/sluice/test/stretch"
)

// PollEvery is how often a condition is asked.
var PollEvery = stretch.By(50 * time.Millisecond)

// ReadyTimeout is how long a part of the lab may take to become ready, on a busy machine.
var ReadyTimeout = stretch.By(2 * time.Minute)

// RetryEvery is how soon the API server is asked again when it doesn't answer. An informer backs
// off to half a minute; a lab stops and starts its API server within seconds.
const RetryEvery = 200 * time.Millisecond

// Until asks until the answer is yes, for as long as timeout and ctx allow. An error ends it at
// once.
func Until(
	ctx context.Context, timeout time.Duration, what string, done func() (bool, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(PollEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}

// Pause waits for d and says whether ctx hasn't ended.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// AnswersOK says whether a GET is answered with 200.
func AnswersOK(ctx context.Context, client *http.Client, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, stretch.By(2*time.Second))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusOK
}

// IsFinal says whether trying again is of no use: the object is gone or another, or the request is
// wrong.
func IsFinal(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsInvalid(err) ||
		apierrors.IsBadRequest(err)
}
