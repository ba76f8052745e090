package kernel

// Dump is what is read from the kernel before it is decoded.
type Dump = dump

// ReadDump reads a Dump, and Decode makes a Program of it.
var (
	ReadDump = readDump
	Decode   = decodeDump
)
