// Package etcd pins the version of etcd that labs run. The module has no code: its go.mod names the
// program, which package assets builds. It is a module of its own so that etcd's requirements reach
// no other build.
package etcd
