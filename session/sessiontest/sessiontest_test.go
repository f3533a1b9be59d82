package sessiontest

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/session"
)

// Each store here breaks one promise. The suite must notice by the rule that is
// named, which shows that the rule looks.
func TestSuiteNoticesFaults(t *testing.T) {
	for _, tc := range []struct {
		rule  string
		fault func() session.Store
	}{
		{"what does not exist is not found", func() session.Store { return &findsAnything{session.NewMemory()} }},
		{"what was started comes back in every field", func() session.Store { return &forgetsScopes{session.NewMemory()} }},
		{"Start needs the person exactly as stored, and open", func() session.Store { return &startsAnybody{session.NewMemory()} }},
		{"Start keeps the newest sessions of the person only", func() session.Store { return &keepsAll{session.NewMemory()} }},
		{"many that Start leave as many as are kept", func() session.Store { return &keepsAll{session.NewMemory()} }},
		{"Start removes ended sessions, a bounded number", func() session.Store { return &neverSweeps{session.NewMemory()} }},
		{"Swap changes what a use and a proof change, for the right verifier only", func() session.Store { return &swapsAny{session.NewMemory()} }},
		{"Swap changes what a use and a proof change, for the right verifier only", func() session.Store { return &forgetsProof{session.NewMemory()} }},
		{"Swap with nil removes, whatever the row holds", func() session.Store { return &removesVerified{session.NewMemory()} }},
		{"what a caller changes afterwards is not stored", func() session.Store { return &sharesScopes{Memory: session.NewMemory()} }},
		{"of many that Swap one verifier, one wins", func() session.Store { return &swapsAny{session.NewMemory()} }},
		{"of many that remove one session, one wins", func() session.Store { return newRemovesLate() }},
		{"Change replaces the person exactly as expected", func() session.Store { return &changesAny{session.NewMemory()} }},
		{"of many that make a person, one wins", func() session.Store { return newCreatesLate() }},
		{"of many that Change a person, one wins", func() session.Store { return &changesAny{session.NewMemory()} }},
		{"Change removes the sessions of this person only", func() session.Store { return &leavesRows{session.NewMemory()} }},
		{"no session started before Change is there after it", func() session.Store { return &leavesRows{session.NewMemory()} }},
		{"no token lives after ClosePerson has returned", func() session.Store { return &deafToChange{session.NewMemory()} }},
		{"the tenant's own state, of the empty person, is one like others", func() session.Store { return &emptyIsAll{session.NewMemory()} }},
		{"of many that raise a session, one gets a token, the only good one", func() session.Store { return newSwapsLate() }},
		{"of many that raise a session, one gets a token, the only good one", func() session.Store { return &forgetsProof{session.NewMemory()} }},
		{"a tenant is locked down when the last LockDown has returned", func() session.Store { return &deafToChange{session.NewMemory()} }},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			for _, r := range rules {
				if r.name == tc.rule {
					passes := func(s session.Store) bool {
						return racetest.Passes(func(inner require.TestingT) { r.check(t.Context(), inner, s) })
					}
					faulty := tc.fault()
					require.True(t, passes(session.NewMemory()), "the store without fault passes")
					require.False(t, passes(faulty), "%T passes", faulty)
					return
				}
			}
			t.Fatal("no such rule")
		})
	}
}

type findsAnything struct{ *session.Memory }

func (s *findsAnything) Session(ctx context.Context, id string) (session.Row, session.Person, error) {
	r, p, _ := s.Memory.Session(ctx, id)
	return r, p, nil
}

type forgetsScopes struct{ *session.Memory }

func (s *forgetsScopes) Session(ctx context.Context, id string) (session.Row, session.Person, error) {
	r, p, err := s.Memory.Session(ctx, id)
	if len(r.Scopes) == 0 {
		r.Scopes = nil
	}
	return r, p, err
}

type startsAnybody struct{ *session.Memory }

func (s *startsAnybody) Start(ctx context.Context, p session.Person, r session.Row, keep int) (bool, error) {
	p, _, err := s.Person(ctx, p.Tenant, p.ID)
	if err != nil {
		return false, err
	}
	return s.Memory.Start(ctx, p, r, keep)
}

type keepsAll struct{ *session.Memory }

func (s *keepsAll) Start(ctx context.Context, p session.Person, r session.Row, _ int) (bool, error) {
	return s.Memory.Start(ctx, p, r, 1<<30)
}

type neverSweeps struct{ *session.Memory }

func (s *neverSweeps) Start(ctx context.Context, p session.Person, r session.Row, keep int) (bool, error) {
	r.Started = noon
	return s.Memory.Start(ctx, p, r, keep)
}

type swapsAny struct{ *session.Memory }

func (s *swapsAny) Swap(ctx context.Context, id string, _ session.MAC, next *session.Row) (bool, error) {
	r, _, err := s.Session(ctx, id)
	if err != nil {
		return false, nil
	}
	return s.Memory.Swap(ctx, id, r.Verifier, next)
}

