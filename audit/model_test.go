package audit_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// Random events, queries and restarts against a list that is searched from end to
// end.
func TestModel(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(r, err)
		var store audit.Store
		var file *audit.File
		memory := audit.NewMemory()
		onDisk := rapid.Bool().Draw(r, "file")
		keys := journaltest.NewSealer()
		var log *audit.Log
		reopen := func() {
			if log != nil {
				require.NoError(r, log.Close())
			}
			if file != nil {
				require.NoError(r, file.Close())
			}
			store = memory
			if onDisk {
				file, err = audit.OpenFile(dir)
				require.NoError(r, err)
				audit.SetMaxSegment(file, 1500)
				audit.SetSync(file, func(*os.File) error { return nil })
				store = file
			}
			log, err = audit.New(t.Context(), store, keys, signer, verifier, nil)
			require.NoError(r, err)
		}
		reopen()
		var model []crmguard.Event
		r.Repeat(map[string]func(*rapid.T){
			"record": func(r *rapid.T) {
				e := randomEvent(r)
				err := log.Record(t.Context(), e)
				same := func(o crmguard.Event) bool {
					return o.ID == e.ID && o.Outcome == e.Outcome && o.Subject.Tenant == e.Subject.Tenant
				}
				i := slices.IndexFunc(model, same)
				if i < 0 {
					require.NoError(r, err)
					model = append(model, e)
					return
				}
				if fmt.Sprint(model[i]) == fmt.Sprint(e) && slices.EqualFunc(model[i].Private, e.Private, func(a, b crmguard.Private) bool { return a.Client == b.Client }) {
					require.NoError(r, err)
					return
				}
				_, conflict := errors.AsType[*audit.ConflictError](err)
				require.True(r, conflict, "%v", err)
			},
			"find": func(r *rapid.T) {
				q := randomQuery(r)
				want := slowFind(model, q)
				var got []int64
				for {
					page, err := log.Find(t.Context(), q)
					require.NoError(r, err)
					for _, e := range page.Entries {
						got = append(got, e.Seq)
						require.Equal(r, model[e.Seq].ID, e.Event.ID)
						require.Equal(r, model[e.Seq].Resource, e.Event.Resource)
					}
					if page.Next == 0 {
						break
					}
					q.Before = page.Next
				}
				require.Equal(r, want, got, "%+v", q)
			},
			"restart": func(*rapid.T) { reopen() },
			"verify": func(r *rapid.T) {
				report, err := log.Verify(t.Context(), verifier, nil)
				require.NoError(r, err)
				require.True(r, report.OK(), report.Detail)
				require.EqualValues(r, len(model), report.Entries)
			},
		})
		require.NoError(r, log.Close())
		if file != nil {
			require.NoError(r, file.Close())
		}
	})
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func randomEvent(r *rapid.T) crmguard.Event {
	tenant := rapid.SampledFrom([]string{"acme", "other"}).Draw(r, "tenant")
	e := crmguard.Event{
		ID:       fmt.Sprint(rapid.IntRange(0, 30).Draw(r, "id")),
		Time:     noon.Add(time.Duration(rapid.IntRange(0, 5).Draw(r, "time")) * time.Second),
		Subject:  crmguard.Subject{Tenant: tenant, ID: rapid.SampledFrom([]string{"anna", "boris"}).Draw(r, "subject"), Kind: crmguard.KindEmployee},
		Action:   rapid.SampledFrom([]crmguard.Action{crmguard.View, crmguard.Export}).Draw(r, "action"),
		Resource: crmguard.Resource{Tenant: tenant, Kind: rapid.SampledFrom([]string{"contacts", "deals"}).Draw(r, "kind"), ID: rapid.SampledFrom([]string{"1", "2"}).Draw(r, "record")},
		Outcome:  rapid.SampledFrom([]crmguard.Outcome{crmguard.Attempted, crmguard.Done}).Draw(r, "outcome"),
	}
	for range rapid.IntRange(0, 2).Draw(r, "private") {
		e.Private = append(e.Private, crmguard.Private{Client: rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(r, "client"), Name: "old", Value: []byte("x")})
	}
	return e
}

func randomQuery(r *rapid.T) audit.Query {
	q := audit.Query{
		Tenant:  rapid.SampledFrom([]string{"acme", "other", "nobody"}).Draw(r, "q tenant"),
		Subject: rapid.SampledFrom([]string{"", "", "anna"}).Draw(r, "q subject"),
		Kind:    rapid.SampledFrom([]string{"", "", "deals"}).Draw(r, "q kind"),
		Record:  rapid.SampledFrom([]string{"", "", "2"}).Draw(r, "q record"),
		Client:  rapid.SampledFrom([]string{"", "", "c1"}).Draw(r, "q client"),
		Action:  rapid.SampledFrom([]crmguard.Action{"", "", crmguard.Export}).Draw(r, "q action"),
		Outcome: rapid.SampledFrom([]crmguard.Outcome{0, 0, crmguard.Done}).Draw(r, "q outcome"),
		Limit:   rapid.IntRange(1, 4).Draw(r, "q limit"),
		Before:  rapid.Int64Range(0, 20).Draw(r, "q before"),
	}
	if rapid.Bool().Draw(r, "q from") {
		q.From = noon.Add(2 * time.Second)
	}
	if rapid.Bool().Draw(r, "q to") {
		q.To = noon.Add(4 * time.Second)
	}
	return q
}

func slowFind(model []crmguard.Event, q audit.Query) (found []int64) {
	for seq, e := range slices.Backward(model) {
		client := slices.ContainsFunc(e.Private, func(p crmguard.Private) bool { return p.Client == q.Client })
		if e.Subject.Tenant == q.Tenant &&
			(q.Subject == "" || e.Subject.ID == q.Subject) &&
			(q.Kind == "" || e.Resource.Kind == q.Kind) &&
			(q.Record == "" || e.Resource.ID == q.Record) &&
			(q.Client == "" || client) &&
			(q.Action == "" || e.Action == q.Action) &&
			(q.Outcome == 0 || e.Outcome == q.Outcome) &&
			(q.From.IsZero() || !e.Time.Before(q.From)) &&
			(q.To.IsZero() || e.Time.Before(q.To)) &&
			(q.Before == 0 || int64(seq) < q.Before) {
			found = append(found, int64(seq))
		}
	}
	return found
}
