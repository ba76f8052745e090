// Package install puts on a node what makes a container runtime call our plugin, keeps it as it
// should be, and takes it off again. That is the plugin's program, the network configuration, and
// files that make the machine's network daemons leave our links alone.
//
// Each function is one step that can be repeated. It changes nothing where all is as it should be,
// replaces files as a whole, and leaves others' files alone. What others append to our network
// configuration stays, and what they put before it is reported. The only state is the files.
package install
