package nflog_test

import (
	"context"
	"fmt"

	"github.com/sluice-net/sluice/nflog"
)

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
