package enforce

import "encoding/json"

// mergePatch is the JSON merge patch that sets labels.
func mergePatch(labels map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
}
