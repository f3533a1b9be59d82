package app

import (
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// TestOwnersCloseEachOther: of the last two owners one stays, however close
// together they press the button.
func TestOwnersCloseEachOther(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		for range 4 {
			secret, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "owner"})
			require.NoError(t, err)
			anna, owner := in.browser(), in.signedIn("owner")
			status, _ := anna.post("/sign-in", "login", "anna", "password", secret)
			require.Equal(t, http.StatusOK, status)
			var both sync.WaitGroup
			both.Go(func() { anna.post("/staff/owner/dismiss") })
			both.Go(func() { owner.post("/staff/anna/dismiss") })
			both.Wait()
			open, err := in.app.openOwners(t.Context())
			require.NoError(t, err)
			require.Len(t, open, 1)

			// Everything as before, past the CRM.
			ctx := t.Context()
			_, err = in.app.db.ExecContext(ctx, `DELETE FROM accounts WHERE id = 'anna'`)
			require.NoError(t, err)
			require.NoError(t, in.app.sessions.OpenPerson(ctx, tenant, "owner"))
			require.NoError(t, in.app.rights.GrantRole(crmguard.System(ctx, tenant, "test"), tenant, "owner", "owner"))
		}
	})
}

// TestLastOwner: an owner who is closed, or who cannot sign in where the CRM is
// served, keeps nobody's place.
func TestLastOwner(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		ctx := crmguard.System(t.Context(), tenant, "test")
		_, err := in.app.AddAccount(ctx, NewAccount{Login: "anna", Role: "owner"})
		require.NoError(t, err)
		_, err = in.app.AddAccount(ctx, NewAccount{Login: "boris", Role: "seller"})
		require.NoError(t, err)

		// Closed, but the roles are still there: closing stopped half way.
		require.NoError(t, in.app.sessions.ClosePerson(ctx, tenant, "anna"))
		require.Error(t, in.app.notTheLastOwner(ctx, account{ID: "owner"}), "anna is closed")
		require.NoError(t, in.app.notTheLastOwner(ctx, account{ID: "anna"}), "what stopped half way is repeated")
		in.stop()
		public := in.cfg
		public.Loopback = false
		_, err = New(ctx, public) // which ends what stopped half way
		require.ErrorIs(t, err, ErrNoOwnAccounts)

		in.start()
		require.NoError(t, in.app.sessions.OpenPerson(ctx, tenant, "anna"))
		require.NoError(t, in.app.rights.GrantRole(ctx, tenant, "anna", ownerRole))
		in.stop()
		a, err := New(ctx, public)
		require.NoError(t, err)
		defer func() { require.NoError(t, a.Close()) }()
		require.Error(t, a.notTheLastOwner(ctx, account{ID: "anna"}), "the demo owner cannot sign in here")
		require.NoError(t, a.notTheLastOwner(ctx, account{ID: "owner"}))
	})
}
