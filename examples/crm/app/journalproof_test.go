package app

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// verified verifies the journal and returns the page that says what was found.
func (in *installation) verified(b *browser) (page string) {
	in.t.Helper()
	status, _ := b.post("/journal/verify")
	require.Equal(in.t, http.StatusOK, status)
	require.Eventually(in.t, func() bool {
		_, page = b.get("/journal/verification")
		return !strings.Contains(page, "<progress")
	}, time.Minute, 10*time.Millisecond)
	return page
}

// TestVerification: with a checkpoint outside of the data the verdict is green, and what
// somebody does to the database is not.
func TestVerification(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(2))
		in.stop() // the last checkpoint goes to the anchor
		in.start()
		owner := in.signedIn("owner")
		_, page := owner.get("/journal/verification")
		has(t, page, "Nobody has verified it")
		has(t, in.verified(owner), "The journal is intact")
		found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Subject: "system:verify"})
		require.NoError(t, err)
		require.Len(t, found.Entries, 1)
		require.Equal(t, "verify:intact", found.Entries[0].Event.Reason)
		require.Equal(t, "owner", found.Entries[0].Event.Subject.OnBehalfOf)

		// Cut off, with its checkpoints: only the anchor tells.
		in.tamper(`DELETE FROM crmguard_audit_entries WHERE seq > 3`)
		in.tamper(`DELETE FROM crmguard_audit_checkpoints WHERE size > 4`)
		has(t, in.verified(owner), "are missing")

		status, _ := in.signedIn("seller1").post("/journal/verify")
		require.Equal(t, http.StatusForbidden, status)
		status, _ = in.signedIn("seller1").get("/journal/verification")
		require.Equal(t, http.StatusForbidden, status)
	})
}

// TestALostAnchor: nobody is let in while nothing outside tells what the journal was, until
// somebody who starts the CRM says why, which the journal keeps.
func TestALostAnchor(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(2))
		in.stop()
		path := filepath.Join(in.cfg.Keys, "journal.anchor")
		whole := in.copyKeys("journal.anchor")
		renewed := in.cfg
		renewed.NewAnchor = "the disk was replaced"
		in.refused(renewed, "start without -new-anchor")
		unmounted := renewed
		unmounted.Anchor = filepath.Join(t.TempDir(), "disk", "journal.anchor")
		in.refused(unmounted, "make or mount it")
		for why, lose := range map[string]func() error{
			"removed": func() error { return os.Remove(path) },
			"emptied": func() error { return os.Truncate(path, 0) },
			"cut":     func() error { return os.Truncate(path, 40) },
		} {
			require.NoError(t, lose(), why)
			in.refused(in.cfg, "holds no checkpoint")
			in.refused(in.cfg, "-new-anchor")
			in.putBack(whole)
		}
		damaged := bytes.Clone(whole["journal.anchor"])
		damaged[20] ^= 1
		in.putBack(map[string][]byte{"journal.anchor": damaged})
		in.refused(in.cfg, "cannot be read")
		in.refused(renewed, "cannot be read")
		in.putBack(whole)
		in.start()
		has(t, in.verified(in.signedIn("owner")), "The journal is intact")
		in.stop()

		require.NoError(t, os.Remove(path))
		in.cfg.NewAnchor = renewed.NewAnchor
		in.start()
		in.stop()
		in.cfg.NewAnchor = ""
		in.start()
		owner := in.signedIn("owner")
		_, page := owner.get("/journal?person=system:anchor")
		has(t, page, "the disk was replaced")
		has(t, in.verified(owner), "The journal is intact")

		// The whole journal of a company that exists is no beginning either, nor where its row
		// says, with a proof of that time, that the first start has not ended.
		require.NoError(t, in.app.vault.prove(t.Context(), in.app.db, stageSetting, []byte(stageContacts)))
		unended, err := in.app.db.setting(t.Context(), stageSetting+"-mac")
		require.NoError(t, err)
		require.NoError(t, in.app.vault.prove(t.Context(), in.app.db, stageSetting, []byte(stageDone)))
		in.stop()
		for _, table := range []string{"entries", "checkpoints", "clients", "tail", "pseudonyms"} {
			alter(t, in.cfg, `DELETE FROM crmguard_audit_`+table)
		}
		in.refused(in.cfg, "the journal is empty")
		whole = in.copyKeys("journal.anchor")
		require.NoError(t, os.Remove(path))
		in.refused(in.cfg, "the journal is empty")
		in.refused(renewed, "the journal is empty")
		in.putBack(whole)
		alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = $2`, []byte(stageContacts), stageSetting)
		alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = $2`, unended, stageSetting+"-mac")
		in.refused(in.cfg, "the journal is empty")
	})
}

