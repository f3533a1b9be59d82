package audit_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
)

// Every row of a small journal is deleted, doubled and swapped with each other one, as
// it is and renumbered, and the tail is cut after each; by somebody who leaves the
// checkpoints, and by one who also removes those that tell.
func TestEveryRowCounts(t *testing.T) {
	good, _, verifier := history(t, 11)
	const n = 11
	anchor := holding(good)
	renumber := func(f *fixed) {
		for i := range f.rows {
			f.rows[i].Seq = int64(i)
		}
	}
	check := func(what string, i, at int, change func(f *fixed), want audit.Verdict) {
		t.Helper()
		for _, renumbered := range []bool{false, true} {
			f := good.clone()
			change(f)
			if renumbered {
				renumber(f)
			}
			f.head = audit.Head{Log: f.head.Log, Size: int64(len(f.rows))}
			if len(f.rows) > 0 {
				last := f.rows[len(f.rows)-1]
				f.head.Size, f.head.Last = max(f.head.Size, last.Seq+1), last.Hashes[0]
			}
			r := verify(t, f, verifier)
			require.Equal(t, want, r.Verdict, "%s %d: %s", what, i, r.Detail)
			require.EqualValues(t, at, r.At, "%s %d: %s", what, i, r.Detail)

			// Without the checkpoints over it the rows alone tell; a tail only the anchor misses.
			f.checkpoints = slices.DeleteFunc(f.checkpoints, func(c audit.Checkpoint) bool { return c.Size > int64(at) })
			r = verify(t, f, verifier)
			if want == audit.Truncated {
				require.True(t, r.OK(), "%s %d: %s", what, i, r.Detail)
				require.EqualValues(t, at, r.Entries)
			} else {
				require.Equal(t, want, r.Verdict, "%s %d: %s", what, i, r.Detail)
			}
			r = verifyAnchored(t, f, verifier, anchor)
			require.Equal(t, want, r.Verdict, "%s %d, anchored: %s", what, i, r.Detail)
			require.EqualValues(t, at, r.At, "%s %d, anchored: %s", what, i, r.Detail)
		}
	}
	for i := range n {
		verdict := audit.Broken
		if i == n-1 {
			verdict = audit.Truncated
		}
		check("deleted", i, i, func(f *fixed) { f.rows = slices.Delete(f.rows, i, i+1) }, verdict)
		check("doubled", i, i+1, func(f *fixed) { f.rows = slices.Insert(f.rows, i, f.rows[i]) }, audit.Broken)
		check("cut after", i, i, func(f *fixed) { f.rows = f.rows[:i] }, audit.Truncated)
		for k := range i {
			check("swapped", i, k, func(f *fixed) { f.rows[i], f.rows[k] = f.rows[k], f.rows[i] }, audit.Broken)
		}
	}
}
