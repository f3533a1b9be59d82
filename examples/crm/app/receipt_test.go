package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// receiptOf downloads the receipt of a forgotten client.
func (b *browser) receiptOf(contact string) []byte {
	b.t.Helper()
	answer := b.do(http.MethodGet, "/contacts/"+contact+"/receipt", nil)
	require.Equal(b.t, http.StatusOK, answer.StatusCode)
	require.Equal(b.t, "application/json", answer.Header.Get("Content-Type"))
	require.Contains(b.t, answer.Header.Get("Content-Disposition"), "attachment")
	document, err := io.ReadAll(answer.Body)
	require.NoError(b.t, err)
	return document
}

func (b *browser) check(document []byte) string {
	b.t.Helper()
	status, page := b.send("/receipts/check", "receipt", "receipt.json", bytes.NewReader(document))
	require.Equal(b.t, http.StatusOK, status, heading(page))
	return page
}

// TestReceipts: a receipt lists what the key's destruction does not reach, can be taken
// away, and is told from one that somebody changed.
func TestReceipts(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, append(sample(3), "Double,8 916 555-00-00,,,,,seller3,Sales / North,RU\n"...))
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		gone, double := in.idOf(0), in.idOf(3)

		status, _ := owner.get("/contacts/" + gone + "/receipt")
		require.Equal(t, http.StatusNotFound, status, "nobody ordered an erasure")
		in.pass(time.Second)
		answer, _ := in.exporter("head").ask()
		require.Equal(t, http.StatusOK, answer.StatusCode)
		status, _ = owner.post("/contacts/new", "name", "Later", "owner", "seller1")
		require.Equal(t, http.StatusOK, status)
		_, page := owner.post("/contacts/"+gone+"/forget", "reason", "client-request")
		has(t, page, ".csv.age, 3 contacts, may contain the client")
		has(t, page, "taken by head")
		has(t, page, `/contacts/`+double)
		first := owner.receiptOf(gone)
		var listed encrypt.Receipt
		require.NoError(t, json.Unmarshal(first, &listed))
		require.Equal(t, []string{double}, listed.Duplicates)
		require.Len(t, listed.Copies, 1)

		_, page = seller.get("/contacts/" + gone)
		has(t, page, "closing")
		hasNot(t, page, "taken by", "not a seller's to know")
		hasNot(t, page, double)
		status, _ = seller.get("/contacts/" + gone + "/receipt")
		require.Equal(t, http.StatusForbidden, status)
		for _, path := range []string{"/receipts", "/keys"} {
			status, _ = seller.get(path)
			require.Equal(t, http.StatusForbidden, status)
		}
		status, _ = seller.send("/receipts/check", "receipt", "r.json", bytes.NewReader(first))
		require.Equal(t, http.StatusForbidden, status)
		status, _ = owner.send("/receipts/check", "receipt", "r.json", bytes.NewReader(first), "Sec-Fetch-Site", "cross-site")
		require.Equal(t, http.StatusForbidden, status)

		page = owner.check(first)
		has(t, page, "The receipt is genuine")
		has(t, page, "still says what is true today")
		has(t, owner.check(append(first, '\n')), "The receipt is genuine", "what an editor adds")
		for i := 0; i < len(first); i += 97 {
			changed := bytes.Clone(first)
			changed[i] ^= 1
			hasNot(t, owner.check(changed), "genuine", i)
		}
		for _, other := range []string{"{}", "null", "<b>", strings.Replace(string(first), ",", ", ", 1), strings.Repeat("x", 1000)} {
			has(t, owner.check([]byte(other)), "not a receipt of this CRM", other)
		}
		status, page = owner.send("/receipts/check", "receipt", "", strings.NewReader(""))
		require.Equal(t, http.StatusUnprocessableEntity, status)
		has(t, page, "Choose the file")
		for _, more := range []string{"x", " "} {
			status, page = owner.send("/receipts/check", "receipt", "r.json", strings.NewReader(string(first)+strings.Repeat(more, maxReceipt)))
			require.Equal(t, http.StatusRequestEntityTooLarge, status)
			has(t, page, "A receipt has at most 1 MB")
			has(t, page, `href="/receipts">Back`)
		}

		in.pass(2 * time.Minute)
		require.NoError(t, in.app.finishErasuresOnce(t.Context()))
		page = owner.check(first)
		has(t, page, "What it says has changed since")
		has(t, page, "What is true today")
		has(t, page, "destroyed")
		last := owner.receiptOf(gone)
		has(t, owner.check(last), "still says what is true today")

		// A contact that was added after an export is not in it.
		later := in.idOf(4)
		answer = owner.do(http.MethodPost, "/contacts/"+later+"/forget", fields("reason", "client-request"))
		cookies := answer.Request.Response.Cookies()
		require.Len(t, cookies, 1, "without one that changes Back shows the client as it was")
		require.True(t, cookies[0].HttpOnly)
		require.NotEmpty(t, cookies[0].Value)
		_, page = read(t, answer)
		hasNot(t, page, "may contain")
		_, page = owner.get("/journal?person=owner&outcome=done")
		has(t, page, "check-receipt:refused")
		has(t, page, "check-receipt:genuine")

		// Nothing of a client opens once the key is closed, whatever fails then.
		fail, repair := on.diskFull("receipts", "")
		_, err := in.app.db.ExecContext(t.Context(), fail)
		require.NoError(t, err)
		answer = owner.do(http.MethodPost, "/contacts/"+double+"/forget", fields("reason", "client-request"))
		require.Equal(t, http.StatusInternalServerError, answer.StatusCode)
		require.Len(t, answer.Cookies(), 1, "Back would show the client")
		_, _ = read(t, answer)
		_, err = in.app.db.ExecContext(t.Context(), repair)
		require.NoError(t, err)
	})
}

