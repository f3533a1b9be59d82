package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// In an outage in which nothing can be kept, counts are added up, not entries.
func TestGapsAreAddedUp(t *testing.T) {
	var g gaps
	now := time.Now()
	total := 0
	for range 100 {
		for person := range 50 {
			e := crmguard.Event{Action: crmguard.View, Outcome: crmguard.Done, Subject: crmguard.Subject{ID: fmt.Sprint(person), Kind: crmguard.KindEmployee}}
			require.True(t, g.add("acme", &e, 1, now))
			total++
		}
		require.Len(t, g.take(now, false), 50)
		now = now.Add(time.Minute)
	}
	require.Equal(t, 99*time.Minute, g.age(now.Add(-time.Minute)), "since the first of them")
	require.Equal(t, total, g.total())
	require.Len(t, g.take(now, true), 100)
	require.Equal(t, total, g.total())
}
