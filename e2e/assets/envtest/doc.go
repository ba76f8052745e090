// Package envtest pins the version of setup-envtest, which downloads the control plane's programs
// where the internet is reachable. The module has no code: its go.mod names the tool.
package envtest
