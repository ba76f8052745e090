package kernels

import "slices"

// A State says whether a kernel has a bug.
type State int

// The states.
const (
	Mended  State = iota // it doesn't have it
	Has                  // it has it
	MayHave              // its line may have got the mend; we know of none
	Unknown              // its number says nothing
)

// String is what a kernel does with a bug in this state: "has", say.
func (s State) String() string {
	switch s {
	case Mended:
		return "doesn't have"
	case Has:
		return "has"
	case MayHave:
		return "may have"
	case Unknown:
	}
	return "has or doesn't have"
}

// Of says whether the kernel, of an architecture as Go calls it, has a bug.
func (k Kernel) Of(b Bug, arch string) State {
	v := k.Version
	switch {
	case b.Arch != "" && b.Arch != arch:
		return Mended
	case !k.Known():
		return Unknown
	case v.Before(b.Since) && k.Comparable:
		return Mended
	case len(b.Fixed) == 0:
		return MayHave
	}
	newest := b.Fixed[len(b.Fixed)-1]
	i := slices.IndexFunc(b.Fixed, func(f Version) bool {
		return f.Major == v.Major && f.Minor == v.Minor
	})
	switch {
	// The line that had the mend from its start, and all after it, also a distribution's.
	case newest.Patch == 0 && !v.Before(newest) && (k.Comparable || newest.Before(v)):
		return Mended
	case !k.Comparable:
		return Unknown
	case i >= 0 && !v.Before(b.Fixed[i]):
		return Mended
	case i < 0 && b.Open:
		return MayHave
	}
	return Has
}

// Concerns lists those of some bugs that a user of the kernel can meet: those that it has or may
// have, and that aren't avoided. unknown says that its number can't say that of some.
func (k Kernel) Concerns(some []Bug, arch string) (bugs []Bug, unknown bool) {
	for _, b := range some {
		if b.Avoided != "" {
			continue
		}
		switch k.Of(b, arch) {
		case Has, MayHave:
			bugs = append(bugs, b)
		case Unknown:
			unknown = true
		case Mended:
		}
	}
	return bugs, unknown
}
