package mfasql_test

import (
	"database/sql"
	"encoding/base32"
	"errors"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// rig is Anna and Boris with an app and recovery codes each.
type rig struct {
	*mfa.Factors
	db      *sql.DB
	clock   *crmguardtest.Clock
	secrets map[string]string
	codes   map[string][]string
}

func newRig(t testing.TB, db *sql.DB) *rig {
	t.Helper()
	r := &rig{db: db, clock: crmguardtest.NewClock(noon), secrets: map[string]string{}, codes: map[string][]string{}}
	var err error
	r.Factors, err = mfa.New(open(t, db, nil), crmguardtest.NewKeys(), "Acme CRM", &mfa.Options{Clock: r.clock.Now})
	require.NoError(t, err)
	for _, person := range []string{"anna", "boris"} {
		r.enrol(t, person)
	}
	return r
}

func (r *rig) enrol(t testing.TB, person string) {
	t.Helper()
	e, err := r.Enrol(t.Context(), "acme", person, person)
	require.NoError(t, err)
	r.secrets[person] = e.Secret()
	require.NoError(t, r.Confirm(t.Context(), "acme", person, e.ID, r.code(t, person)))
	codes, err := r.ReplaceRecovery(t.Context(), "acme", person)
	require.NoError(t, err)
	r.codes[person] = codes.Show()
	r.clock.Advance(time.Hour)
}

func (r *rig) code(t testing.TB, person string) string {
	t.Helper()
	code, err := totp.GenerateCode(r.secrets[person], r.clock.Now())
	require.NoError(t, err)
	return code
}

func (r *rig) exec(t *testing.T, query string) {
	t.Helper()
	_, err := r.db.ExecContext(t.Context(), query)
	require.NoError(t, err, query)
}

// requireDenied wants a no, as against an error.
func requireDenied(t *testing.T, err error, what string) {
	t.Helper()
	_, denied := errors.AsType[*crmguard.Denial](err)
	require.True(t, denied, "%s: %v", what, err)
}

// Whoever has the database changes rows with the statements that come to mind.
// Neither of Anna's own factors is good after it, nor are those of Boris, and a
// revocation heals it.
func TestWriterOfTheDatabase(t *testing.T) {
	const take = `INSERT INTO crmguard_mfa_factors (tenant, person, id, kind, active, last_step, created_at, sealed)
		SELECT tenant, 'anna', id, kind, active, last_step, created_at, sealed FROM crmguard_mfa_factors WHERE person = 'boris'`
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		r := newRig(t, db)
		for _, statement := range []string{
			take,
			take + ` AND kind = 'totp'`,
			`UPDATE crmguard_mfa_factors SET created_at = created_at + 1 WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_factors SET active = 2 WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_factors SET kind = 'totp' WHERE person = 'anna' AND kind = 'recovery'`,
			`UPDATE crmguard_mfa_factors SET kind = 'recovery' WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_factors SET id = id || 'x' WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_factors SET sealed = (SELECT sealed FROM crmguard_mfa_factors WHERE person = 'boris' AND kind = 'totp') WHERE person = 'anna' AND kind = 'totp'`,
			`UPDATE crmguard_mfa_factors SET sealed = substr(sealed, 1, 0) WHERE person = 'anna'`,
			`DELETE FROM crmguard_mfa_factors WHERE person = 'anna'`,
			`DELETE FROM crmguard_mfa_factors WHERE person = 'anna' AND kind = 'totp'`,
			`UPDATE crmguard_mfa_factors SET active = 0 WHERE person = 'anna'`,
			`DELETE FROM crmguard_mfa_persons WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_persons SET version = version + 1 WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_persons SET version = 0 WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_persons SET version = 0, mac = substr(mac, 1, 0) WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_persons SET version = -1 WHERE person = 'anna'`,
			`UPDATE crmguard_mfa_persons SET mac = (SELECT mac FROM crmguard_mfa_persons WHERE person = 'boris') WHERE person = 'anna'`,
		} {
			require.NoError(t, r.Verify(t.Context(), "acme", "anna", r.code(t, "anna")), statement)
			r.clock.Advance(time.Hour)

			r.exec(t, statement)
			_, err := r.Has(t.Context(), "acme", "anna")
			require.ErrorIs(t, err, mfa.ErrState, statement)
			for _, person := range []string{"anna", "boris"} {
				requireDenied(t, r.Verify(t.Context(), "acme", "anna", r.code(t, person)), statement)
				requireDenied(t, r.Recover(t.Context(), "acme", "anna", r.codes[person][0]), statement)
				r.clock.Advance(time.Hour)
			}
			_, err = r.Revoke(t.Context(), "acme", "anna")
			require.NoError(t, err, statement)
			has, err := r.Has(t.Context(), "acme", "anna")
			require.NoError(t, err, statement)
			require.False(t, has, statement)
			r.enrol(t, "anna")
			require.NoError(t, r.Verify(t.Context(), "acme", "boris", r.code(t, "boris")), statement)
		}
	})
}

