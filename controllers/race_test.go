//go:build race

package controllers

// slowdown is what the race detector makes of CPU times, generously.
const slowdown = 12
