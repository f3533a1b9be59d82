package mfatest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/mfa"
)

// Each store here breaks one promise. The suite must notice by the rule that is
// named, which shows that the rule looks.
func TestSuiteNoticesFaults(t *testing.T) {
	for _, tc := range []struct {
		rule  string
		fault func() mfa.Store
	}{
		{"of whom nothing is known, nothing is loaded or changed", func() mfa.Store { return &takesAnybody{mfa.NewMemory()} }},
		{"what was put comes back in every field, in the order of ids", func() mfa.Store { return &backwards{mfa.NewMemory()} }},
		{"Change needs the person exactly as stored", func() mfa.Store { return &changesAny{mfa.NewMemory()} }},
		{"Change puts, replaces and removes what it is told, and nothing else", func() mfa.Store { return &keepsRows{mfa.NewMemory()} }},
		{"Change leaves the budget and the steps of other rows", func() mfa.Store { return &rewrites{mfa.NewMemory()} }},
		{"Attempt replaces exactly the budget that was expected", func() mfa.Store { return &takesAny{mfa.NewMemory()} }},
		{"of many wrong codes at once, no more than the free ones are compared", func() mfa.Store { return &forgetsAttempts{mfa.NewMemory()} }},
		{"Advance goes forward only", func() mfa.Store { return &goesBack{mfa.NewMemory()} }},
		{"Advance moves active rows only", func() mfa.Store { return &movesPending{mfa.NewMemory()} }},
		{"Advance moves the row of this person only", func() mfa.Store { return &movesOthers{mfa.NewMemory()} }},
		{"Clear removes everything of this person only, whatever is stored", func() mfa.Store { return &clearsIfNewer{mfa.NewMemory()} }},
		{"of many that Advance to one step, one does", func() mfa.Store { return newAdvancesLate() }},
		{"of many with one code, one is let in", func() mfa.Store { return &goesBack{mfa.NewMemory()} }},
		{"of many with one recovery code, one is let in", func() mfa.Store { return &goesBack{mfa.NewMemory()} }},
		{"of many that take the same Attempt, one does", func() mfa.Store { return newTakesLate() }},
		{"of many that Change a person, one does", func() mfa.Store { return newChangesLate() }},
		{"of many that Change a person without a row, one does", func() mfa.Store { return newChangesLate() }},
		{"of many that confirm an app, one does", func() mfa.Store { return &forgetsToChange{mfa.NewMemory()} }},
		{"no row advances after Change has removed it", func() mfa.Store { return &keepsRows{mfa.NewMemory()} }},
		{"no recovery code is good after ReplaceRecovery has returned", func() mfa.Store { return &keepsOldCodes{mfa.NewMemory()} }},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			for _, r := range rules {
				if r.name == tc.rule {
					passes := func(s mfa.Store) bool {
						return racetest.Passes(func(inner require.TestingT) { r.check(t.Context(), inner, s) })
					}
					faulty := tc.fault()
					require.True(t, passes(mfa.NewMemory()), "the store without fault passes")
					require.False(t, passes(faulty), "%T passes", faulty)
					return
				}
			}
			t.Fatal("no such rule")
		})
	}
	require.Len(t, rules, 20, "each rule is broken above")
}

type takesAnybody struct{ *mfa.Memory }

func (s *takesAnybody) Attempt(ctx context.Context, tenant, person string, old, next mfa.Budget) (bool, error) {
	p, _, err := s.Load(ctx, tenant, person)
	if err != nil || p.Version == 0 {
		return err == nil, err
	}
	return s.Memory.Attempt(ctx, tenant, person, old, next)
}

type backwards struct{ *mfa.Memory }

func (s *backwards) Load(ctx context.Context, tenant, person string) (mfa.Person, []mfa.Row, error) {
	p, rows, err := s.Memory.Load(ctx, tenant, person)
	rows = slices.Clone(rows)
	slices.Reverse(rows)
	return p, rows, err
}

type changesAny struct{ *mfa.Memory }

func (s *changesAny) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	p, _, err := s.Load(ctx, old.Tenant, old.ID)
	if err != nil {
		return false, err
	}
	return s.Memory.Change(ctx, p, next, put, remove)
}

type keepsRows struct{ *mfa.Memory }

