package kernels

import "testing"

// Names of kernels as they are in use. Debian says only in uname -v which Linux it is.
func TestIdentify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		release, version string
		is               string // the version, or empty
		comparable       bool
		text             string
		tooOld           bool
	}{
		{"6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)", "6.1.176",
			true, "6.1.0-50-amd64 (Linux 6.1.176)", false},
		{"5.10.0-32-amd64", "#1 SMP Debian 5.10.223-1 (2024-08-10)", "5.10.223", true,
			"5.10.0-32-amd64 (Linux 5.10.223)", true},
		{"6.12.95+deb12-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.95-1~bpo12+1 (2026-08-01)",
			"6.12.95", true, "6.12.95+deb12-amd64", false},
		{"6.18.44-fc-v657", "#1 SMP PREEMPT_DYNAMIC @0", "6.18.44", true, "6.18.44-fc-v657", false},
		{"6.6.29-talos", "#1 SMP Tue Apr 30", "6.6.29", true, "6.6.29-talos", false},
		{"6.10.3-arch1-2", "#1 SMP", "6.10.3", true, "6.10.3-arch1-2", false},
		{"6.1.75+", "#1 SMP", "6.1.75", true, "6.1.75+", false},
		{"7.0.0", "#1 SMP", "7.0", true, "7.0.0", false},
		{"7.0.0-rc3", "#1 SMP", "7.0", false, "7.0.0-rc3", false},
		{"5.15.0-119-generic", "#129-Ubuntu SMP Fri Aug 2", "5.15", false, "5.15.0-119-generic",
			false},
		{"5.14.0-427.13.1.el9_4.x86_64", "#1 SMP", "5.14", false, "5.14.0-427.13.1.el9_4.x86_64",
			false},
		{"5.14.21-150500.55.52-default", "#1 SMP", "5.14.21", false, "5.14.21-150500.55.52-default",
			false},
		{"6.8.12-4-pve", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4", "6.8.12", false,
			"6.8.12-4-pve", false},
		{"4.18.0-553.el8_10.x86_64", "#1 SMP", "4.18", false, "4.18.0-553.el8_10.x86_64", true},
		{"5.12.19", "#1 SMP", "5.12.19", true, "5.12.19", true},
		{"5.13.0", "#1 SMP", "5.13", true, "5.13.0", false},
		{"mykernel", "#1 SMP", "", false, "mykernel", false},
		{"", "", "", false, "", false},
	} {
		k := Identify(c.release, c.version)
		is := ""
		if k.Known() {
			is = k.Version.String()
		}
		if is != c.is || k.Comparable != c.comparable || k.String() != c.text ||
			k.TooOld() != c.tooOld {
			t.Errorf("%s: %+v, %q, too old %t", c.release, k, k, k.TooOld())
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)")
	f.Add("99999999.1", "Debian 999999999.1.1-")
	f.Fuzz(func(t *testing.T, release, version string) {
		k := Identify(release, version)
		if k.Comparable && !k.Known() {
			t.Errorf("%+v: comparable, but unknown", k)
		}
		if !k.Known() && k.TooOld() {
			t.Errorf("%+v: too old, but unknown", k)
		}
	})
}
