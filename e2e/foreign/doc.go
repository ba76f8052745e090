// Package foreign tests Sluice beside other projects' programs: the agent with --policy-only on
// pods that the CNI project's bridge and ptp plugins wire, with and without our plugin behind them;
// our own network as the default one under multus, and beside kube-proxy, firewalls, and managers
// of networks.
//
// It has no code of its own, only tests, in labs. Those of policy-only mode are labs without
// agents, whose agents the tests start: such a lab's network is another plugin's.
package foreign
