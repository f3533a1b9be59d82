package app

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// ofSales is a file of n contacts of one department.
func ofSales(n int) []byte {
	return []byte(strings.NewReplacer("seller3,Sales / North", "seller1,Sales", "seller5,Support", "seller1,Sales").Replace(string(sample(n))))
}

// between calls do before the n-th question whether the next export may go on.
func (in *installation) between(n int, do func(ctx context.Context)) {
	asked, recheck := 0, in.app.exports.recheck
	in.app.exports.recheck = func(ctx context.Context) error {
		if asked++; asked == n {
			in.app.exports.recheck = recheck
			do(ctx)
		}
		return recheck(ctx)
	}
}

// cutOff are the ways in which a person with a role loses all rights, and back.
var cutOff = map[string]struct {
	lose, restore func(ctx context.Context, a *App, login, role string) error
}{
	"lockdown": {
		func(ctx context.Context, a *App, _, _ string) error { return a.guard.LockDown(ctx, tenant) },
		func(ctx context.Context, a *App, _, _ string) error { return a.guard.Reopen(ctx, tenant) },
	},
	"signed out": {
		func(ctx context.Context, a *App, login, _ string) error {
			_, err := a.sessions.Revoke(ctx, tenant, login)
			return err
		},
		func(context.Context, *App, string, string) error { return nil },
	},
	"role taken": {
		func(ctx context.Context, a *App, login, role string) error {
			return a.rights.RevokeRole(ctx, tenant, login, role)
		},
		func(ctx context.Context, a *App, login, role string) error {
			return a.rights.GrantRole(crmguard.System(ctx, tenant, "test"), tenant, login, role)
		},
	},
	"dismissed": {
		func(ctx context.Context, a *App, login, _ string) error {
			return a.sessions.ClosePerson(ctx, tenant, login)
		},
		func(ctx context.Context, a *App, login, _ string) error {
			return a.sessions.OpenPerson(ctx, tenant, login)
		},
	},
}

// TestExportIsCutOff: who loses the right between two chunks, or before the first
// byte, gets nothing, and nothing of it stays.
func TestExportIsCutOff(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, ofSales(520)) // two chunks
		dir := temporary(t)
		for name, way := range cutOff {
			for _, when := range []int{2, 3} { // the second chunk; when the file is finished
				head := in.exporter("head")
				in.between(when, func(ctx context.Context) { require.NoError(t, way.lose(ctx, in.app, "head", "head")) })
				answer, body := head.ask()
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable}, answer.StatusCode, name)
				require.NotContains(t, string(body), "age-encryption.org", name)
				require.Equal(t, crmguard.Failed, in.exportEntries()[0].Outcome, name)
				require.Zero(t, in.counted("head"), "given back, because nothing went out")
				requireEmpty(t, dir)
				require.NoError(t, way.restore(t.Context(), in.app, "head", "head"))
			}
		}
		head := in.exporter("head")
		_, file := head.ask()
		require.Len(t, rowsOf(t, file, head.key), 520)
	})
}

// TestExportIsAskedAgain plants the fault that the test above is for: an export
// that is asked once, at the beginning. What it then sends is seen, except that
// rights choose the rows of each chunk anyway.
func TestExportIsAskedAgain(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, ofSales(520))
	for name, way := range cutOff {
		head, recheck := in.exporter("head"), in.app.exports.recheck
		in.app.exports.recheck = func(context.Context) error { return nil }
		in.between(2, func(ctx context.Context) { require.NoError(t, way.lose(ctx, in.app, "head", "head")) })
		answer, file := head.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, name)
		want := 520
		if name == "role taken" {
			want = exportChunk
		}
		require.Len(t, rowsOf(t, file, head.key), want, name)
		in.app.exports.recheck = recheck
		require.NoError(t, way.restore(t.Context(), in.app, "head", "head"))
	}
}
