// Package foreign tests Sluice beside other projects' CNI plugins: the agent with --policy-only on
// pods that the CNI project's bridge and ptp plugins wire, with and without our plugin behind them,
// and our own network as the default one under multus.
//
// It has no code of its own, only tests, in labs. Those of policy-only mode are labs without
// agents, whose agents the tests start: such a lab's network is another plugin's.
package foreign
