// Package printable makes others' text (names, labels, values of fields) safe for terminals and for
// readers of logs: it escapes control characters, escape sequences, characters that change the
// direction of writing, and invisible ones. It isn't for text that programs read, as it changes the
// text.
package printable

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line makes a text one printable line: each character that can't be printed becomes \uXXXX, as
// JSON writes it, and an invalid byte of UTF-8 \ufffd. It returns most texts as they are.
func Line(s string) string { return escape(s, "") }

// Block is like Line, and keeps line feeds and tabs.
func Block(s string) string { return escape(s, "\n\t") }

func escape(s, keep string) string {
	isFine := func(r rune) bool { return unicode.IsPrint(r) || strings.ContainsRune(keep, r) }
	if strings.IndexFunc(s, func(r rune) bool { return !isFine(r) || r == utf8.RuneError }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError || !isFine(r):
			writeEscaped(&b, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// writeEscaped writes a character as JSON does that keeps to ASCII.
func writeEscaped(b *strings.Builder, r rune) {
	units := []rune{r}
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		units = []rune{high, low}
	}
	const digits = "0123456789abcdef"
	for _, u := range units {
		b.WriteString(`\u`)
		for shift := 12; shift >= 0; shift -= 4 {
			b.WriteByte(digits[u>>shift&0xf])
		}
	}
}

// Writer passes text on as Block changes it: whole texts or lines in each call, as loggers write.
// JSON stays JSON with the same meaning, as only its strings have characters that can't be printed.
func Writer(to io.Writer) io.Writer { return writer{to} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, Block(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
