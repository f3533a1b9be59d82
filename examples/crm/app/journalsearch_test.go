package app

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
)

// entriesWith are what somebody finds in the journal by a sealed value, newest first.
func (b *browser) entriesWith(value string) (seqs []string) {
	b.t.Helper()
	status, page := b.post("/journal/find", "value", value)
	require.Equal(b.t, http.StatusOK, status, heading(page))
	for _, m := range regexp.MustCompile(`href="/journal/entries/(\d+)"`).FindAllStringSubmatch(page, -1) {
		seqs = append(seqs, m[1])
	}
	return seqs
}

// pseudonyms are how many there are by which entries about a client are found.
func (in *installation) pseudonyms(client string) (n int) {
	in.t.Helper()
	require.NoError(in.t, in.app.db.QueryRowContext(in.t.Context(), `SELECT COUNT(*) FROM crmguard_audit_pseudonyms WHERE client = $1`, client).Scan(&n))
	return n
}

// TestJournalIsSearchedBySealedValues: who entered, changed and saw a phone number or
// e-mail address is found by it, however it is typed, until its client is forgotten.
func TestJournalIsSearchedBySealedValues(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		owner := in.signedIn("owner")
		const phone, email = "+7 916 777-12-34", "Later@Quill.example"
		for _, name := range []string{"Later", "Namesake"} {
			status, page := owner.post("/contacts/new", "name", name, "phone", phone, "email", email, "owner", "owner")
			require.Equal(t, http.StatusOK, status, heading(page))
		}
		later, namesake := in.idOf(1), in.idOf(2)
		require.Eventually(t, func() bool { return len(owner.entriesWith(phone)) == 2 }, time.Minute, 10*time.Millisecond)
		for _, typed := range []string{"8 (916) 777 12 34", "tel. 79167771234", "+79167771234 ext. 7", "later@quill.EXAMPLE"} {
			require.Len(t, owner.entriesWith(typed), 2, typed)
		}
		require.Empty(t, owner.entriesWith("+7 916 777-12-35"))
		require.Empty(t, owner.entriesWith("other@quill.example"))

		// To see it is to be found by it, and a change has the value before and after.
		status, _ := owner.post("/contacts/"+later+"/reveal", "field", "phone", "reason", "call-client")
		require.Equal(t, http.StatusOK, status)
		require.Len(t, owner.entriesWith(phone), 3)
		_, form := owner.get("/contacts/" + later + "/edit")
		version := regexp.MustCompile(`name="version" value="(\d+)"`).FindStringSubmatch(form)[1]
		status, _ = owner.post("/contacts/"+later+"/edit", "version", version, "phone", "+7 916 777-99-99")
		require.Equal(t, http.StatusOK, status)
		require.Eventually(t, func() bool { return len(owner.entriesWith("+7 916 777-99-99")) == 1 }, time.Minute, 10*time.Millisecond)
		require.Len(t, owner.entriesWith(phone), 4)
		require.Len(t, owner.entriesWith(email), 2, "it was not changed")

		// That somebody looked is an entry, without what was typed; addresses hold nothing.
		page, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Action: audit.ActRead, Limit: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"private:email"}, page.Entries[0].Event.Fields)
		for _, wrong := range []string{"", "Later", "916 777", "@", "a***@quill.example", strings.Repeat("9", 300)} {
			status, page := owner.post("/journal/find", "value", wrong)
			require.Equal(t, http.StatusUnprocessableEntity, status, wrong)
			has(t, page, "Type a whole phone number or e-mail address.")
		}
		status, _ = in.signedIn("seller1").post("/journal/find", "value", phone)
		require.Equal(t, http.StatusForbidden, status)

		// Who goes back from an entry sees what was found; the address says nothing.
		address := owner.searchFor("/journal/find", "value", phone)
		require.Regexp(t, `^/journal/find\?q=[A-Z2-7]{26}$`, address)
		status, shown := owner.get(address)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, 4, strings.Count(shown, `href="/journal/entries/`))
		status, shown = owner.get(address + "&before=" + owner.entriesWith(phone)[0])
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, 3, strings.Count(shown, `href="/journal/entries/`))
		has(t, shown, `href="`+address+`"`, "the newest")
		for _, b := range []*browser{in.signedIn("owner"), in.signedIn("admin")} {
			status, shown = b.get(address)
			require.Equal(t, http.StatusGone, status)
			has(t, shown, "This search has ended")
			hasNot(t, shown, "777-12-34")
		}
		status, _ = owner.get(owner.searchFor("/contacts/search", "query", "anna"))
		require.Equal(t, http.StatusOK, status)
		status, _ = owner.get(strings.Replace(owner.searchFor("/contacts/search", "query", "anna"), "/contacts/search", "/journal/find", 1))
		require.Equal(t, http.StatusGone, status, "it was typed elsewhere")

		// The keys grow old and go, and all is found as before.
		scope := encrypt.IndexScope(tenant, "audit", "phone", "")
		first, err := in.app.vault.store.Load(t.Context(), []encrypt.Scope{scope})
		require.NoError(t, err)
		for range 2 {
			in.pass(indexLife / 2)
			require.NoError(t, in.app.upkeep(t.Context()))
			require.Len(t, in.signedIn("owner").entriesWith(phone), 4)
		}
		left, err := in.app.vault.store.Load(t.Context(), []encrypt.Scope{scope})
		require.NoError(t, err)
		require.Greater(t, left[0].Version, first[0].Version, "who has the old key finds nothing any more")

		// A client who is forgotten is found by nothing, at once and when the key is gone; the
		// entries stay, and so does another client's.
		require.Positive(t, in.pseudonyms(later))
		owner = in.signedIn("owner")
		status, _ = owner.post("/contacts/"+later+"/forget", "reason", "client-request")
		require.Equal(t, http.StatusOK, status)
		require.Zero(t, in.pseudonyms(later))
		require.Len(t, owner.entriesWith(phone), 1)
		require.Positive(t, in.pseudonyms(namesake))
		_, err = in.app.db.ExecContext(t.Context(), `UPDATE crmguard_audit_pseudonyms SET client = $1`, later) // as if a transaction had committed since
		require.NoError(t, err)
		in.pass(2 * time.Minute)
		require.NoError(t, in.app.finishErasuresOnce(t.Context()))
		require.Zero(t, in.pseudonyms(later))
		require.Empty(t, in.signedIn("owner").entriesWith(phone))
		page, err = in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Record: later, Limit: 50})
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(page.Entries), 3)
		sealed := 0
		for _, e := range page.Entries {
			if len(e.Event.Private) > 0 {
				sealed++
				_, err = in.app.journal.OpenPrivate(crmguard.System(t.Context(), tenant, "test"), e)
				require.ErrorIs(t, err, crmguard.ErrErased)
			}
		}
		require.Equal(t, 3, sealed, "made, shown and changed")
	})
}
