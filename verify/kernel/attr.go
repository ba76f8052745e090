package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// An attr is a netlink attribute: what a message is made of.
type attr struct {
	kind uint16
	data []byte
}

// kindMask takes the flags (nested, byte order) off an attribute's type.
const kindMask = 0x3fff

// attrs takes a body apart.
func attrs(body []byte) ([]attr, error) {
	var out []attr
	for len(body) > 0 {
		if len(body) < 4 {
			return nil, fmt.Errorf("%d bytes are left where an attribute begins", len(body))
		}
		size := int(binary.NativeEndian.Uint16(body))
		if size < 4 || size > len(body) {
			return nil, fmt.Errorf("an attribute of %d bytes, where %d are left", size, len(body))
		}
		out = append(out, attr{binary.NativeEndian.Uint16(body[2:]) & kindMask, body[4:size]})
		body = body[min((size+3)&^3, len(body)):]
	}
	return out, nil
}

// fields takes a body apart into the attributes that are known, by type. Anything else is an error
// that names it.
func fields(body []byte, known ...uint16) (map[uint16][]byte, error) {
	list, err := attrs(body)
	if err != nil {
		return nil, err
	}
	out := make(map[uint16][]byte, len(list))
	for _, a := range list {
		if !slices.Contains(known, a.kind) {
			return nil, fmt.Errorf("attribute %d isn't known", a.kind)
		}
		out[a.kind] = a.data
	}
	return out, nil
}

// kinds are types of attributes.
type kinds = []uint16

// parse takes a body apart like fields, and reads the numbers among its attributes, in their order.
func parse(body []byte, numeric kinds, others ...uint16) (map[uint16][]byte, []uint32, error) {
	f, err := fields(body, slices.Concat(numeric, others)...)
	if err != nil {
		return nil, nil, err
	}
	n, err := numbers(f, numeric...)
	return f, n, err
}

// find returns an attribute of a body of which the rest may be anything.
func find(body []byte, kind uint16) (data []byte, found bool, err error) {
	list, err := attrs(body)
	for _, a := range list {
		if a.kind == kind {
			return a.data, true, err
		}
	}
	return nil, false, err
}

func text(data []byte) string {
	data, _, _ = bytes.Cut(data, []byte{0})
	return string(data)
}

// number reads a number in network order; one that isn't there is 0.
func number(data []byte) (uint32, error) {
	switch len(data) {
	case 0:
		return 0, nil
	case 4:
		return binary.BigEndian.Uint32(data), nil
	}
	return 0, fmt.Errorf("a number of %d bytes", len(data))
}

// numbers reads several of them, by type.
func numbers(in map[uint16][]byte, kinds ...uint16) ([]uint32, error) {
	out := make([]uint32, len(kinds))
	for i, k := range kinds {
		n, err := number(in[k])
		if err != nil {
			return nil, fmt.Errorf("attribute %d: %w", k, err)
		}
		out[i] = n
	}
	return out, nil
}