// putBack puts files of the keys folder back as they were.
func (in *installation) putBack(files map[string][]byte) {
	in.t.Helper()
	for name, content := range files {
		path := filepath.Join(in.cfg.Keys, name)
		for _, left := range []string{"-wal", "-shm"} {
			require.NoError(in.t, os.RemoveAll(path+left))
		}
		require.NoError(in.t, os.WriteFile(path, content, 0o600))
	}
}

// copyKeys reads files of the keys folder of an installation that is not running.
func (in *installation) copyKeys(names ...string) map[string][]byte {
	in.t.Helper()
	files := map[string][]byte{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(in.cfg.Keys, name))
		require.NoError(in.t, err)
		files[name] = content
	}
	return files
}

// TestForgettingAtOnce: whoever presses the button twice has the receipt before them, and not
// a page that says that something went wrong.
func TestForgettingAtOnce(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(8))
		owners := []*browser{in.signedIn("owner"), in.signedIn("owner"), in.signedIn("owner")}
		for i := range 8 {
			var all sync.WaitGroup
			statuses, shown := make([]int, len(owners)), make([]string, len(owners))
			for n, owner := range owners {
				all.Go(func() {
					statuses[n], shown[n] = owner.post("/contacts/"+in.idOf(i)+"/forget", "reason", "client-request")
				})
			}
			all.Wait()
			for n, page := range shown {
				require.Equal(t, http.StatusOK, statuses[n], page)
				has(t, page, "This is the receipt")
			}
		}
	})
}

// TestOlderKeyStore: an older keys.db brings nobody back who was forgotten since, and
// whoever writes into the ledger erases nobody by that.
func TestOlderKeyStore(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(4))
		destroyed, closing, stays := in.idOf(0), in.idOf(1), in.idOf(2)
		in.stop()
		older := in.copyKeys("keys.db")
		in.start()
		var sealed []byte
		row := in.app.db.QueryRowContext(t.Context(), `SELECT phone FROM contacts WHERE id = $1`, destroyed)
		require.NoError(t, row.Scan(&sealed))
		owner := in.signedIn("owner")
		owner.post("/contacts/"+destroyed+"/forget", "reason", "client-request")
		in.pass(2 * time.Minute)
		require.NoError(t, in.app.finishErasuresOnce(t.Context()))
		owner = in.signedIn("owner")
		owner.post("/contacts/"+closing+"/forget", "reason", "client-request")
		receipt := owner.receiptOf(destroyed)

		// What a database of that time would hold again, and a receipt that somebody made up.
		in.tamper(`UPDATE contacts SET phone = $1, erased_at = 0 WHERE id = $2`, sealed, destroyed)
		forged := strings.ReplaceAll(string(receipt), destroyed, stays)
		in.tamper(`INSERT INTO receipts (document) VALUES ($1)`, []byte(forged))
		in.tamper(`INSERT INTO receipts (document) VALUES ($1)`, []byte("no receipt"))
		in.stop()
		in.putBack(older)
		in.start()

		ctx := crmguard.System(t.Context(), tenant, "test")
		for client, state := range map[string]encrypt.State{destroyed: encrypt.Destroyed, closing: encrypt.Closing} {
			now, err := in.app.vault.keys.Receipt(ctx, tenant, client)
			require.NoError(t, err)
			require.Equal(t, state.String(), now.State)
		}
		_, err := in.app.vault.keys.Receipt(ctx, tenant, stays)
		require.ErrorIs(t, err, encrypt.ErrNotErased, "by a forged receipt")
		owner = in.signedIn("owner")
		_, page := owner.get("/contacts/" + destroyed)
		has(t, page, "Erased client")
		has(t, owner.check(receipt), "The receipt is genuine")
		_, page = owner.get("/contacts/" + stays)
		has(t, page, phoneOf(2)[2:5])
		require.Eventually(t, func() bool { // it is found a moment later
			_, page := owner.get("/journal?record=" + destroyed)
			return strings.Contains(page, "forgotten-again")
		}, 10*time.Second, 20*time.Millisecond)
		var left int
		require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM contacts WHERE id = $1 AND phone IS NOT NULL`, destroyed).Scan(&left))
		require.Zero(t, left)
		ledger := func() (lines int) {
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM receipts`).Scan(&lines))
			return lines
		}
		before := ledger()
		in.stop()
		in.start()
		require.Equal(t, before, ledger(), "what is known is not replayed")

		// An older ledger, and database, too: a receipt that was kept elsewhere tells.
		in.stop()
		alter(t, in.cfg, `DELETE FROM receipts`)
		in.putBack(older)
		in.start()
		has(t, in.signedIn("owner").check(receipt), fmt.Sprintf("Open the contact %s and forget it again", destroyed))
	})
}
