// Command longerror has google/nftables add more elements to a set than one attribute holds, and
// counts what the kernel has then. Run it in a network namespace of its own, by root: unshare -n.
package main

import (
	"encoding/binary"
	"fmt"
	"log"

	"github.com/google/nftables"
)

func main() {
	conn, err := nftables.New()
	if err != nil {
		log.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "long", Family: nftables.TableFamilyINet})
	const each = 16 // bytes of an element in the message
	for _, count := range []int{65535/each - 1, 65536/each + 1, 10_000} {
		set := &nftables.Set{Table: table, Name: fmt.Sprint("of-", count),
			KeyType: nftables.TypeIPAddr}
		elements := make([]nftables.SetElement, count)
		for i := range elements {
			elements[i].Key = binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i))
		}
		if err := conn.AddSet(set, nil); err != nil {
			log.Fatal(err)
		}
		added := conn.SetAddElements(set, elements)
		flushed := conn.Flush()
		got, err := conn.GetSetElements(set)
		fmt.Printf("%d elements: SetAddElements says %v, Flush says %v, the kernel has %d (%v)\n",
			count, added, flushed, len(got), err)
	}
}
