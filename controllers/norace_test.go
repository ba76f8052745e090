//go:build !race

package controllers

// slowdown is for a machine that others keep busy: their data push the table of
// connections out of the caches.
const slowdown = 4
