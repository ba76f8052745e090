// Command masquerade asks google/nftables, and then the nft program, for a masquerade to a range of
// ports, chosen at random, and sends a datagram through each. Run it in a network namespace of its
// own, by root: unshare -n.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

func main() {
	if err := errors.Join(
		run("ip", "link", "add", "out", "type", "veth", "peer", "name", "nowhere"),
		run("ip", "address", "add", "192.0.2.1/24", "dev", "out"),
		run("ip", "link", "set", "out", "up"), run("ip", "link", "set", "nowhere", "up"),
		run("ip", "neighbour", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "out"),
	); err != nil {
		log.Fatal(err)
	}
	const byNft = "table ip nat { chain out { type nat hook postrouting priority srcnat; meta " +
		"l4proto udp masquerade to :6000-6001 fully-random; }; }"
	for port, with := range []func() error{masquerade,
		func() error { return run("nft", "flush ruleset; "+byNft) }} {
		fmt.Printf("%s asked for: masquerade to :6000-6001 fully-random; the kernel has\n",
			[]string{"google/nftables is", "nft is"}[port])
		err := errors.Join(with(), send(5000+port), run("nft", "list", "ruleset"),
			run("conntrack", "-L", "-p", "udp", "--sport", fmt.Sprint(5000+port)))
		if err != nil {
			log.Fatal(err)
		}
	}
}

func masquerade() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(6000)},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(6001)},
		&expr.Masq{ToPorts: true, RegProtoMin: 1, RegProtoMax: 2, FullyRandom: true},
	}})
	return conn.Flush()
}

// send sends a datagram from a port.
func send(port int) error {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port}
	to := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}
	conn, err := net.DialUDP("udp4", from, to)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("datagram"))
	return errors.Join(err, conn.Close())
}

func run(name string, args ...string) error {
	command := exec.Command(name, args...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}
