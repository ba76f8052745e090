package kernels

import "testing"

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		v    Version
		rest string
	}{
		"6.18.44":             {Version{6, 18, 44}, ""},
		"6.1":                 {Version{6, 1, 0}, ""},
		"6.1.0-50-amd64":      {Version{6, 1, 0}, "-50-amd64"},
		"5.14.0-427.el9":      {Version{5, 14, 0}, "-427.el9"},
		"6.1-rc3":             {Version{6, 1, 0}, "-rc3"},
		"6.6.57.1-6.azl3":     {Version{6, 6, 57}, ".1-6.azl3"},
		"10.20.30+":           {Version{10, 20, 30}, "+"},
		"6.1.75+rpt-rpi-2712": {Version{6, 1, 75}, "+rpt-rpi-2712"},
	} {
		if v, rest, ok := ParseVersion(text); !ok || v != want.v || rest != want.rest {
			t.Errorf("%q: %v and %q, %t", text, v, rest, ok)
		}
	}
	for _, text := range []string{"", "6", "6.", "v6.1", "linux", " 6.1", "-1.2",
		"99999999999999999999.1", "٦.١"} {
		if v, rest, ok := ParseVersion(text); ok || v != (Version{}) || rest != text {
			t.Errorf("%q: %v and %q", text, v, rest)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	ascending := []Version{{}, {4, 18, 0}, {5, 9, 99}, {5, 10, 0}, {5, 10, 223}, {5, 13, 0},
		{6, 1, 9}, {6, 1, 176}, {6, 12, 0}, {7, 0, 0}}
	for i, a := range ascending {
		for j, b := range ascending {
			if a.Before(b) != (i < j) || (a.Compare(b) == 0) != (i == j) {
				t.Errorf("%v and %v compare as %d", a, b, a.Compare(b))
			}
		}
	}
}