// forgetsProof keeps of a new row what a use changes only.
type forgetsProof struct{ *session.Memory }

func (s *forgetsProof) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	r, _, err := s.Session(ctx, id)
	if err != nil || next == nil {
		return s.Memory.Swap(ctx, id, verifier, next)
	}
	kept := *next
	kept.Assurance, kept.AuthenticatedAt = r.Assurance, r.AuthenticatedAt
	return s.Memory.Swap(ctx, id, verifier, &kept)
}

// emptyIsAll takes the empty person for a wildcard, as some queries are built.
type emptyIsAll struct{ *session.Memory }

func (s *emptyIsAll) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	ended, changed, err := s.Memory.Change(ctx, old, next)
	if err == nil && changed && old.ID == "" {
		p, _, _ := s.Person(ctx, old.Tenant, "anna")
		n, _, err := s.Memory.Change(ctx, p, p)
		return ended + n, changed, err
	}
	return ended, changed, err
}

// removesVerified asks for the verifier, which a planted row may not even have.
type removesVerified struct{ *session.Memory }

func (s *removesVerified) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	r, _, err := s.Session(ctx, id)
	if err != nil || !bytes.Equal(r.Verifier, verifier) {
		return false, nil
	}
	return s.Memory.Swap(ctx, id, verifier, next)
}

type sharesScopes struct {
	*session.Memory
	scopes []string
}

func (s *sharesScopes) Start(ctx context.Context, p session.Person, r session.Row, keep int) (bool, error) {
	s.scopes = r.Scopes
	return s.Memory.Start(ctx, p, r, keep)
}

func (s *sharesScopes) Session(ctx context.Context, id string) (session.Row, session.Person, error) {
	r, p, err := s.Memory.Session(ctx, id)
	r.Scopes = s.scopes
	return r, p, err
}

type changesAny struct{ *session.Memory }

func (s *changesAny) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	for {
		p, _, err := s.Person(ctx, old.Tenant, old.ID)
		if err != nil {
			return 0, false, err
		}
		if ended, changed, err := s.Memory.Change(ctx, p, next); changed || err != nil {
			return ended, changed, err
		}
	}
}

type leavesRows struct{ *session.Memory }

func (s *leavesRows) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	_, rows, err := s.Person(ctx, old.Tenant, old.ID)
	if err != nil {
		return 0, false, err
	}
	ended, changed, err := s.Memory.Change(ctx, old, next)
	// Puts the rows back, as if Change had not removed them.
	open := next
	open.Closed, open.Epoch = false, next.Epoch+1
	if _, _, err := s.Memory.Change(ctx, next, open); err != nil {
		return 0, false, err
	}
	for _, r := range append(rows, row(old, 0)) {
		if _, err := s.Start(ctx, open, r, 1000); err != nil {
			return 0, false, err
		}
	}
	return ended, changed, err
}

// deafToChange says that it changed a person and did not.
type deafToChange struct{ *session.Memory }

func (s *deafToChange) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	if old.Epoch == 0 {
		return s.Memory.Change(ctx, old, next)
	}
	return 0, true, nil
}

// A store that reads and writes in two statements: everybody looks before
// anybody acts.
type createsLate struct {
	*session.Memory
	looked sync.WaitGroup
}

func (s *createsLate) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	p, _, err := s.Person(ctx, old.Tenant, old.ID)
	if err != nil || !p.Equal(old) {
		return 0, false, err
	}
	s.looked.Done()
	s.looked.Wait()
	p, _, err = s.Person(ctx, old.Tenant, old.ID)
	if err != nil {
		return 0, false, err
	}
	_, _, err = s.Memory.Change(ctx, p, next)
	return 0, true, err
}

type removesLate struct {
	*session.Memory
	looked sync.WaitGroup
}

func (s *removesLate) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	r, _, err := s.Session(ctx, id)
	if err != nil {
		return false, err
	}
	s.looked.Done()
	s.looked.Wait()
	_, err = s.Memory.Swap(ctx, id, verifier, next)
	return bytes.Equal(r.Verifier, verifier), err
}

// swapsLate looks at no verifier, and swaps when everybody has read the row.
type swapsLate struct {
	swapsAny
	tries  atomic.Int64
	looked sync.WaitGroup
}

func (s *swapsLate) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	if s.tries.Add(1) <= racetest.Racers { // who tries again need not wait
		s.looked.Done()
		s.looked.Wait()
	}
	return s.swapsAny.Swap(ctx, id, verifier, next)
}

func newSwapsLate() *swapsLate {
	s := &swapsLate{swapsAny: swapsAny{session.NewMemory()}}
	s.looked.Add(racetest.Racers)
	return s
}

func newCreatesLate() *createsLate {
	s := &createsLate{Memory: session.NewMemory()}
	s.looked.Add(racetest.Racers)
	return s
}

func newRemovesLate() *removesLate {
	s := &removesLate{Memory: session.NewMemory()}
	s.looked.Add(racetest.Racers)
	return s
}
