// Package network holds the specs that say who reaches whom where no policy says otherwise: pods,
// nodes, Services in all their forms, ports of nodes that lead to pods, and hosts outside of the
// cluster; in every family of the cluster, with small packets and large ones. Where addresses are
// translated, they also say whom the server sees.
//
// Policies are in suite policy. What happens when nodes and agents come and go is in suite life.
package network
