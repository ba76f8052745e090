// Package attribute reads and writes netlink attributes (linux/netlink.h) in place. It knows no
// types: the caller knows what a value means.
package attribute

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// All are the netlink attributes in data, by type without flags. What is cut short ends them.
func All(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED |
				unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofNlAttr || length > len(data) ||
				!yield(kind, data[unix.SizeofNlAttr:length]) {
				return
			}
			data = data[min(len(data), align(length)):]
		}
	}
}

// Append appends an attribute.
func Append(to []byte, kind uint16, value []byte) []byte {
	length := unix.SizeofNlAttr + len(value)
	//nolint:gosec // as long as it was in a message
	to = binary.NativeEndian.AppendUint16(to, uint16(length))
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, value...)
	return append(to, make([]byte, align(length)-length)...)
}

// Space is how many bytes an attribute with this value takes.
func Space(value []byte) int { return align(unix.SizeofNlAttr + len(value)) }

func align(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
