// Package kernels knows what Sluice needs of Linux, and which bugs of Linux concern it: the oldest
// version it starts on, the features of nf_tables that it uses, and, of a kernel that names itself,
// whether a bug is mended in it. It is pure: who reads what a kernel says of itself, and who tries
// what it can, is elsewhere (cmd/sluice-agent, nft/table).
//
// A number says little of a distribution's kernel, which has features and mends of newer ones. So
// features are tried where that is possible, and of bugs a [Kernel] says whether its number can be
// compared with Linux' own.
package kernels