// SQLite keeps anything in any column.
func TestValuesOfAnotherType(t *testing.T) {
	r := newRig(t, sqldbtest.SQLite(t))
	for table, columns := range map[string][]string{
		"crmguard_mfa_factors": {"kind", "active", "created_at", "sealed", "last_step"},
		"crmguard_mfa_persons": {"version", "mac", "empty_at", "last_at"},
	} {
		for _, column := range columns {
			for _, value := range []string{`'x'`, `x'00ff'`, `1.5`, `''`, `9223372036854775807`, `-9223372036854775808`} {
				r.exec(t, `UPDATE `+table+` SET `+column+` = `+value+` WHERE person = 'anna'`)
				// A last step or budget that is not genuine refuses as well as it can:
				// what matters is that nothing breaks, and that it can be healed.
				_ = r.Verify(t.Context(), "acme", "anna", r.code(t, "anna"))
				if column != "last_step" && column != "empty_at" && column != "last_at" {
					require.Error(t, r.Verify(t.Context(), "acme", "anna", r.code(t, "anna")), column+value)
					_, err := r.Status(t.Context(), "acme", "anna")
					require.ErrorIs(t, err, mfa.ErrState, column+value)
				}
				_, err := r.Revoke(t.Context(), "acme", "anna")
				require.NoError(t, err, column+value)
				r.clock.Advance(48 * time.Hour)
				r.enrol(t, "anna")
				require.NoError(t, r.Verify(t.Context(), "acme", "anna", r.code(t, "anna")), column+value)
				r.clock.Advance(time.Hour)
			}
		}
	}
}

// The tables hold nothing with which somebody could make or type a code.
func TestTablesHoldNoSecret(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		r := newRig(t, db)
		rows, err := db.QueryContext(t.Context(), `SELECT sealed FROM crmguard_mfa_factors`)
		require.NoError(t, err)
		defer rows.Close()
		n := 0
		for rows.Next() {
			var sealed []byte
			require.NoError(t, rows.Scan(&sealed))
			n++
			for person, secret := range r.secrets {
				raw, err := base32.StdEncoding.DecodeString(secret)
				require.NoError(t, err)
				require.NotContains(t, string(sealed), string(raw), person)
				require.NotContains(t, string(sealed), secret, person)
				for _, code := range r.codes[person] {
					require.NotContains(t, string(sealed), code)
				}
			}
		}
		require.NoError(t, rows.Err())
		require.Equal(t, 22, n)
	})
}

// Another key, as after a theft of the database alone, opens nothing.
func TestAnotherKey(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		r := newRig(t, db)
		thief, err := mfa.New(open(t, db, nil), crmguardtest.NewKeys(), "Acme CRM", &mfa.Options{Clock: r.clock.Now})
		require.NoError(t, err)
		requireDenied(t, thief.Verify(t.Context(), "acme", "anna", r.code(t, "anna")), "sealed with another key")
		_, err = thief.Has(t.Context(), "acme", "anna")
		require.ErrorIs(t, err, mfa.ErrState)
	})
}

func TestTwoStoresInOneDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		first := open(t, db, nil)
		second := open(t, db, &mfasql.Options{TablePrefix: "my_"})
		open(t, db, nil) // migrated already
		changed, err := first.Change(t.Context(), mfa.Person{Tenant: "acme", ID: "anna"}, mfa.Person{Tenant: "acme", ID: "anna", Version: 1, MAC: mfa.Opaque("x")}, nil, nil)
		require.NoError(t, err)
		require.True(t, changed)
		p, _, err := second.Load(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.Zero(t, p.Version)
	})
}

func TestClosedDatabase(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		r := newRig(t, db)
		r.exec(t, `DROP TABLE crmguard_mfa_persons`)
		err := r.Verify(t.Context(), "acme", "anna", r.code(t, "anna"))
		require.Error(t, err)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.False(t, denied, "a broken database decides nothing: %v", err)
		_, err = r.Has(t.Context(), "acme", "anna")
		require.Error(t, err)
		_, err = r.Revoke(t.Context(), "acme", "anna")
		require.Error(t, err)
	})
}

func BenchmarkVerify(b *testing.B) {
	for name, db := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, db(b))
			for b.Loop() {
				r.clock.Advance(time.Hour)
				if err := r.Verify(b.Context(), "acme", "anna", r.code(b, "anna")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
