package crmguardtest_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crmguardtest"
)

var anna = crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}

var card = crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17"}

func ExampleKeys() {
	ctx := crmguard.WithSubject(context.Background(), anna)
	keys := crmguardtest.NewKeys()
	at := crmguard.Place{Tenant: "acme", Client: "17", Kind: "contacts", Record: "17", Field: "phone"}
	sealed, err := keys.Seal(ctx, at, []byte("+44 20 7946 0018"))
	if err != nil {
		fmt.Println(err)
		return
	}
	plain, err := keys.Open(ctx, at, sealed)
	fmt.Println(string(plain), err)

	keys.Erase("acme", "17")
	_, err = keys.Open(ctx, at, sealed)
	fmt.Println(errors.Is(err, crmguard.ErrErased))
	// Output:
	// +44 20 7946 0018 <nil>
	// true
}

func ExampleRecorder() {
	ctx := context.Background()
	journal := crmguardtest.NewRecorder()
	event := crmguard.Event{Subject: anna, Action: crmguard.View, Resource: card, Outcome: crmguard.Done}
	fmt.Println(journal.Record(ctx, event))
	journal.Fail(errors.New("disk full"))
	fmt.Println(journal.Record(ctx, event))
	for _, e := range journal.Events() {
		fmt.Println(e.Subject.ID, e.Action, e.Resource.ID, e.Outcome)
	}
	// Output:
	// <nil>
	// disk full
	// anna view 17 done
}

func ExampleChecker() {
	ctx := context.Background()
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	fmt.Println(rights.Check(ctx, anna, crmguard.View, card))
	fmt.Println(rights.Check(ctx, anna, crmguard.Delete, card))
	fmt.Println(len(rights.Calls()), rights.Calls()[1].Action)
	// Output:
	// <nil>
	// crmguard: denied by crmguardtest: not-listed
	// 2 delete
}

func ExampleAllow() {
	ctx := context.Background()
	fmt.Println(crmguardtest.Allow().Check(ctx, anna, crmguard.Export, card))
	fmt.Println(crmguardtest.Deny("closed").Check(ctx, anna, crmguard.View, card))
	// Output:
	// <nil>
	// crmguard: denied by crmguardtest: closed
}

func ExampleClock() {
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	clock.Advance(31 * time.Minute)
	fmt.Println(clock.Now().Format(time.TimeOnly))
	// Output: 09:31:00
}

var place = crmguard.Place{Tenant: "acme", Client: "17", Kind: "contacts", Record: "18", Field: "phone"}

// elsewhere is every place that differs from place in one part, and some in which
// text moved from one part into the next.
func elsewhere() map[string]crmguard.Place {
	places := map[string]crmguard.Place{}
	for name, change := range map[string]func(*crmguard.Place){
		"tenant": func(p *crmguard.Place) { p.Tenant = "other" },
		"client": func(p *crmguard.Place) { p.Client = "18" },
		"kind":   func(p *crmguard.Place) { p.Kind = "deals" },
		"record": func(p *crmguard.Place) { p.Record = "17" },
		"field":  func(p *crmguard.Place) { p.Field = "email" },
		"moved":  func(p *crmguard.Place) { p.Kind, p.Record = "contacts1", "8" },
		"split":  func(p *crmguard.Place) { p.Record, p.Field = "18phone", "" },
	} {
		p := place
		change(&p)
		places[name] = p
	}
	return places
}

func in(t *testing.T, tenant string) context.Context {
	s := anna
	s.Tenant = tenant
	return crmguard.WithSubject(t.Context(), s)
}

func TestKeysBindThePlace(t *testing.T) {
	keys := crmguardtest.NewKeys()
	ctx := in(t, "acme")
	sealed, err := keys.Seal(ctx, place, []byte("secret"))
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "secret")
	mac, err := keys.MAC(ctx, place, []byte("row"))
	require.NoError(t, err)
	require.NoError(t, keys.Verify(ctx, place, []byte("row"), mac))
	require.ErrorIs(t, keys.Verify(ctx, place, []byte("rowx"), mac), crmguard.ErrMAC)
	require.ErrorIs(t, keys.Verify(ctx, place, []byte("row"), nil), crmguard.ErrMAC)
	for name, other := range elsewhere() {
		_, err = keys.Open(in(t, other.Tenant), other, sealed)
		require.Error(t, err, name)
		require.ErrorIs(t, keys.Verify(in(t, other.Tenant), other, []byte("row"), mac), crmguard.ErrMAC, name)
	}
	for i := range sealed {
		changed := append([]byte{}, sealed...)
		changed[i] ^= 1
		_, err = keys.Open(ctx, place, changed)
		require.Error(t, err, i)
		_, err = keys.Open(ctx, place, sealed[:i])
		require.Error(t, err, i)
	}
	plain, err := keys.Open(ctx, place, sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(plain))
	_, err = crmguardtest.NewKeys().Open(ctx, place, sealed)
	require.Error(t, err, "other keys")
}

