package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The expressions that decide nothing, or that do more than decide.

func (m *machine) counter(data []byte) error {
	_, err := fields(data, unix.NFTA_COUNTER_BYTES, unix.NFTA_COUNTER_PACKETS,
		unix.NFTA_COUNTER_PAD)
	return err
}

func (m *machine) limit(data []byte) error {
	_, err := fields(data, unix.NFTA_LIMIT_RATE, unix.NFTA_LIMIT_UNIT, unix.NFTA_LIMIT_BURST,
		unix.NFTA_LIMIT_TYPE, unix.NFTA_LIMIT_FLAGS, unix.NFTA_LIMIT_PAD)
	m.quiet = true
	return err
}

func (m *machine) log(data []byte) error {
	_, err := fields(data, unix.NFTA_LOG_GROUP, unix.NFTA_LOG_PREFIX, unix.NFTA_LOG_SNAPLEN,
		unix.NFTA_LOG_QTHRESHOLD, unix.NFTA_LOG_LEVEL, unix.NFTA_LOG_FLAGS)
	return err
}

func (m *machine) reject(data []byte) error {
	_, n, err := parse(data, kinds{unix.NFTA_REJECT_TYPE}, unix.NFTA_REJECT_ICMP_CODE)
	if err != nil {
		return err
	}
	if n[0] != unix.NFT_REJECT_TCP_RST {
		return fmt.Errorf("type %d", n[0])
	}
	return m.add(reset)
}

func (m *machine) notrack(data []byte) error {
	if len(data) > 0 {
		return errors.New("attributes")
	}
	return m.add(untrack)
}

func (m *machine) nat(data []byte) error {
	_, n, err := parse(data, kinds{unix.NFTA_NAT_FAMILY}, unix.NFTA_NAT_TYPE,
		unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX, unix.NFTA_NAT_REG_PROTO_MIN,
		unix.NFTA_NAT_REG_PROTO_MAX, unix.NFTA_NAT_FLAGS)
	if err != nil {
		return err
	}
	switch n[0] {
	case unix.NFPROTO_IPV4:
		return m.add(translate{4})
	case unix.NFPROTO_IPV6:
		return m.add(translate{6})
	}
	return fmt.Errorf("family %d", n[0])
}

func (m *machine) masquerade(data []byte) error {
	_, err := fields(data, unix.NFTA_MASQ_FLAGS, unix.NFTA_MASQ_REG_PROTO_MIN,
		unix.NFTA_MASQ_REG_PROTO_MAX)
	if err != nil {
		return err
	}
	return m.add(translate{})
}
