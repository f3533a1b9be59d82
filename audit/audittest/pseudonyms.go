package audittest

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// findsPseudonyms holds a store to [audit.Finder], if it is one.
func findsPseudonyms(t require.TestingT, ctx context.Context, s audit.Store) {
	f, ok := s.(audit.Finder)
	if !ok {
		return
	}
	all := rows(t, ctx, 12)
	of := func(i int, client, name, value string) audit.Pseudonym {
		k := all[i].Keys
		return audit.Pseudonym{Tenant: k.Tenant, Event: k.Event, Outcome: k.Outcome, Client: client, Name: name, Value: []byte(value)}
	}
	list := []audit.Pseudonym{of(1, "a", "phone", "p1"), of(1, "a", "phone", "p1"), of(2, "a", "phone", "p2"), of(3, "b", "phone", "p1"), of(4, "b", "mail", "p1"), of(5, "a", "phone", "p1")}
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: all, Pseudonyms: list}))
	find := func(q audit.Query, values ...string) (found []int64) {
		q.Tenant, q.Limit = "acme", 2
		if q.Private.Name == "" {
			q.Private.Name = "phone"
		}
		for _, v := range values {
			q.Pseudonyms = append(q.Pseudonyms, []byte(v))
		}
		for {
			page, err := s.Find(ctx, q)
			require.NoError(t, err)
			for _, r := range page {
				require.True(t, len(found) == 0 || r.Seq < found[len(found)-1], "entry %d after %v", r.Seq, found)
				found = append(found, r.Seq)
			}
			if len(page) < q.Limit {
				return found
			}
			q.Before = page[len(page)-1].Seq
		}
	}
	require.Equal(t, []int64{5, 3, 1}, find(audit.Query{}, "p1"))
	require.Equal(t, []int64{5, 3, 2, 1}, find(audit.Query{}, "p0", "p1", "p2"))
	require.Equal(t, []int64{4}, find(audit.Query{Private: crmguard.Private{Name: "mail"}}, "p1"))
	require.Equal(t, []int64{5, 3, 1}, find(audit.Query{Action: all[1].Keys.Action}, "p1"))
	require.Equal(t, []int64{5}, find(audit.Query{Subject: all[5].Keys.Subject, Record: all[5].Keys.Record}, "p1"))
	require.Empty(t, find(audit.Query{}, "p9"))

	k := all[5].Keys
	require.NoError(t, f.SetPseudonyms(ctx, k.Tenant, k.Event, k.Outcome, []audit.Pseudonym{of(5, "a", "phone", "p7")}))
	require.Equal(t, []int64{3, 1}, find(audit.Query{}, "p1"))
	require.Equal(t, []int64{5}, find(audit.Query{}, "p7"))
	n, err := f.DropPseudonyms(ctx, "other", "a")
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = f.DropPseudonyms(ctx, k.Tenant, "a")
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.Equal(t, []int64{3}, find(audit.Query{}, "p1", "p2", "p7"))
	n, err = f.DropPseudonyms(ctx, k.Tenant, "a")
	require.NoError(t, err)
	require.Zero(t, n, "they are gone")
}