func TestKeysWantASubjectForClients(t *testing.T) {
	keys := crmguardtest.NewKeys()
	sealed, err := keys.Seal(t.Context(), place, []byte("secret"))
	require.NoError(t, err)
	_, err = keys.Open(t.Context(), place, sealed)
	require.Error(t, err)
	_, err = keys.Open(in(t, "other"), place, sealed)
	require.Error(t, err)
	_, err = keys.Open(crmguard.System(t.Context(), "acme", "reindex"), place, sealed)
	require.NoError(t, err)

	credential := crmguard.Place{Tenant: "acme", Kind: "accounts", Record: "anna", Field: "password"}
	sealed, err = keys.Seal(t.Context(), credential, []byte("secret"))
	require.NoError(t, err)
	_, err = keys.Open(t.Context(), credential, sealed)
	require.NoError(t, err, "a place without a client needs nobody")
}

func TestKeysRefuseSubjectsOfOtherTenants(t *testing.T) {
	keys := crmguardtest.NewKeys()
	credential := crmguard.Place{Tenant: "acme", Kind: "accounts", Record: "anna", Field: "password"}
	for _, at := range []crmguard.Place{place, credential} {
		sealed, err := keys.Seal(in(t, "acme"), at, []byte("secret"))
		require.NoError(t, err)
		mac, err := keys.MAC(in(t, "acme"), at, []byte("row"))
		require.NoError(t, err)
		for name, call := range map[string]func(ctx context.Context) error{
			"Seal":       func(ctx context.Context) error { _, err := keys.Seal(ctx, at, nil); return err },
			"Open":       func(ctx context.Context) error { _, err := keys.Open(ctx, at, sealed); return err },
			"MAC":        func(ctx context.Context) error { _, err := keys.MAC(ctx, at, nil); return err },
			"Verify":     func(ctx context.Context) error { return keys.Verify(ctx, at, []byte("row"), mac) },
			"Pseudonyms": func(ctx context.Context) error { _, err := keys.Pseudonyms(ctx, at, nil); return err },
		} {
			require.NoError(t, call(in(t, "acme")), name)
			err := call(in(t, "other"))
			require.Error(t, err, name)
			require.NotErrorIs(t, err, crmguard.ErrMAC, name)
			if at.Client == "" {
				require.NoError(t, call(t.Context()), "%s needs nobody", name)
				require.NoError(t, call(crmguard.WithSubject(t.Context(), crmguard.Subject{})), "%s while somebody signs in", name)
			}
		}
	}
}

func TestKeysErase(t *testing.T) {
	keys := crmguardtest.NewKeys()
	ctx := in(t, "acme")
	keys.Erase("acme", "17")
	_, err := keys.Seal(ctx, place, nil)
	require.ErrorIs(t, err, crmguard.ErrErased)
	other := place
	other.Client = "18"
	_, err = keys.Seal(ctx, other, nil)
	require.NoError(t, err)
}

func TestPseudonyms(t *testing.T) {
	keys := crmguardtest.NewKeys()
	get := func(at crmguard.Place, value string) string {
		list, err := keys.Pseudonyms(t.Context(), at, []byte(value))
		require.NoError(t, err)
		require.Len(t, list, 1)
		return string(list[0])
	}
	same := place
	same.Client, same.Record = "99", "98"
	require.Equal(t, get(place, "a"), get(same, "a"), "client and record do not count")
	require.NotEqual(t, get(place, "a"), get(place, "b"))
	for _, name := range []string{"tenant", "kind", "field"} {
		require.NotEqual(t, get(place, "a"), get(elsewhere()[name], "a"), name)
	}
	keys.Erase("acme", "17")
	require.NotEmpty(t, get(place, "a"), "searching for an erased client finds nothing, without an error")
}

func TestKeysRefuseAndFail(t *testing.T) {
	down := errors.New("down")
	for name, call := range map[string]func(k *crmguardtest.Keys, at crmguard.Place) error{
		"Seal": func(k *crmguardtest.Keys, at crmguard.Place) error {
			_, err := k.Seal(in(t, "acme"), at, nil)
			return err
		},
		"Open": func(k *crmguardtest.Keys, at crmguard.Place) error {
			_, err := k.Open(in(t, "acme"), at, nil)
			return err
		},
		"MAC":    func(k *crmguardtest.Keys, at crmguard.Place) error { _, err := k.MAC(t.Context(), at, nil); return err },
		"Verify": func(k *crmguardtest.Keys, at crmguard.Place) error { return k.Verify(t.Context(), at, nil, nil) },
		"Pseudonyms": func(k *crmguardtest.Keys, at crmguard.Place) error {
			_, err := k.Pseudonyms(t.Context(), at, nil)
			return err
		},
	} {
		keys := crmguardtest.NewKeys()
		require.Error(t, call(keys, crmguard.Place{Kind: "contacts"}), "%s without a tenant", name)
		keys.Fail(down)
		require.ErrorIs(t, call(keys, place), down, name)
		require.NotErrorIs(t, call(keys, place), crmguard.ErrMAC, "%s: nothing was looked at", name)
		keys.Fail(nil)
		require.NotErrorIs(t, call(keys, place), down, name)
	}
}

