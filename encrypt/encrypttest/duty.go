package encrypttest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// duty is one check of a suite. Each call of open returns an implementation with nothing in it.
type duty[T any] struct {
	name  string
	check func(t require.TestingT, open func() T)
}

func run[T any](t *testing.T, duties []duty[T], open func(t *testing.T) T) {
	for _, d := range duties {
		t.Run(d.name, func(t *testing.T) { d.check(t, func() T { return open(t) }) })
	}
}
