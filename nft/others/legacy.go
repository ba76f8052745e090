package others

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadNet is the folder of /proc about the calling thread's network namespace.
const threadNet = "/proc/thread-self/net"

const legacyFilter = "filter"

// Requests of getsockopt(2) on a raw socket, the same in both families, and the layout of their
// answers (linux/netfilter_ipv4/ip_tables.h, linux/netfilter/x_tables.h).
const (
	optGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	optGetEntries = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES

	tableNameLen = 32
	numHooks     = 5
	// infoEntries is after the name and valid_hooks: the offset of each hook's first rule
	infoEntries   = tableNameLen + 4
	infoUnderflow = infoEntries + 4*numHooks       // the offset of each hook's policy
	infoSize      = infoUnderflow + 4*numHooks + 4 // after num_entries: the size of all entries
	infoLen       = infoSize + 4
	entriesHeader = tableNameLen + 8 // name and size, aligned for the entries' 64-bit counters
	// targetHeader is size, name and revision; then comes a standard target's verdict
	targetHeader = 32
)

// legacyFamily is one of legacy iptables' two halves.
type legacyFamily struct {
	name    string // as nftables calls it
	program string
	names   string // the file that names the tables which exist
	domain  int
	level   int
	// where an entry has the offset of its target from its start; behind that is the offset of the
	// next entry
	targetOffset int
	ipLen        int // of the head of an entry: the addresses, links and protocol that it is for
	entryLen     int // of an entry before its matches
}

func legacyFamilies() []legacyFamily {
	return []legacyFamily{
		{name: familyIP, program: "iptables", names: "ip_tables_names", domain: unix.AF_INET,
			level: unix.SOL_IP, targetOffset: 88, ipLen: 84, entryLen: 112},
		{name: familyIP6, program: "ip6tables", names: "ip6_tables_names", domain: unix.AF_INET6,
			level: unix.SOL_IPV6, targetOffset: 140, ipLen: 136, entryLen: 168},
	}
}

// legacyTable is legacy iptables' table filter.
type legacyTable struct {
	family   legacyFamily
	hook     Hook
	present  bool
	policy   string // of the hook's chain, as in nftables
	lastRule string // "drop" or "reject" where the chain's last rule does so to every packet
	rules    bool   // whether the hook's chain has any
	entries  []byte // all rules of the table, as the kernel holds them
}

func (t legacyTable) blocker() Blocker {
	b := Blocker{Backend: LegacyIPTables, Family: t.family.name, Table: legacyFilter,
		Chain: t.hook.legacy, Policy: t.policy}
	if b.Policy != verdictDrop {
		b.lastRule = t.lastRule
	}
	return b
}

// read reads the table filter. A request for a table makes the kernel create it, so the list of
// tables is read first.
func (f legacyFamily) read(procNet string, h Hook) (legacyTable, error) {
	t := legacyTable{family: f, hook: h}
	tables, err := f.tables(procNet)
	if err != nil || !slices.Contains(tables, legacyFilter) {
		return t, err
	}
	if err := t.load(); err != nil {
		return t, fmt.Errorf("reading legacy %s table %s: %w", f.program, legacyFilter, err)
	}
	t.present = true
	return t, nil
}

func (t *legacyTable) load() error {
	info, entries, err := t.family.fetch(legacyFilter)
	if err != nil {
		return err
	}
	number := binary.NativeEndian.Uint32
	hook := 4 * int(t.hook.number)
	first, policy := number(info[infoEntries+hook:]), number(info[infoUnderflow+hook:])
	t.entries = entries
	t.rules = first != policy
	verdict, err := t.verdict(int(policy))
	if err != nil {
		return err
	}
	t.policy = verdictAccept
	if verdict == legacyDrop {
		t.policy = verdictDrop
	}
	t.lastRule, err = t.lastOf(int(first), int(policy))
	return err
}

// tables names the tables that exist: none on a kernel without legacy iptables, or where its module
// isn't loaded.
func (f legacyFamily) tables(procNet string) ([]string, error) {
	names, err := os.ReadFile(filepath.Join(procNet, f.names))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("looking for legacy %s tables: %w", f.program, err)
	}
	return strings.Fields(string(names)), nil
}

// fetch returns what the kernel says of a table that exists, and all its rules.
func (f legacyFamily) fetch(table string) (info, entries []byte, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const attempts = 5 // the table may change between its size and itself
	for range attempts {
		info, entries, err = f.fetchOnce(fd, table)
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return info, entries, err
}

func (f legacyFamily) fetchOnce(fd int, table string) (info, entries []byte, err error) {
	info = make([]byte, infoLen)
	copy(info, table)
	if err := getsockopt(fd, f.level, optGetInfo, info); err != nil {
		return nil, nil, err
	}
	size := binary.NativeEndian.Uint32(info[infoSize:])
	all := make([]byte, entriesHeader+size)
	copy(all, table)
	binary.NativeEndian.PutUint32(all[tableNameLen:], size)
	if err := getsockopt(fd, f.level, optGetEntries, all); err != nil {
		return nil, nil, err
	}
	return info, all[entriesHeader:], nil
}

var errMalformed = errors.New("entries that aren't laid out as expected")

// verdict returns the verdict of the entry at an offset, which has a standard target.
func (t *legacyTable) verdict(at int) (int32, error) {
	if at+t.family.targetOffset+2 > len(t.entries) {
		return 0, errMalformed
	}
	at += int(binary.NativeEndian.Uint16(t.entries[at+t.family.targetOffset:])) + targetHeader
	if at+4 > len(t.entries) {
		return 0, errMalformed
	}
	return int32(binary.NativeEndian.Uint32(t.entries[at:])), nil
}

// mentions reports whether a rule has this text in it, such as a comment.
func (t *legacyTable) mentions(text string) bool { return bytes.Contains(t.entries, []byte(text)) }

// getsockopt passes value to the kernel, which reads the request from it and writes the answer to
// it.
func getsockopt(fd, level, option int, value []byte) error {
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}
