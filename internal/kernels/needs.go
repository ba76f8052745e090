package kernels

// Minimum is the oldest Linux on which Sluice starts. No feature of nf_tables decides that: the
// youngest that we use, ranges of several fields, came with 5.6. It is kube-proxy's own limit in
// nftables mode, and has its reason: systems with an older kernel have an nft before 1.0.1, which
// reads every table of the node before it writes its own, and fails or crashes at what it doesn't
// know. There our table would break others' firewalls.
func Minimum() Version { return Version{5, 13, 0} }

// TooOld reports whether the kernel is older than Minimum. One whose version can't be read isn't:
// its features decide.
func (k Kernel) TooOld() bool { return k.Known() && k.Version.Before(Minimum()) }

// A Feature is something that our table needs of nf_tables.
type Feature struct {
	Name   string
	Config string // what turns it on where a kernel is built

	PodNetwork bool // not needed with --policy-only
}

// The features, each of which nft/table can try.
const (
	Sets        = "sets, verdict maps and ranges of several fields"
	Tracking    = "connection tracking, its labels and original addresses"
	Resets      = "resets of TCP connections"
	Samples     = "a log with a limited rate"
	Routes      = "questions to the routes (fib)"
	Untracked   = "packets that aren't tracked"
	Translation = "address translation by maps, and masquerading, for both families"
)

// Features lists what the table needs.
func Features() []Feature {
	return []Feature{
		{Name: Sets, Config: "CONFIG_NF_TABLES_INET"},
		{Name: Tracking,
			Config: "CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_LABELS"},
		{Name: Resets, Config: "CONFIG_NFT_REJECT_INET"},
		{Name: Samples,
			Config: "CONFIG_NFT_LOG, CONFIG_NFT_LIMIT, CONFIG_NETFILTER_NETLINK_LOG"},
		{Name: Routes, Config: "CONFIG_NFT_FIB_INET"},
		{Name: Untracked, Config: "CONFIG_NFT_CT", PodNetwork: true},
		{Name: Translation, Config: "CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
			PodNetwork: true},
	}
}

// Needed lists those of Features without which an agent can't write its table.
func Needed(policyOnly bool) (needed []Feature) {
	for _, f := range Features() {
		if !f.PodNetwork || !policyOnly {
			needed = append(needed, f)
		}
	}
	return needed
}
