// Package replace writes files as a whole: no reader sees half of one.
package replace

import (
	"encoding/json"
	"os"
)

// File gives a file this content, which only its owner can read, by renaming another.
func File(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// WithJSON does so with a value.
func WithJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return File(file, append(text, '\n'))
}