func (s *keepsRows) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, _ []string) (bool, error) {
	return s.Memory.Change(ctx, old, next, put, nil)
}

// rewrites puts all rows back as the caller had loaded them once.
type rewrites struct{ *mfa.Memory }

func (s *rewrites) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	_, rows, err := s.Load(ctx, old.Tenant, old.ID)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		r.Step = 7
		put = append(put, r)
	}
	return s.Memory.Change(ctx, old, next, put, remove)
}

type takesAny struct{ *mfa.Memory }

func (s *takesAny) Attempt(ctx context.Context, tenant, person string, _, next mfa.Budget) (bool, error) {
	p, _, err := s.Load(ctx, tenant, person)
	if err != nil {
		return false, err
	}
	_, err = s.Memory.Attempt(ctx, tenant, person, p.Budget, next)
	return true, err
}

type forgetsAttempts struct{ *mfa.Memory }

func (s *forgetsAttempts) Attempt(context.Context, string, string, mfa.Budget, mfa.Budget) (bool, error) {
	return true, nil
}

type goesBack struct{ *mfa.Memory }

func (s *goesBack) Advance(context.Context, string, string, string, int64) (bool, error) {
	return true, nil
}

type movesPending struct{ *mfa.Memory }

func (s *movesPending) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	_, rows, err := s.Load(ctx, tenant, person)
	for _, r := range rows {
		if r.ID == id {
			return r.Step < step, err
		}
	}
	return false, err
}

type movesOthers struct{ *mfa.Memory }

func (s *movesOthers) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	_, err := s.Memory.Advance(ctx, tenant, "boris", id, step)
	if err != nil {
		return false, err
	}
	return s.Memory.Advance(ctx, tenant, person, id, step)
}

type clearsIfNewer struct{ *mfa.Memory }

func (s *clearsIfNewer) Clear(ctx context.Context, next mfa.Person) (int, error) {
	p, _, err := s.Load(ctx, next.Tenant, next.ID)
	if err != nil || p.Version > next.Version {
		return 0, err
	}
	return s.Memory.Clear(ctx, next)
}

// forgetsToChange says that it changed a person with a row and did not.
type forgetsToChange struct{ *mfa.Memory }

func (s *forgetsToChange) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	if old.Version > 0 {
		return true, nil
	}
	return s.Memory.Change(ctx, old, next, put, remove)
}

// keepsOldCodes says that it replaced rows and did not.
type keepsOldCodes struct{ *mfa.Memory }

func (s *keepsOldCodes) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	if len(remove) > 0 {
		return true, nil
	}
	return s.Memory.Change(ctx, old, next, put, remove)
}

// Stores that read and write in two statements: everybody looks before anybody
// acts.
type late struct {
	*mfa.Memory
	looked sync.WaitGroup
}

func (s *late) wait() {
	s.looked.Done()
	s.looked.Wait()
}

type advancesLate struct{ late }

func (s *advancesLate) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	_, rows, err := s.Load(ctx, tenant, person)
	if err != nil || len(rows) != 1 {
		return false, errors.Join(err, errors.New("want one row"))
	}
	ok := rows[0].Active && rows[0].Step < step
	s.wait()
	_, err = s.Memory.Advance(ctx, tenant, person, id, step)
	return ok, err
}

type takesLate struct{ late }

func (s *takesLate) Attempt(ctx context.Context, tenant, person string, old, next mfa.Budget) (bool, error) {
	p, _, err := s.Load(ctx, tenant, person)
	s.wait()
	return p.Budget == old, err
}

type changesLate struct{ late }

func (s *changesLate) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	if len(put) == 0 { // the rule prepares
		return s.Memory.Change(ctx, old, next, put, remove)
	}
	p, _, err := s.Load(ctx, old.Tenant, old.ID)
	s.wait()
	return p.Equal(old), err
}

func newAdvancesLate() *advancesLate {
	s := &advancesLate{late{Memory: mfa.NewMemory()}}
	s.looked.Add(racetest.Racers)
	return s
}

func newTakesLate() *takesLate {
	s := &takesLate{late{Memory: mfa.NewMemory()}}
	s.looked.Add(racetest.Racers)
	return s
}

func newChangesLate() *changesLate {
	s := &changesLate{late{Memory: mfa.NewMemory()}}
	s.looked.Add(racetest.Racers)
	return s
}
