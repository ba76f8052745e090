package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
)

// hostile has what turns, hides or breaks lines, in one and in two bytes, and what is no text.
const hostile = "\x1b[2J\x1b]0;title\a\r\n\x00\x7f\u009b31m\u202eabc\u2066\u2028\ufeff\xff\"}"

// TestLogOfHostileValues: a log line stays one line for any value, and as JSON it has the value.
func TestLogOfHostileValues(t *testing.T) {
	t.Parallel()
	for _, encoder := range []string{"json", "console"} {
		var out bytes.Buffer
		o, err := parseFlags([]string{"--node-name=n", "--zap-encoder=" + encoder,
			"--zap-stacktrace-level=panic"})
		if err != nil {
			t.Fatal(err)
		}
		log := newLogger(o, &out)
		log.Info("A value", "value", hostile, "list", []string{hostile}, hostile, "a key")
		log.Error(errors.New(hostile), "An error")
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 2 {
			t.Fatalf("%s: %d lines, want 2: %q", encoder, len(lines), lines)
		}
		for _, line := range lines {
			i := strings.IndexFunc(line, func(r rune) bool {
				return r != '\t' && !unicode.IsPrint(r)
			})
			if i >= 0 {
				t.Errorf("%s: %q is raw in %q", encoder, line[i:i+1], line)
			}
		}
		if encoder != "json" {
			continue
		}
		var fields struct{ Value string }
		if err := json.Unmarshal([]byte(lines[0]), &fields); err != nil {
			t.Errorf("%s: %v", lines[0], err)
		}
		if want := strings.ToValidUTF8(hostile, "\ufffd"); fields.Value != want {
			t.Errorf("got %q, want %q", fields.Value, want)
		}
	}
}
