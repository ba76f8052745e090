package server

import (
	"context"

	"github.com/sluice-net/sluice/cni"
)

// An Enforcer puts attachments under policy. Its methods are called concurrently, but never twice
// at once for one ID.
type Enforcer interface {
	// Attach returns when the policy of the attachment's pod is in the kernel, so that its link may
	// be made; until then it waits, and no longer than ctx lasts. Its error says what it waited
	// for. After an error Detach is called. Attaching again what is attached is no error, and waits
	// as the first time does.
	Attach(ctx context.Context, a cni.Attachment) error
	// Detach forgets the attachment and removes its dispatch and host ports: from then on its
	// addresses may be another pod's. It is called when the pod's link is down, or never was.
	// Detaching what isn't attached is no error.
	Detach(ctx context.Context, id string) error
	// Enforced is nil if the policy of the attachment's pod is in the kernel now, and else says
	// what is missing. It doesn't wait.
	Enforced(id string) error
}
