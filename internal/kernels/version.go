package kernels

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// A Version is the number of a release of Linux, such as 6.1.176. The first release of a line,
// 6.1, has Patch 0.
type Version struct{ Major, Minor, Patch int }

var startOfVersion = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?`)

// ParseVersion reads the number with which a text begins, and returns what follows it; ok is false
// if the text begins with none.
func ParseVersion(text string) (v Version, rest string, ok bool) {
	m := startOfVersion.FindStringSubmatch(text)
	if m == nil {
		return Version{}, text, false
	}
	number := func(digits string) int {
		n, _ := strconv.Atoi(digits) // few digits, or none, which is 0
		return n
	}
	return Version{number(m[1]), number(m[2]), number(m[3])}, text[len(m[0]):], true
}

// Compare is negative if v is older than other, positive if it is newer, and 0 if they are equal.
func (v Version) Compare(other Version) int {
	return cmp.Or(cmp.Compare(v.Major, other.Major), cmp.Compare(v.Minor, other.Minor),
		cmp.Compare(v.Patch, other.Patch))
}

// Before reports whether v is older than other.
func (v Version) Before(other Version) bool { return v.Compare(other) < 0 }

// String is the number as Linux writes it in announcements: 6.1, 6.1.176.
func (v Version) String() string {
	if v.Patch == 0 {
		return fmt.Sprintf("%d.%d", v.Major, v.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}
