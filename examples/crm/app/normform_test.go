package app

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// normFields are all fields of the norms, as they are at first but for these.
func normFields(version string, changed ...string) []string {
	return append([]string{
		"version", version, "zone", "Europe/Moscow", "soft-0", "40", "hard-0", "50", "soft-1", "2000", "hard-1", "4000",
		"soft-2", "100", "hard-2", "200", "soft-3", "1000", "hard-3", "20000", "soft-4", "", "hard-4", "100",
	}, changed...)
}

// saveNorms sends the form of norms with a few of its fields changed.
func (b *browser) saveNorms(changed ...string) (int, string) {
	b.t.Helper()
	_, page := b.get("/settings")
	return b.post("/settings/norms", normFields(version(b.t, page), changed...)...)
}

// TestNormNouns: each norm is named in words.
func TestNormNouns(t *testing.T) {
	for _, n := range firstNorms.Norms {
		require.Contains(t, normNouns, n.Counter())
	}
	require.Len(t, normNouns, len(firstNorms.Norms))
}

func TestNormsAreChanged(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.atNoon()
		ids := in.ofSeller1(6)
		owner, admin, seller := in.signedIn("owner"), in.signedIn("admin"), in.signedIn("seller1")

		_, page := admin.get("/settings")
		has(t, page, "An owner can change this.")
		hasNot(t, page, `action="/settings/norms`)
		for _, login := range []string{"admin", "head", "seller1"} {
			status, _ := in.signedIn(login).post("/settings/norms", "version", "0", "hard-0", "1000")
			require.Equal(t, http.StatusForbidden, status, login)
		}
		status, page := in.session("owner", crmguard.AssurancePassword, 0).saveNorms("hard-0", "1000")
		require.Equal(t, http.StatusUnauthorized, status, "a change wants a fresh code")
		has(t, page, "Confirm that it is you")
		for _, wrong := range [][]string{
			{"hard-0", ""}, {"hard-0", "0"}, {"hard-0", "-1"}, {"hard-0", "40"}, {"hard-0", "many"}, {"hard-0", "1000001"}, {"hard-0", "99999999999999999999"},
			{"soft-0", "50"}, {"soft-0", "-1"}, {"soft-0", "x"}, {"zone", "Moon/Base"}, {"zone", ""}, {"zone", "Local"},
		} {
			status, page = owner.saveNorms(wrong...)
			require.Equal(t, http.StatusUnprocessableEntity, status, wrong)
			has(t, page, `aria-invalid="true"`, wrong)
			require.Equal(t, 1, strings.Count(page, `class="error"`), wrong)
		}
		for _, wrong := range [][]string{{"hard-5", "10"}, {"soft--1", "10"}, {"allow-company", ""}, {"version", ""}} {
			status, page = owner.saveNorms(wrong...)
			require.Equal(t, http.StatusBadRequest, status, wrong)
			has(t, page, "The form could not be read")
		}
		status, _ = owner.post("/settings/norms", "version", "0", "zone", "Europe/Moscow", "hard-0", "50", "hard-1", "4000", "hard-2", "200", "hard-3", "20000", "hard-4", "100")
		require.Equal(t, http.StatusBadRequest, status, "fields that are missing do not clear what they are about")
		require.Empty(t, in.changes(normsSetting, crmguard.Done))

		// The lower norm holds from the next card on, and for those of today.
		opened, _ := in.openCards(seller, ids[:2])
		require.Equal(t, 2, opened)
		status, page = owner.saveNorms("soft-0", "2", "hard-0", "3")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The norms are in force")
		has(t, page, `name="hard-0" value="3"`)
		opened, _ = in.openCards(seller, ids)
		require.Equal(t, 3, opened)
		require.Len(t, in.alerts("seller1"), 2)
		status, _ = owner.saveNorms("soft-0", "2", "hard-0", "4")
		require.Equal(t, http.StatusOK, status)
		opened, _ = in.openCards(seller, ids)
		require.Equal(t, 4, opened)

		done := in.changes(normsSetting, crmguard.Done)
		require.Len(t, done, 2)
		require.Equal(t, "version:1", done[1].Reason)
		require.Equal(t, []string{"records view contacts"}, done[1].Fields)
		text, err := in.app.db.setting(t.Context(), normsSetting)
		require.NoError(t, err)
		require.Equal(t, `{"version":2,"zone":"Europe/Moscow","norms":[{"Action":"view","Kind":"contacts","Of":0,"Soft":2,"Hard":4},`+
			`{"Action":"list","Kind":"contacts","Of":0,"Soft":2000,"Hard":4000},{"Action":"search","Kind":"contacts","Of":1,"Soft":100,"Hard":200},`+
			`{"Action":"export","Kind":"contacts","Of":0,"Soft":1000,"Hard":20000},{"Action":"","Kind":"","Of":2,"Soft":0,"Hard":100}]}`,
			string(text), "installations keep this form")
		digest := sha256.Sum256(text)
		require.Equal(t, "norms 2 "+hex.EncodeToString(digest[:]), done[0].Policy)

		// Of many who saw the same version one saves.
		var won atomic.Int64
		var all sync.WaitGroup
		form := fields(normFields("2", "zone", "Asia/Tokyo", "soft-0", "", "hard-0", "5")...)
		for range 8 {
			b := in.signedIn("owner")
			all.Go(func() {
				if b.do(http.MethodPost, "/settings/norms", form).StatusCode == http.StatusOK {
					won.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, won.Load())
		status, page = owner.post("/settings/norms", "version", "2", "zone", "Europe/Moscow", "hard-0", "77", "hard-1", "4000", "hard-2", "200", "hard-3", "20000", "hard-4", "100")
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "Somebody changed the norms meanwhile")
		has(t, page, `name="hard-0" value="77"`)
		require.Equal(t, "3", version(t, page))
		has(t, page, "Times are those of Asia/Tokyo")

		in.stop()
		in.start()
		rules := in.app.norms.rules.Load()
		require.EqualValues(t, 3, rules.Version)
		require.Equal(t, "Asia/Tokyo", rules.Zone)
		require.Equal(t, 5, rules.Norms[0].Hard)
		require.Equal(t, "Asia/Tokyo", in.app.norms.today().Location().String())
	})
}