// TestNothingBeforeTheAnchor: the journal gets no entry before the anchor holds its first checkpoint,
// or a crash would leave one that the next start refuses.
func TestNothingBeforeTheAnchor(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := unstarted(t, on)
		dir := t.TempDir()
		in.cfg.Anchor = filepath.Join(dir, "journal.anchor")
		require.NoError(t, os.Symlink(filepath.Join(dir, "disk", "journal.anchor"), in.cfg.Anchor))
		for range 2 {
			_, err := New(t.Context(), in.cfg)
			require.ErrorContains(t, err, "cannot be kept outside")
		}
		require.NoError(t, os.Mkdir(filepath.Join(dir, "disk"), 0o700))
		in.start()
		has(t, in.verified(in.signedIn("owner")), "The journal is intact")
	})
}

// TestAChangedEntryIsNotShown: what somebody changed in the database is on no page of the journal,
// and these say so before anybody verifies it.
func TestAChangedEntryIsNotShown(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(2))
		in.signedIn("seller1").get("/contacts/" + in.idOf(0))
		in.stop() // which signs
		in.start()
		owner := in.signedIn("owner")
		found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Subject: "seller1", Action: crmguard.View, Limit: 1})
		require.NoError(t, err)
		require.Len(t, found.Entries, 1)
		seq := found.Entries[0].Seq
		at := "/journal/entries/" + strconv.FormatInt(seq, 10)
		_, page := owner.get("/journal")
		has(t, page, `href="`+at+`"`)
		hasNot(t, page, "changed or damaged")
		status, _ := owner.get(at)
		require.Equal(t, http.StatusOK, status)

		var record, hashes []byte
		require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT record, hashes FROM crmguard_audit_entries WHERE seq = $1`, seq).Scan(&record, &hashes))
		forged := bytes.Replace(record, []byte("seller1"), []byte("seller2"), 1)
		leaf := tlog.RecordHash(forged)
		for why, stored := range map[string][]byte{"the record": hashes, "and its hash": append(leaf[:], hashes[32:]...)} {
			in.tamper(`UPDATE crmguard_audit_entries SET record = $1, hashes = $2 WHERE seq = $3`, forged, stored, seq)
			for _, path := range []string{"/journal", "/journal?person=seller1"} {
				_, page = owner.get(path)
				has(t, page, "<strong>Entry "+strconv.FormatInt(seq, 10)+" was changed or damaged</strong>", why+path)
				hasNot(t, page, `href="`+at+`"`, why+path)
			}
			status, page = owner.get(at)
			require.Equal(t, http.StatusInternalServerError, status, why)
			has(t, page, "was changed or damaged", why)
		}
	})
}

// TestProofsAndExtracts: what is downloaded is checked with the public key alone.
func TestProofsAndExtracts(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		client := in.idOf(0)
		seller.get("/contacts/" + client)
		status, page := owner.get("/journal/entries/1")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "/journal/entries/1/proof")
		status, _ = owner.post("/contacts/"+client+"/forget", "reason", "authority")
		require.Equal(t, http.StatusOK, status)
		for at, back := range map[string]string{"/contacts/" + client + "/extract": "/contacts/" + client, "/journal/entries/" + in.newest(client) + "/proof": "/journal/entries/" + in.newest(client)} {
			status, page = owner.get(at) // it would lack the act that it is downloaded for
			require.Equal(t, http.StatusConflict, status, at)
			has(t, page, "Try again in a minute")
			has(t, page, `href="`+back+`">Back</a>`)
		}
		in.stop() // which signs
		in.start()
		owner, seller = in.signedIn("owner"), in.signedIn("seller1")

		answer := owner.do(http.MethodGet, "/journal/entries/1/proof", nil)
		require.Contains(t, answer.Header.Get("Content-Disposition"), `"entry-1.tlog-proof"`)
		proof, err := os.ReadFile(filepath.Join(in.cfg.Keys, "journal.key.pub"))
		require.NoError(t, err)
		require.NotEmpty(t, proof)
		var b bytes.Buffer
		_, err = b.ReadFrom(answer.Body)
		require.NoError(t, err)
		proven, err := audit.CheckProof(b.Bytes(), nil, in.app.vault.verifier)
		require.NoError(t, err)
		require.Equal(t, int64(1), proven.Entry.Seq)
		b.Bytes()[60] ^= 1
		_, err = audit.CheckProof(b.Bytes(), nil, in.app.vault.verifier)
		require.Error(t, err)

		_, page = owner.get("/contacts/" + client)
		has(t, page, "/contacts/"+client+"/extract")
		status, text := read(t, owner.do(http.MethodGet, "/contacts/"+client+"/extract", nil))
		require.Equal(t, http.StatusOK, status)
		hasNot(t, text, "Quillfeather0000")
		var acts []crmguard.Action
		x, err := audit.CheckExtract(strings.NewReader(text), in.app.vault.verifier, func(p audit.Proven) error {
			require.Equal(t, client, p.Entry.Event.Resource.ID)
			acts = append(acts, p.Entry.Event.Action)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, len(acts), x.Entries)
		require.Contains(t, acts, crmguard.View)
		require.Contains(t, acts, crmguard.Erase)

		// Not of clients who are there, nor for everybody; and each download is an entry.
		status, _ = owner.get("/contacts/" + in.idOf(1) + "/extract")
		require.Equal(t, http.StatusNotFound, status)
		for _, path := range []string{"/contacts/" + client + "/extract", "/journal/entries/1", "/journal/entries/1/proof", "/journal/live"} {
			status, _ = seller.get(path)
			require.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, status, path)
		}
		for _, number := range []string{"-1", "x", "9223372036854775807", "999999"} {
			status, _ = owner.get("/journal/entries/" + number + "/proof")
			require.Equal(t, http.StatusNotFound, status, number)
		}
		_, page = owner.get("/journal?person=owner")
		has(t, page, "download a proof")
		has(t, page, "download an extract")

		var record []byte
		require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT record FROM crmguard_audit_entries WHERE seq = 2`).Scan(&record))
		record[40] ^= 1
		in.tamper(`UPDATE crmguard_audit_entries SET record = $1 WHERE seq = 2`, record)
		status, page = owner.get("/contacts/" + client + "/extract")
		require.Equal(t, http.StatusInternalServerError, status)
		has(t, page, "Entry 2 was changed or damaged")
		has(t, page, "press Verify")
		has(t, page, `href="/contacts/`+client+`">Back</a>`)
	})
}

