package others

import (
	"bytes"
	"encoding/binary"
	"strings"
)

const (
	// legacyDrop is how legacy iptables writes NF_DROP, which is 0: a verdict v is -v-1 there.
	legacyDrop = -1

	matchNameAt, targetNameAt = 2, 2 // behind the size
	legacyNameLen             = 29
)

// lastOf returns "drop" or "reject" if the last rule of the chain from first to policy does so to
// every packet, and "" if not. A jump that it can't follow is an error.
func (t *legacyTable) lastOf(first, policy int) (string, error) {
	last := -1
	for at := first; at != policy; {
		_, next, err := t.offsets(at)
		if err != nil {
			return "", err
		}
		if next < t.family.entryLen || at+next > policy {
			return "", errMalformed
		}
		last, at = at, at+next
	}
	if last < 0 {
		return "", nil
	}
	return t.takesAll(last)
}

// chainsOf names the chains that people have made in a table with these entries. Each begins with
// an entry that has its name behind the target ERROR, as has the entry that ends the table.
func (f legacyFamily) chainsOf(entries []byte) (names []string, err error) {
	const marker = "ERROR"
	t := legacyTable{family: f, entries: entries}
	for at := 0; at < len(entries); {
		target, next, err := t.offsets(at)
		if err != nil {
			return nil, err
		}
		if target < f.entryLen || target+targetHeader > next || at+next > len(entries) {
			return nil, errMalformed
		}
		entry := entries[at : at+next]
		name := entry[target+targetHeader:]
		if legacyName(entry[target+targetNameAt:]) == marker && len(name) >= legacyNameLen &&
			legacyName(name) != marker {
			names = append(names, legacyName(name))
		}
		at += next
	}
	return names, nil
}

// offsets returns the offsets of an entry's target and of the next entry from its start.
func (t *legacyTable) offsets(at int) (target, next int, err error) {
	if at < 0 || at+t.family.entryLen > len(t.entries) {
		return 0, 0, errMalformed
	}
	field := t.entries[at+t.family.targetOffset:]
	return int(binary.NativeEndian.Uint16(field)), int(binary.NativeEndian.Uint16(field[2:])), nil
}

// takesAll returns "drop" or "reject" for an entry that does so to every packet, and "" for any
// other.
func (t *legacyTable) takesAll(at int) (string, error) {
	target, next, err := t.offsets(at)
	if err != nil {
		return "", err
	}
	if target < t.family.entryLen || target+targetHeader > next || at+next > len(t.entries) {
		return "", errMalformed
	}
	entry := t.entries[at : at+next]
	if len(bytes.Trim(entry[:t.family.ipLen], "\x00")) > 0 {
		return "", nil // for some addresses, links or protocols
	}
	for m := entry[t.family.entryLen:target]; len(m) > 0; {
		if len(m) < targetHeader {
			return "", errMalformed
		}
		size := int(binary.NativeEndian.Uint16(m))
		if size < targetHeader || size > len(m) {
			return "", errMalformed
		}
		if legacyName(m[matchNameAt:]) != "comment" {
			return "", nil
		}
		m = m[size:]
	}
	switch legacyName(entry[target+targetNameAt:]) {
	case "REJECT":
		return verdictReject, nil
	case "": // the standard target
		verdict, err := t.verdict(at)
		if err == nil && verdict == legacyDrop {
			return verdictDrop, nil
		}
		return "", err
	}
	return "", nil
}

// legacyName is the name of a match or target.
func legacyName(field []byte) string {
	name, _, _ := strings.Cut(string(field[:legacyNameLen]), "\x00")
	return name
}
