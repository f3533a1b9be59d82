package app

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// tamper changes the database past the CRM.
func (in *installation) tamper(query string, args ...any) {
	in.t.Helper()
	result, err := in.app.db.ExecContext(in.t.Context(), query, args...)
	require.NoError(in.t, err)
	n, err := result.RowsAffected()
	require.NoError(in.t, err)
	require.Positive(in.t, n)
}

// allow adds rules to the policy, as a tool of the company would.
func (in *installation) allow(rules ...[]string) {
	in.t.Helper()
	policy, err := in.app.openPolicy(in.t.Context())
	require.NoError(in.t, err)
	require.NoError(in.t, policy.AddPolicies("p", "p", rules))
	require.NoError(in.t, in.app.rights.Reload(in.t.Context()))
}

// TestErasureOfAChangedRow: a row is emptied only as it was read, and only by whom
// the rights let at that moment; the rest is done when the key is destroyed.
func TestErasureOfAChangedRow(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "owner", Kind: employee})
		mine, err := in.app.within(ctx, crmguard.Erase)
		require.NoError(t, err)
		none, err := in.app.within(crmguard.WithSubject(ctx, crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee}), crmguard.Erase)
		require.NoError(t, err)
		c, err := in.app.db.contact(ctx, in.idOf(0))
		require.NoError(t, err)
		empty := func(c *Contact, within predicate) error {
			tx, err := in.app.db.BeginTx(ctx, nil)
			require.NoError(t, err)
			defer tx.Rollback() //nolint:errcheck // the error of the attempt counts
			if err := emptyContact(ctx, tx, c, in.app.now(), within); err != nil {
				return err
			}
			return tx.Commit()
		}
		require.ErrorIs(t, empty(c, none), errChanged, "without the right")
		older := *c
		older.Version--
		require.ErrorIs(t, empty(&older, mine), errChanged, "another version")
		_, page := in.signedIn("owner").get("/contacts/" + c.ID)
		has(t, page, "Quillfeather0000", "nothing was emptied")
		require.NoError(t, empty(c, mine))
		require.ErrorIs(t, empty(c, mine), errChanged, "once")
	})
}

// TestForgedErasure: whoever writes into the database that a client was erased
// makes no view destroy a key, and hides nobody. Only the key store knows.
func TestForgedErasure(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		id, emptied := in.idOf(0), in.idOf(3)
		in.tamper(`UPDATE contacts SET erased_at = 1700000000000000 WHERE id = $1`, id)
		in.tamper(`UPDATE contacts SET erased_at = 1700000000000000, name = NULL, phone = NULL, email = NULL, company = NULL, city = NULL, note = NULL WHERE id = $1`, emptied)
		for _, path := range []string{"/contacts/" + id, "/contacts/" + id + "/forget", "/contacts"} {
			status, page := owner.get(path)
			require.Equal(t, http.StatusOK, status, path)
			has(t, page, "Quillfeather0000", path)
			hasNot(t, page, "Erased client", path)
		}
		_, page := owner.get("/contacts/" + emptied)
		has(t, page, "does not open")
		hasNot(t, page, "Erased client")
		for _, client := range []string{id, emptied} {
			_, err := in.app.vault.keys.Receipt(crmguard.System(t.Context(), tenant, "test"), tenant, client)
			require.ErrorIs(t, err, encrypt.ErrNotErased, "no view orders an erasure")
		}
		status, page := seller.post("/contacts/"+id+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "+7 916 555-00-00")

		// An edit mends the row, and a forged mark keeps nothing from being emptied.
		status, page = seller.post("/contacts/"+id+"/edit", "version", "1", "name", "Quillfeather0000 Mended", "owner", "seller1", "country", "RU")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Saved.")
		in.tamper(`UPDATE contacts SET erased_at = 1700000000000000 WHERE id = $1`, id)
		_, page = owner.post("/contacts/"+id+"/forget", "reason", "client-request")
		has(t, page, "This is the receipt")
		var left int
		require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM contacts WHERE id = $1 AND COALESCE(name, phone, note, import_key) IS NOT NULL`, id).Scan(&left))
		require.Zero(t, left)
	})
}
