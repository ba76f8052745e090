package nflog_test

import (
	"context"
	"fmt"

	"github.com/sluice-net/sluice/nflog"
)

// The beginning of a TCP packet, which is all that the kernel copies.
func ExampleParsePacket() {
	packet, err := nflog.ParsePacket([]byte{
		0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, // IPv4, protocol 6
		192, 0, 2, 1, 192, 0, 2, 2, // from, to
		0x9c, 0x40, 0, 80, // ports
	})
	fmt.Println(packet.Source, packet.SourcePort, packet.Destination, packet.DestinationPort, err)
	_, err = nflog.ParsePacket([]byte{0x45, 0})
	fmt.Println(err)
	// Output:
	// 192.0.2.1 40000 192.0.2.2 80 <nil>
	// it is no IPv4 or IPv6 packet
}

// What rules with "log group 7" log.
func ExampleReader() {
	reader, err := nflog.Open(nflog.Options{Group: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reader.Close()
	err = reader.Run(context.Background(), func(r nflog.Record) {
		fmt.Println(r.Prefix, r.Source, r.Destination)
	})
	fmt.Println(err)
}
