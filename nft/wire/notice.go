package wire

import (
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/nft"
)

// AboutOurTable reports whether a notification is about our table or what is in it: attribute 1 is
// the table's name in all of them. NEWGEN, which ends a transaction, names none.
func AboutOurTable(m netlink.Message) bool {
	const newGen = unix.NFT_MSG_NEWGEN
	if len(m.Data) < nfgenHeader || m.Data[0] != familyINet || m.Header.Type&0xff == newGen {
		return false
	}
	for kind, value := range attribute.All(m.Data[nfgenHeader:]) {
		if kind == unix.NFTA_TABLE_NAME && string(value) == nft.TableName+"\x00" {
			return true
		}
	}
	return false
}
