// Package kill tests that nothing leaks and nothing is left over when the agent dies, in labs: a
// real API server, the real agent and plugin, real packets. docs/dying.md lists the states in which
// it can die.
//
// It has no code of its own, only tests. They start agents that can be killed at any system call
// that changes something (e2e/internal/killpoint), make a change of which it is known what it does
// undisturbed, and demand the same end however often the agent dies on the way. All the time,
// connections are tried that neither the old nor the new state allows, and others go on that both
// allow.
package kill
