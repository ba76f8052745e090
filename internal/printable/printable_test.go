package printable_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-net/sluice/internal/printable"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                        "",
		`dev/web "a\b" ü 網 +`:     `dev/web "a\b" ü 網 +`,
		"\x1b[2J\x1b]0;x\a":       `\u001b[2J\u001b]0;x\u0007`,
		"a\r\nb\tc\x00d\x7f":      `a\u000d\u000ab\u0009c\u0000d\u007f`,
		"\u009b31m":               `\u009b31m`, // CSI in one character
		"\u202egnp.exe\u2066":     `\u202egnp.exe\u2066`,
		"a\u200bb\ufeff\u2028c":   `a\u200bb\ufeff\u2028c`,
		"\U000e0041":              `\udb40\udc41`,
		"half \xe2\x82 and \xff!": `half \ufffd\ufffd and \ufffd!`,
	} {
		if got := printable.Line(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := printable.Block("a\n\tb\x1b"); got != "a\n\tb"+`\u001b` {
		t.Errorf("a block became %q", got)
	}
}

// FuzzWriter: for any string in a line of JSON, the output can be printed, and means the same.
func FuzzWriter(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31m\r\n", "\u009b\u202e\u2028\U000e0041",
		"\xff\x00\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var line, out bytes.Buffer
		if err := json.NewEncoder(&line).Encode(map[string]string{"value": s}); err != nil {
			t.Fatal(err)
		}
		if _, err := printable.Writer(&out).Write(line.Bytes()); err != nil {
			t.Fatal(err)
		}
		text := strings.TrimSuffix(out.String(), "\n")
		if !utf8.ValidString(text) ||
			strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q has what can't be printed", text)
		}
		var before, after map[string]string
		if err := json.Unmarshal(line.Bytes(), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &after); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if before["value"] != after["value"] {
			t.Errorf("got %q, want %q", after["value"], before["value"])
		}
	})
}
