package overlay_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/overlay"
)

// FuzzConfig gives the reader any net-conf.json. It refuses it with the key, the value and what was
// expected, or about the JSON itself; what it takes is a network that nodes can have.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		`{"Network":"10.244.0.0/16"}`,
		`{"network":"10.244.0.1/16","IPv6Network":"fd00:10:244::/56","EnableIPv6":true,"Backend":{"Type":"vxlan","VNI":1,"Port":8472,"MTU":1500,"DirectRouting":true}}`,
		`{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.1.0.0","SubnetMax":"10.2.0.0","Backend":{"Type":"host-gw"}}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::ffff:10.0.0.0/104"}`,
		`{"Network":"0.0.0.0/0","Network":"10.0.0.0/8","Backend":{"VNI":0,"VNI":16777216,"Port":-1}}`,
		`{"Network":"10.244.0.0/16","Backend":{"VNI":16777216}}`,
		`{"Network":"10.244.0.0/16","Backend":{"Port":65536}}`,
		`{"Network":null,"Backend":[]}`, `[]`, `{"Network":"10.244.0.0/16"}{}`,
		`{"Backend":{"Typ":"x"},"Network":"224.0.0.0/8"}`,
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"":0}`))
	f.Add([]byte(`{"` + strings.Repeat("\xee", 3000) + `":?}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := overlay.ParseConfig(data)
		if refused := new(overlay.ConfigError); errors.As(err, &refused) {
			if refused.Key == "" || refused.Want == "" || len(refused.Error()) > 1000 {
				t.Errorf("doesn't say what is wrong: %v", err)
			}
			return
		}
		if err != nil {
			if len(err.Error()) > 1000+2*len(data) || !strings.Contains(err.Error(), "JSON") {
				t.Errorf("an error of %d bytes: %.200v", len(err.Error()), err)
			}
			return
		}
		if !json.Valid(data) {
			t.Errorf("took what is no JSON: %q", data)
		}
		if !c.Network.IsValid() && !c.IPv6Network.IsValid() || c.Network.IsValid() &&
			!c.Network.Addr().Is4() || c.IPv6Network.IsValid() && !c.IPv6Network.Addr().Is6() ||
			c.VNI >= 1<<24 || c.Port == 0 || len(c.Device()) > 15 {
			t.Errorf("took %q as %+v", data, c)
		}
	})
}