func TestKeysRedactThemselves(t *testing.T) {
	keys := crmguardtest.NewKeys()
	require.Equal(t, "crmguardtest.Keys crmguardtest.Keys crmguardtest.Keys", fmt.Sprintf("%v %+v %#v", keys, keys, keys))
}

func TestRecorderIsIdempotent(t *testing.T) {
	journal := crmguardtest.NewRecorder()
	event := crmguard.Event{ID: "1", Subject: anna, Action: crmguard.View, Resource: card, Outcome: crmguard.Attempted}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _ = journal.Record(t.Context(), event) })
	}
	wg.Wait()
	require.Len(t, journal.Events(), 1)
	event.Outcome = crmguard.Done
	require.NoError(t, journal.Record(t.Context(), event))
	require.Len(t, journal.Events(), 2)
	event.ID = ""
	require.NoError(t, journal.Record(t.Context(), event))
	require.NoError(t, journal.Record(t.Context(), event))
	require.Len(t, journal.Events(), 4, "events without an ID are different ones")
	require.NotEmpty(t, journal.Events()[3].ID)

	// As in the journal, an ID belongs to its tenant.
	other := crmguard.Event{
		ID: "1", Subject: crmguard.Subject{Tenant: "other", ID: "eve", Kind: crmguard.KindEmployee},
		Action: crmguard.View, Resource: crmguard.Resource{Tenant: "other", Kind: "contacts"}, Outcome: crmguard.Done,
	}
	require.NoError(t, journal.Record(t.Context(), other))
	require.Len(t, journal.Events(), 5)
}

// Whatever events a host makes up, the stand-in takes those that the journal
// takes, and refuses the others.
func TestRecorderRefusesWhatTheJournalRefuses(t *testing.T) {
	signer, verifier, err := audit.OpenSigner(filepath.Join(t.TempDir(), "signer"), "crm.example/journal", true)
	require.NoError(t, err)
	journal, err := audit.New(t.Context(), audit.NewMemory(), crmguardtest.NewKeys(), signer, verifier, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, journal.Close()) }()
	standIn := crmguardtest.NewRecorder()

	taken, refused := 0, 0
	for _, tenant := range []string{"", "acme", "other"} {
		for _, id := range []string{"", "anna"} {
			for kind := range crmguard.KindSystem + 2 {
				for _, action := range []crmguard.Action{"", crmguard.View} {
					for _, on := range []string{"", "acme"} {
						for outcome := range crmguard.Undecided + 2 {
							for _, count := range []int{-1, 0, 50} {
								e := crmguard.Event{
									Subject: crmguard.Subject{Tenant: tenant, ID: id, Kind: kind}, Action: action,
									Resource: crmguard.Resource{Tenant: on, Kind: "contacts"}, Outcome: outcome, Count: count,
								}
								want, got := journal.Record(t.Context(), e), standIn.Record(t.Context(), e)
								require.Equal(t, want == nil, got == nil, "%+v: the journal says %v, the stand-in %v", e, want, got)
								if want == nil {
									taken++
								} else {
									refused++
								}
							}
						}
					}
				}
			}
		}
	}
	require.Len(t, standIn.Events(), taken)
	require.NotZero(t, taken)
	require.NotZero(t, refused)

	e := crmguard.Event{Subject: anna, Action: crmguard.View, Resource: card, Outcome: crmguard.Done}
	for name, private := range map[string][]crmguard.Private{
		"small":             {{Client: "17", Name: "phone", Value: make([]byte, 1000)}},
		"large":             {{Client: "17", Name: "file", Value: make([]byte, 70_000)}},
		"a long id":         {{Client: strings.Repeat("1", 1025), Name: "phone"}},
		"as long as may be": {{Client: strings.Repeat("1", 1024), Name: "phone"}},
		"many":              make([]crmguard.Private, 257),
		"not so many":       make([]crmguard.Private, 256),
	} {
		e.Private = private
		require.Equal(t, journal.Record(t.Context(), e) == nil, standIn.Record(t.Context(), e) == nil, name)
	}
	e.Private, e.Fields = nil, []string{strings.Repeat("x", 70_000)}
	require.NoError(t, journal.Record(t.Context(), e), "what is too long is cut")
	require.NoError(t, standIn.Record(t.Context(), e))
}

func TestCheckersRefuseForeignTenants(t *testing.T) {
	foreign := card
	foreign.Tenant = "other"
	for name, c := range map[string]crmguard.Checker{
		"list":  crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts"),
		"allow": crmguardtest.Allow(),
		"deny":  crmguardtest.Deny("no"),
	} {
		require.Error(t, c.Check(t.Context(), anna, crmguard.View, foreign), name)
		require.Error(t, c.Check(t.Context(), crmguard.Subject{}, crmguard.View, card), name)
	}
	denial, ok := errors.AsType[*crmguard.Denial](crmguardtest.Deny("closed").Check(t.Context(), anna, crmguard.View, card))
	require.True(t, ok)
	require.Equal(t, "closed", denial.Code)
}
