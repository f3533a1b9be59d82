package app

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
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

// TestRightsAfterTheWait: whoever waited for somebody else's change of the staff is
// asked again what they may do to whom, as it is then.
func TestRightsAfterTheWait(t *testing.T) {
	// meanwhile starts an act of the administrator on seller4 and lets something
	// happen while it waits; then it returns the answer.
	meanwhile := func(in *installation, path string, happens func(), form ...string) int {
		admin := in.signedIn("admin")
		in.app.staffing.Lock()
		var status int
		var act sync.WaitGroup
		act.Go(func() { status, _ = admin.post("/staff/seller4/"+path, form...) })
		require.Eventually(in.t, func() bool { // the intent is recorded after the rights were asked
			entries, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Subject: "admin", Kind: "staff", Record: "seller4", Outcome: crmguard.Attempted})
			return err == nil && len(entries.Entries) > 0
		}, 10*time.Second, 5*time.Millisecond)
		happens()
		in.app.staffing.Unlock()
		act.Wait()
		return status
	}
	each(t, func(t *testing.T, on database) {
		for path, form := range map[string][]string{"role": {"role", "admin"}, "dismiss": nil} {
			for name, test := range map[string]struct {
				happens func(in *installation, ctx context.Context) error
				status  int
			}{
				"the target becomes an owner": {func(in *installation, ctx context.Context) error {
					return in.app.rights.GrantRole(ctx, tenant, "seller4", ownerRole)
				}, http.StatusForbidden},
				"the actor loses the role": {func(in *installation, ctx context.Context) error {
					return in.app.rights.RevokeRole(ctx, tenant, "admin", "admin")
				}, http.StatusForbidden},
				"the actor's sessions end": {func(in *installation, ctx context.Context) error {
					_, err := in.app.sessions.Revoke(ctx, tenant, "admin")
					return err
				}, http.StatusUnauthorized},
			} {
				t.Run(path+": "+name, func(t *testing.T) {
					in := newInstallation(t, on, nil)
					ctx := crmguard.System(t.Context(), tenant, "test")
					var before []string
					status := meanwhile(in, path, func() {
						require.NoError(t, test.happens(in, ctx))
						var err error
						before, _, err = in.app.rights.Resolve(ctx, tenant, "seller4")
						require.NoError(t, err)
					}, form...)
					require.Equal(t, test.status, status)
					roles, _, err := in.app.rights.Resolve(ctx, tenant, "seller4")
					require.NoError(t, err)
					require.Equal(t, before, roles)
					state, err := in.app.sessions.State(ctx, tenant, "seller4")
					require.NoError(t, err)
					require.False(t, state.Closed)
				})
			}
		}
	})
}

// TestWhyARoleIsNotGiven: that it excludes another one is said where it does, and only there.
func TestWhyARoleIsNotGiven(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		rows := []string{"+ p4, default, role:head, role:accountant", "+ g, unit:support, role:head, default"}
		for i := range 10 {
			rows = append(rows, fmt.Sprintf("+ g, role:r%d, role:r%d, default", i, i+1))
		}
		owner.change(rows...)
		job := crmguard.System(t.Context(), tenant, "test")
		require.NoError(t, in.app.rights.Move(job, tenant, "seller4", nil, []string{"unit:support"}, "a team"))
		for role, why := range map[string]string{"accountant": "excludes another one", "r0": "chain of 11 role links"} {
			status, page := owner.post("/staff/seller4/role", "role", role)
			require.Equal(t, http.StatusConflict, status, role)
			has(t, page, why, role)
			require.Equal(t, role == "accountant", strings.Contains(page, "excludes another one"), role)
		}
		status, _ := owner.post("/staff/seller4/role", "role", "head")
		require.Equal(t, http.StatusOK, status)
		status, _ = owner.post("/staff/seller5/role", "role", "accountant")
		require.Equal(t, http.StatusOK, status)
	})
}
