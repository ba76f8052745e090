package policy

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"unique"
)

// PodPort is a named container port.
type PodPort struct {
	NamedPort
	Number uint16
}

// PodPorts are the named ports of a pod. They don't change, and equal ones are ==. Pods with equal
// ones, such as those of a Deployment, share them in memory. The zero value has none.
type PodPorts struct {
	// Of each port the protocol, the number in two bytes, and the name behind its length.
	text unique.Handle[string]
}

// PodPortsOf returns these ports, in their order. A name beyond 255 bytes is no port's, and is left
// out.
func PodPortsOf(ports ...PodPort) PodPorts {
	var text []byte
	for _, p := range ports {
		if len(p.Name) > math.MaxUint8 {
			continue
		}
		text = binary.BigEndian.AppendUint16(append(text, p.Protocol), p.Number)
		text = append(append(text, uint8(len(p.Name))), p.Name...)
	}
	if len(text) == 0 {
		return PodPorts{}
	}
	return PodPorts{unique.Make(string(text))}
}

// All yields the ports, in their order.
func (p PodPorts) All() iter.Seq[PodPort] {
	return func(yield func(PodPort) bool) {
		if p == (PodPorts{}) {
			return
		}
		const head = 4 // bytes before the name
		for text := p.text.Value(); text != ""; {
			end := head + int(text[3])
			number := uint16(text[1])<<8 | uint16(text[2])
			if !yield(PodPort{NamedPort{text[0], text[head:end]}, number}) {
				return
			}
			text = text[end:]
		}
	}
}

func (p PodPorts) String() string { return fmt.Sprint(slices.Collect(p.All())) }
