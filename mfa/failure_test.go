package mfa

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// failing is a store of which one method fails.
type failing struct {
	Store
	method string
}

var errDown = errors.New("database down")

func (s *failing) Load(ctx context.Context, tenant, person string) (Person, []Row, error) {
	if s.method == "Load" {
		return Person{}, nil, errDown
	}
	return s.Store.Load(ctx, tenant, person)
}

func (s *failing) Attempt(ctx context.Context, tenant, person string, old, next Budget) (bool, error) {
	if s.method == "Attempt" {
		return false, errDown
	}
	return s.Store.Attempt(ctx, tenant, person, old, next)
}

func (s *failing) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	if s.method == "Advance" {
		return false, errDown
	}
	return s.Store.Advance(ctx, tenant, person, id, step)
}

func (s *failing) Change(ctx context.Context, old, next Person, put []Row, remove []string) (bool, error) {
	if s.method == "Change" {
		return false, errDown
	}
	return s.Store.Change(ctx, old, next, put, remove)
}

func (s *failing) Clear(ctx context.Context, next Person) (int, error) {
	if s.method == "Clear" {
		return 0, errDown
	}
	return s.Store.Clear(ctx, next)
}

// What cannot be decided is refused as such, and is nobody's failure.
func TestBrokenStoreDecidesNothing(t *testing.T) {
	for _, method := range []string{"Load", "Attempt", "Advance", "Change", "Clear"} {
		r, ctx := newRig(t), t.Context()
		p := r.enrolled(t, "anna")
		codes, err := r.ReplaceRecovery(ctx, "acme", "anna")
		require.NoError(t, err)
		broken := &failing{r.store, method}
		r.Factors.store = broken
		for range 20 {
			var errs []error
			switch method {
			case "Load", "Attempt", "Advance":
				errs = []error{r.Verify(ctx, "acme", "anna", p.code(t)), r.Recover(ctx, "acme", "anna", codes.Show()[0])}
			case "Change":
				_, enrolErr := r.Enrol(ctx, "acme", "anna", "anna")
				_, replaceErr := r.ReplaceRecovery(ctx, "acme", "anna")
				errs = []error{enrolErr, replaceErr, r.Remove(ctx, "acme", "anna", p.id)}
			case "Clear":
				_, err := r.Revoke(ctx, "acme", "anna")
				errs = []error{err}
			}
			for _, err := range errs {
				require.ErrorIs(t, err, errDown, method)
				_, denied := errors.AsType[*crmguard.Denial](err)
				require.False(t, denied, method)
			}
		}
		broken.method = ""
		require.NoError(t, r.Verify(ctx, "acme", "anna", p.code(t)), "%s: nothing was counted or used", method)
	}
}

func TestBrokenKeysDecideNothing(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	p := r.enrolled(t, "anna")
	codes, err := r.ReplaceRecovery(ctx, "acme", "anna")
	require.NoError(t, err)
	r.keys.Fail(errDown)
	for range 20 {
		_, hasErr := r.Has(ctx, "acme", "anna")
		_, enrolErr := r.Enrol(ctx, "acme", "anna", "anna")
		_, revokeErr := r.Revoke(ctx, "acme", "anna")
		for _, err := range []error{
			hasErr, enrolErr, revokeErr,
			r.Verify(ctx, "acme", "anna", p.code(t)),
			r.Recover(ctx, "acme", "anna", codes.Show()[0]),
			r.Confirm(ctx, "acme", "anna", p.id, p.code(t)),
		} {
			require.ErrorIs(t, err, errDown)
			_, denied := errors.AsType[*crmguard.Denial](err)
			require.False(t, denied)
		}
	}
	r.keys.Fail(nil)
	require.NoError(t, r.Verify(ctx, "acme", "anna", p.code(t)))
	require.NoError(t, r.Recover(ctx, "acme", "anna", codes.Show()[0]))
}

// When the caller goes away after a code was accepted, the attempt is given back
// all the same.
func TestAttemptIsGivenBackAfterTheCallerLeft(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	ctx, cancel := context.WithCancel(t.Context())
	r.Factors.store = &cancels{r.store, cancel}
	require.NoError(t, r.Verify(ctx, "acme", "anna", p.code(t)))
	require.Error(t, ctx.Err())
	stored, _, err := r.store.Load(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, r.clock.Now(), stored.Budget.Empty)
}

type cancels struct {
	*Memory
	cancel context.CancelFunc
}

func (s *cancels) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	s.cancel()
	return s.Memory.Advance(ctx, tenant, person, id, step)
}

func (s *cancels) Attempt(ctx context.Context, tenant, person string, old, next Budget) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return s.Memory.Attempt(ctx, tenant, person, old, next)
}
