package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kernel's limit of the names of chains and sets (NFT_NAME_MAXLEN without the NUL), and nft's
// of comments (without the NUL).
const (
	MaxName    = 255
	maxComment = 127
)

// A hash suffix is hashMark and 24 hexadecimal digits (96 bits).
const (
	hashMark   = ".h"
	hashDigits = 24
)

// hashed matches names that seem to have a hash suffix.
var hashed = regexp.MustCompile(`\.h[0-9a-f]{24}$`)

// keyword matches what might be a keyword of some version of nft: those have letters, digits and
// hyphens only.
var keyword = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// Name makes the name of a chain or set of parts, joined with "/". The result is one identifier to
// nft, so that a listing can be read back, and short enough for the kernel. Different parts give
// different names: where a part has characters that nft doesn't take in a name, or "/", or where
// the whole is too long, a hash of all parts is appended. A single part that could be a keyword
// gets a leading "_".
//
// nft's identifiers start with a letter, "_" or "." and go on with those, digits, "/" and "-"
// (scanner.l of nftables; "." alone is none).
func Name(parts ...string) string {
	clean := make([]string, len(parts))
	exact := len(parts) > 0
	for i, part := range parts {
		clean[i] = strings.Map(nameRune, part)
		exact = exact && clean[i] == part
	}
	name := strings.Join(clean, "/")
	if len(parts) == 1 && keyword.MatchString(name) && exact {
		name = "_" + name
	} else if len(parts) == 1 && strings.HasPrefix(name, "_") {
		exact = false // taken by the line above
	}
	if name == "" || !startsName(name[0]) {
		name, exact = "_"+name, false
	}
	if exact && len(name) <= MaxName && !hashed.MatchString(name) {
		return name
	}
	return clamp(name, MaxName-len(hashMark)-hashDigits) + hashMark + digest(parts)
}

func nameRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_',
		r == '.':
		return r
	}
	return '_'
}

func startsName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// digest hashes parts so that their borders count.
func digest(parts []string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part)) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil))[:hashDigits]
}

// clamp cuts a string to n bytes, at a character's border.
func clamp(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ClampComment makes a comment acceptable to nft: no double quotes, only characters that a terminal
// prints (comments have names of policies), valid UTF-8, at most 127 bytes. Where it changes
// anything, it appends a hash, so that different comments stay different.
func ClampComment(s string) string {
	const mark = " ~"
	const digits = 12
	clean := strings.Map(func(r rune) rune {
		if r == '"' || !unicode.IsPrint(r) || r == utf8.RuneError {
			return '_'
		}
		return r
	}, s)
	if clean == s && len(s) <= maxComment {
		return s
	}
	return clamp(clean, maxComment-len(mark)-digits) + mark + digest([]string{s})[:digits]
}
