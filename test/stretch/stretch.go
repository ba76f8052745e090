// Package stretch makes the deadlines of tests longer, and their repetitions fewer, where
// everything is slower, such as in an emulated machine (make kernels). The factor is read here and
// nowhere else.
//
// It is for how long a test waits for what must come, and how often it looks. What a test asserts
// of time, such as that something takes less than the agent promises, it asserts without this, or
// not at all.
package stretch

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Variable is the environment variable that has the factor, a whole number.
const Variable = "SLUICE_STRETCH"

// Factor is how many times longer than usual things may take: 1, unless the environment says
// otherwise. It panics for what isn't a number of 1 or more, which is a mistake of whoever runs the
// tests.
var Factor = sync.OnceValue(func() int {
	text := os.Getenv(Variable)
	if text == "" {
		return 1
	}
	factor, err := strconv.Atoi(text)
	if err != nil || factor < 1 {
		panic(fmt.Sprintf("%s is %q; it has to be a whole number of 1 or more", Variable, text))
	}
	return factor
})

// By is d, stretched.
func By(d time.Duration) time.Duration { return d * time.Duration(Factor()) }

// Fewer is n, divided by the factor: how often a test does again what takes long. It is 1 or more.
func Fewer(n int) int { return max(1, n/Factor()) }
