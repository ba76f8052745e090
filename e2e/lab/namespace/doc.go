// Package namespace makes the network namespaces of a lab, by name, and works in them. Their names
// begin with Prefix, so what remains of a lab can be found.
package namespace