// newest is the number of the newest entry that says that a client was forgotten.
func (in *installation) newest(client string) (seq string) {
	in.t.Helper()
	require.Eventually(in.t, func() bool {
		found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Record: client, Action: crmguard.Erase, Outcome: crmguard.Done, Limit: 1})
		if err == nil && len(found.Entries) == 1 {
			seq = strconv.FormatInt(found.Entries[0].Seq, 10)
		}
		return seq != ""
	}, 10*time.Second, 5*time.Millisecond)
	return seq
}

// TestLiveJournal: what is new is there with the next reload, and a look is one entry
// however often the page loads itself.
func TestLiveJournal(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner := in.signedIn("owner")
		_, page := owner.get("/journal/live?person=seller1")
		hasNot(t, page, "loads itself again", "no look was begun")
		reads := func() int {
			found, err := in.app.journal.Find(t.Context(), audit.Query{Tenant: tenant, Action: audit.ActRead, Limit: 500})
			require.NoError(t, err)
			return len(found.Entries)
		}
		_, page = owner.get("/journal?person=seller1&live")
		has(t, page, `url=/journal/live?person=seller1`)
		before := reads()
		in.signedIn("seller1").get("/contacts/" + in.idOf(0))
		_, page = owner.get("/journal/live?person=seller1")
		has(t, page, in.idOf(0))
		has(t, page, `url=/journal/live?person=seller1`)
		require.Equal(t, before, reads())
		_, page = owner.get("/journal/live?person=owner") // narrowed to something else, it is another look
		hasNot(t, page, "loads itself again")
		require.Equal(t, before+1, reads())
		_, page = owner.get("/journal/live?record=" + in.idOf(0))
		hasNot(t, page, "loads itself again")
		require.Equal(t, before+2, reads())
		before = reads()
		for range 3 { // a session that nobody uses ends earlier
			in.pass(alertsLook/3 + time.Minute)
			_, page = owner.get("/journal/live?person=seller1")
		}
		hasNot(t, page, "loads itself again")
		require.Equal(t, before+1, reads())
	})
}
