// Command tableflags asks google/nftables for a table that is owned and persists, and lists what
// the kernel has then. Run it in a network namespace of its own, by root: unshare -n.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"

	"github.com/google/nftables"
)

func main() {
	const owner, persist = 0x2, 0x4 // linux/netfilter/nf_tables.h
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		log.Fatal(err)
	}
	conn.AddTable(&nftables.Table{Name: "flags", Family: nftables.TableFamilyINet,
		Flags: owner | persist})
	if err := conn.Flush(); err != nil {
		log.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range tables {
		fmt.Printf("asked for the flags %#x, the kernel has %#x\n", owner|persist, t.Flags)
	}
	list := exec.Command("nft", "list", "ruleset")
	list.Stdout, list.Stderr = os.Stdout, os.Stderr
	if err := list.Run(); err != nil {
		log.Fatal(err)
	}
}
