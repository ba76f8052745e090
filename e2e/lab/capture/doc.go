// Package capture keeps the packets that a link sends and receives, and reads their headers, also
// those in a VXLAN tunnel.
package capture
