package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// maxLabel is the highest bit of a label.
const maxLabel = 127

// Labels is the label of an entry as the kernel has it: numbers of 64 bits, each in the machine's
// byte order.
type Labels [16]byte

// Has reports whether a bit (0 to 127) is set.
func (l Labels) Has(bit uint8) bool {
	mask := labelBit(bit)
	for i := range l {
		if l[i]&mask[i] != 0 {
			return true
		}
	}
	return false
}

func labelBit(bit uint8) (l Labels) {
	const word = 64
	if bit <= maxLabel {
		binary.NativeEndian.PutUint64(l[bit/word*8:], 1<<(bit%word))
	}
	return l
}

// ErrNoRoom says that an entry can't be labelled: it is older than the first rule that names
// labels.
var ErrNoRoom = errors.New("the entry has no room for labels")

// SetLabel sets or clears one bit (0 to 127) of an entry's label, and leaves all other bits as
// they are. An entry that is gone is no error; one without room is ErrNoRoom. A newer entry, of
// another connection with the same tuple, is taken for it.
func (t *Table) SetLabel(e *Entry, bit uint8, on bool) error {
	mask := labelBit(bit)
	var value Labels
	if on {
		value = mask
	}
	// without NLM_F_CREATE: change an existing entry only
	r := t.request(e.family, nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_ACK)
	r.AddRawData(attribute.Append(attribute.Append(e.name(), nl.CTA_LABELS, value[:]),
		nl.CTA_LABELS_MASK, mask[:]))
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	switch {
	case err == nil || errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOSPC):
		err = ErrNoRoom
	}
	return fmt.Errorf("labelling the connection from %s to %s: %w", e.Orig.Src, e.Orig.Dst, err)
}
