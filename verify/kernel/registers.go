package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// words is the number of 32-bit registers.
const words = 16

// A machine follows one rule's expressions: what is in which register.
type machine struct {
	registers [words]held
	rule      *rule
	version   int  // the IP version that the rule has already asked for
	quiet     bool // behind a limit, where nothing may decide
	sets      map[string]*set
}

// held is one word of a loaded value.
type held struct {
	value *loaded // nil: nobody has written here
	word  int
}

// loaded is a value in registers. mask is nil unless bits were cut off.
type loaded struct {
	from source
	mask []byte
}

// registerIndex is a register's first word. Old numbers, 1 to 4, are 16 bytes each.
func registerIndex(r uint32) (int, error) {
	switch {
	case r >= unix.NFT_REG_1 && r <= unix.NFT_REG_4:
		return int(r-unix.NFT_REG_1) * 4, nil
	case r >= unix.NFT_REG32_00 && r <= unix.NFT_REG32_15:
		return int(r - unix.NFT_REG32_00), nil
	}
	return 0, fmt.Errorf("register %d", r)
}

func wordsOf(length int) int { return (length + 3) / 4 }

func (m *machine) load(register uint32, v *loaded) error {
	at, err := registerIndex(register)
	if err != nil {
		return err
	}
	n := wordsOf(v.from.length)
	if v.from.length <= 0 || at+n > words {
		return fmt.Errorf("%d bytes into register %d", v.from.length, register)
	}
	for i := range n {
		m.registers[at+i] = held{v, i}
	}
	return nil
}

// read returns the value that begins in a register, of which length bytes are wanted.
func (m *machine) read(register uint32, length int) (*loaded, error) {
	at, err := registerIndex(register)
	if err != nil {
		return nil, err
	}
	v := m.registers[at].value
	if v == nil || length <= 0 || length > v.from.length {
		return nil, fmt.Errorf("%d bytes of register %d, where nothing such is", length, register)
	}
	for i := range wordsOf(length) {
		if m.registers[at+i] != (held{v, i}) {
			return nil, fmt.Errorf("register %d has parts of several values", register)
		}
	}
	return v, nil
}

// parts returns the values that make a key of length bytes, each padded to whole words.
func (m *machine) parts(register uint32, length int) ([]source, error) {
	at, err := registerIndex(register)
	if err != nil {
		return nil, err
	}
	var out []source
	for have := 0; have < length; {
		if at >= words || m.registers[at].value == nil {
			return nil, errors.New("a key from registers that hold nothing")
		}
		v := m.registers[at].value
		for i := range wordsOf(v.from.length) {
			if at+i >= words || m.registers[at+i] != (held{v, i}) {
				return nil, errors.New("a key of parts of values")
			}
		}
		if v.mask != nil {
			return nil, errors.New("a key of masked bits")
		}
		out = append(out, v.from)
		at += wordsOf(v.from.length)
		have += 4 * wordsOf(v.from.length)
	}
	return out, nil
}
