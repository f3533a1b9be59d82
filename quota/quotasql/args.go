package quotasql

import (
	"iter"
	"slices"

	"github.com/crmguard/crmguard/quota"
)

func chunks(items []string) iter.Seq[[]string] { return slices.Chunk(items, chunk) }

func anys(items []string) []any {
	args := make([]any, len(items))
	for i, item := range items {
		args[i] = item
	}
	return args
}

func counters(limits []quota.Limit) []any {
	args := make([]any, len(limits))
	for i, l := range limits {
		args[i] = l.Counter
	}
	return args
}

func lengths(lists [][]string) []int {
	n := make([]int, len(lists))
	for i, list := range lists {
		n[i] = len(list)
	}
	return n
}