// TestOldAndForgedNorms: norms that were put back or made up in the database are not
// started with.
func TestOldAndForgedNorms(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		save := func(hard string) (text, mac []byte) {
			status, _ := owner.saveNorms("hard-0", hard)
			require.Equal(t, http.StatusOK, status)
			text, err := in.app.db.setting(t.Context(), normsSetting)
			require.NoError(t, err)
			mac, err = in.app.db.setting(t.Context(), normsSetting+"-mac")
			require.NoError(t, err)
			return text, mac
		}
		generous, generousMAC := save("1000")
		strict, strictMAC := save("45")
		in.stop()
		put := func(text, mac []byte) {
			alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'norms'`, text)
			alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'norms-mac'`, mac)
		}
		put(generous, generousMAC)
		in.refused(in.cfg, "the norms in the database are version 1, but version 2 was in force")
		put([]byte(strings.Replace(string(strict), `"version":2`, `"version":3`, 1)), strictMAC)
		in.refused(in.cfg, "changed past the CRM")
		put(generous, strictMAC)
		in.refused(in.cfg, "changed past the CRM")
		alter(t, in.cfg, `DELETE FROM settings WHERE name IN ('norms', 'norms-mac')`)
		in.refused(in.cfg, "version 0, but version 2 was in force")
		alter(t, in.cfg, `INSERT INTO settings (name, value) VALUES ('norms', $1)`, []byte{})
		in.refused(in.cfg, "changed past the CRM")
		alter(t, in.cfg, `DELETE FROM settings WHERE name = 'norms'`)
		for name, value := range map[string][]byte{"norms": strict, "norms-mac": strictMAC} {
			alter(t, in.cfg, `INSERT INTO settings (name, value) VALUES ($1, $2)`, name, value)
		}
		in.start()
		require.Equal(t, 45, in.app.norms.rules.Load().Norms[0].Hard)
	})
}

// TestEmptySettings: rules that were never changed are not the same as rules that are
// empty, which only somebody else can have written.
func TestEmptySettings(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		in.stop()
		for _, name := range []string{normsSetting, addressSetting} {
			alter(t, in.cfg, `INSERT INTO settings (name, value) VALUES ($1, $2)`, name, []byte{})
			in.refused(in.cfg, "changed past the CRM")
			alter(t, in.cfg, `DELETE FROM settings WHERE name = $1`, name)
		}
		alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'installation'`, []byte{})
		in.refused(in.cfg, "belong to another installation")
	})
}

// TestANormIsStoredWholly: norms, their MAC and the entry are one transaction.
func TestANormIsStoredWholly(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		fail, repair := on.diskFull("settings", "NEW.name = 'norms-mac'")
		_, err := in.app.db.ExecContext(t.Context(), fail)
		require.NoError(t, err)
		status, _ := owner.saveNorms("hard-0", "45")
		require.Equal(t, http.StatusInternalServerError, status)
		_, err = in.app.db.ExecContext(t.Context(), repair)
		require.NoError(t, err)
		text, err := in.app.db.setting(t.Context(), normsSetting)
		require.NoError(t, err)
		require.Nil(t, text)
		require.Empty(t, in.changes(normsSetting, crmguard.Done))
		require.Len(t, in.changes(normsSetting, crmguard.Failed), 1)
		require.True(t, slices.EqualFunc(firstNorms.Norms, in.app.norms.rules.Load().Norms, func(a, b quota.Norm) bool { return a == b }))
	})
}
