// Package install puts on a node what makes a container runtime call our plugin, keeps it as it
// should be, and takes it off again: the plugin's program, the network configuration, and files
// that tell the machine's network daemons to leave our links alone.
//
// Each function is one step that can be repeated: it changes nothing where all is as it should be,
// replaces files as a whole, and leaves alone what is others'. What others append to our network
// configuration stays, and what they put before it is told. There is no state but the files.
package install
