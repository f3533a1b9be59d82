package app

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDemoCode: two codes at once, also after a restart; then the next step is
// waited for.
func TestDemoCode(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		var log bytes.Buffer
		in.cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		moment := time.Now().Truncate(period).Add(10 * time.Second) // steps do not end by themselves
		in.cfg.Clock = func() time.Time { return moment.Add(time.Duration(in.late.Load())) }
		in.start()
		waited := time.Duration(0)
		ask := func() string {
			code, err := in.app.DemoCode(t.Context(), "seller1", func(wait time.Duration) { waited = wait; in.late.Add(int64(wait)) })
			require.NoError(t, err)
			return code
		}
		first := ask()
		require.Equal(t, first, ask(), "it was not used yet")
		in.enter("seller1")
		in.stop()
		in.start()
		require.NotEqual(t, first, ask())
		in.enter("seller1")
		require.Zero(t, waited)
		in.enter("seller1") // in.code moves the clock
		ask()
		require.Equal(t, 30*time.Second, waited)

		_, secret, err := in.app.demoApp(t.Context(), "seller1")
		require.NoError(t, err)
		require.Len(t, secret, 32)
		for _, path := range []string{"/me", "/contacts"} {
			_, page := in.signedIn("seller1").get(path)
			hasNot(t, page, secret)
		}
		_, page := in.signedIn("owner").get("/journal")
		hasNot(t, page, secret)
		require.NotContains(t, log.String(), secret)
		require.Empty(t, leaks(t, in.cfg, [][]byte{[]byte(secret)}))

		in.late.Add(-int64(time.Hour))
		_, err = in.app.DemoCode(t.Context(), "seller1", nil)
		require.ErrorContains(t, err, "set the clock right")
		in.late.Add(int64(time.Hour))
	})
}

// TestDemoCodeRefusals: codes of demo accounts only, and only where nobody else can
// reach them.
func TestDemoCodeRefusals(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	ctx := t.Context()
	_, err := in.app.AddAccount(ctx, NewAccount{Login: "anna", Role: "owner"})
	require.NoError(t, err)
	refused := func(login, says string) {
		t.Helper()
		_, err := in.app.DemoCode(ctx, login, nil)
		require.ErrorContains(t, err, says)
	}
	refused("nobody", `there is no account "nobody"`)
	refused("integration", "is a program")
	refused("anna", "has no app yet")
	enrolment, err := in.app.factors.Enrol(ctx, tenant, "anna", "anna")
	require.NoError(t, err)
	require.NoError(t, in.app.factors.Confirm(ctx, tenant, "anna", enrolment.ID, in.codeOf(enrolment.Secret(), 0)))
	refused("anna", "has an app of their own")
	in.signedIn("owner").post("/staff/seller5/dismiss")
	refused("seller5", "no demo app any more")

	// A row copied from another account opens nothing.
	_, err = in.app.db.ExecContext(ctx, `UPDATE accounts SET demo_app = (SELECT demo_app FROM accounts WHERE id = 'owner') WHERE id = 'seller1'`)
	require.NoError(t, err)
	refused("seller1", "open the demo app")

	in.stop()
	in.cfg.Loopback = false
	in.start()
	for _, login := range []string{"owner", "anna", "nobody"} {
		refused(login, "demo accounts are closed")
	}
}
