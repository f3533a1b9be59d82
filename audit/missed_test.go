package audit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// Of entries that retention removes together while they are recorded again, each is tried
// once more: that one was missed says nothing of another.
func TestEachMissedEntryIsTriedAgain(t *testing.T) {
	c := &committer{Log: &Log{store: NewMemory()}}
	items := make([]*item, 2)
	for i, id := range []string{"a", "b"} {
		items[i] = newItem(&content{tenant: "acme", event: crmguard.Event{ID: id}}, nil)
	}
	for _, it := range items {
		require.NoError(t, c.compare(t.Context(), it.id, items))
		require.False(t, it.known)
		require.NoError(t, it.err)
	}
	require.NoError(t, c.compare(t.Context(), items[0].id, items))
	require.True(t, items[0].known)
	require.ErrorAs(t, items[0].err, new(*ConflictError), "the second time")
	require.False(t, items[1].known)
}
