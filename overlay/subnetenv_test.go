package overlay_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/overlay"
)

func TestSubnetEnv(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "flannel", "subnet.env")
	env := overlay.SubnetEnv{
		Network: net4, Subnet: netip.MustParsePrefix("10.244.1.0/24"),
		IPv6Network: net6, IPv6Subnet: netip.MustParsePrefix("fd00:10:244:1::/64"),
		MTU: 1450, Masquerade: true,
	}
	const both = `FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/56
FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`
	wantFile(t, env, path, both)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, env, path, both)
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written although nothing changed (%v)", err)
	}
	env.IPv6Network, env.IPv6Subnet, env.MTU, env.Masquerade = netip.Prefix{}, netip.Prefix{},
		1400, false
	wantFile(t, env, path,
		"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n")

	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("temporary files are left: %v (%v)", files, err)
	}
	if err := env.WriteFile(filepath.Join(path, "under-a-file")); err == nil {
		t.Error("a file was made in a file")
	}
}

func wantFile(t *testing.T, env overlay.SubnetEnv, path, want string) {
	t.Helper()
	if err := env.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
