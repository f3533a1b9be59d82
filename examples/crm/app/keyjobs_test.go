package app

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// ended waits until a task has ended. Leases run out sooner while a turn only waits, for
// those who might be at one, too.
func (in *installation) ended(name string) keyJob {
	in.t.Helper()
	var job *keyJob
	require.Eventually(in.t, func() bool {
		if job = in.app.jobs.job(name); name == turnJob && (job.Step == "" || job.Step == encrypt.TurnWaiting) {
			in.age(encrypt.Lease / 10)
		}
		return !job.running()
	}, 20*time.Second, 5*time.Millisecond)
	return *job
}

// TestKeysPage: who may, turns and reencrypts from the page, everything opens as before,
// also after a restart, and copies of the keys from before open nothing.
func TestKeysPage(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(4))
		owner, seller := in.signedIn("owner"), in.signedIn("seller1")
		mine := in.idOf(0)
		file := seller.attach(mine, "letter.txt", "Wafflewords of a letter")
		all := func(why string) {
			t.Helper()
			_, page := in.signedIn("owner").get("/contacts")
			for i := range 4 {
				has(t, page, phoneOf(i), why)
			}
			_, page = in.signedIn("seller1").post("/contacts/search", "query", phoneOf(0))
			has(t, page, "1 contact found", why)
			status, page := in.signedIn("seller1").post("/contacts/"+mine+"/attachments/"+file+"/download", "reason", "check-data")
			require.Equal(t, http.StatusOK, status, why)
			has(t, page, "Wafflewords of a letter", why)
		}

		_, page := owner.get("/keys")
		has(t, page, "Key-encryption key")
		has(t, page, "by itself, on "+day(in.app.now().Add(indexLife), in.app.zone()))
		for _, path := range []string{"/keys/turn", "/keys/reencrypt"} {
			status, _ := seller.post(path)
			require.Equal(t, http.StatusForbidden, status)
			status, _ = in.session("owner", crmguard.AssuranceSecondFactor, 6*time.Minute).post(path)
			require.Equal(t, http.StatusUnauthorized, status, "without a fresh code")
			status, _ = read(t, owner.do(http.MethodPost, path, nil, "Sec-Fetch-Site", "cross-site"))
			require.Equal(t, http.StatusForbidden, status, "from another site")
		}
		require.Nil(t, in.app.jobs.job(turnJob))
		in.stop()
		older := in.copyKeys("kek.json", "keys.db")
		in.start()

		// Reencrypted first, so that all is under keys that are turned afterwards.
		owner = in.signedIn("owner")
		before := in.sealed(mine)
		_, page = owner.post("/keys/reencrypt")
		has(t, page, "Begun")
		job := in.ended(reencryptJob)
		require.False(t, job.Failed)
		require.Equal(t, 4, job.Keys)
		require.Equal(t, 6, job.Changed, "four contacts, a name and a file")
		require.Zero(t, job.Left)
		require.Equal(t, []int{1, 1}, []int{job.Done, job.All}, "files: the page can say of how many")
		require.NotEqual(t, before, in.sealed(mine))
		all("reencrypted")

		status, page := owner.post("/keys/turn")
		require.Equal(t, http.StatusOK, status)
		has(t, page, `http-equiv="refresh"`)
		status, page = owner.post("/keys/reencrypt")
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "One task at a time")
		job = in.ended(turnJob)
		require.False(t, job.Failed)
		require.NotZero(t, job.Keys)
		require.NotZero(t, job.Gone)
		status, page = owner.get("/keys/live")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The keys were turned")
		hasNot(t, page, `http-equiv="refresh"`)
		all("turned")
		_, page = owner.get("/journal")
		has(t, page, "system:turn")
		has(t, page, "the keys are turned")
		in.stop()
		in.start()
		admin := in.signedIn("admin")
		_, page = admin.get("/keys")
		has(t, page, "The keys were turned", "a restart forgets nothing")
		for _, path := range []string{"/keys/turn", "/keys/reencrypt"} {
			hasNot(t, page, path)
			status, _ = admin.post(path)
			require.Equal(t, http.StatusForbidden, status, "the administrator looks")
		}
		all("started again")

		// The key store alone, or the key file alone, from before: neither opens.
		in.stop()
		newer := in.copyKeys("kek.json", "keys.db")
		for _, name := range []string{"kek.json", "keys.db"} {
			in.putBack(map[string][]byte{name: older[name]})
			in.refused(in.cfg, "is not the one that made keys.db beside it")
			in.putBack(newer)
		}
		// Both of them fit each other, but not what was sealed since.
		in.putBack(older)
		in.refused(in.cfg, "are an older copy")
		in.putBack(newer)
		in.start()
		all("put back")

		// If there is no newer copy: what was sealed since is lost, and nothing else.
		in.stop()
		in.putBack(older)
		alter(t, in.cfg, `DELETE FROM settings WHERE name = 'job-turn'`)
		in.start()
		status, page = in.signedIn("owner").get("/contacts/" + mine)
		require.Equal(t, http.StatusOK, status)
		has(t, page, "This record does not open")
		has(t, page, "does not open</span>", "the attachment")
	})
}

// TestADamagedKeyKeepsNobodyWaiting: the other clients are reencrypted, the page says that not all
// were, and the log which.
func TestADamagedKeyKeepsNobodyWaiting(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(4))
		var log racetest.Buffer
		in.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		in.stop()
		in.start()
		damaged := in.idOf(1)
		scope := encrypt.ClientScope(tenant, damaged)
		was, err := in.app.vault.store.Load(t.Context(), []encrypt.Scope{scope})
		require.NoError(t, err)
		now := slices.Clone(was)
		now[0].Wrapped = bytes.Clone(was[0].Wrapped)
		now[0].Wrapped[20] ^= 1
		_, err = in.app.vault.store.Replace(t.Context(), was, now)
		require.NoError(t, err)
		before := map[string][]byte{}
		for i := range 4 {
			before[in.idOf(i)] = in.sealed(in.idOf(i))
		}

		owner := in.signedIn("owner")
		owner.post("/keys/reencrypt")
		job := in.ended(reencryptJob)
		require.False(t, job.Failed)
		require.Equal(t, 3, job.Keys)
		require.Positive(t, job.Left)
		for id, sealed := range before {
			require.Equal(t, id == damaged, bytes.Equal(sealed, in.sealed(id)), id)
		}
		_, page := owner.get("/keys")
		has(t, page, "The keys of some clients are damaged")
		has(t, page, "the log names them")
		require.Contains(t, log.String(), "clients got no new key")
		require.Contains(t, log.String(), "record="+damaged+" field=phone")
	})
}

// sealed is what is stored of a contact's phone.
func (in *installation) sealed(id string) []byte {
	in.t.Helper()
	var sealed []byte
	require.NoError(in.t, in.app.db.QueryRowContext(in.t.Context(), `SELECT phone FROM contacts WHERE id = $1`, id).Scan(&sealed))
	return sealed
}

// TestTasksGoOn: a task that the end of the program cut off goes on with the next
// start, from where it was, and has one beginning and one end in the journal.
func TestTasksGoOn(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(4))
		owner := in.signedIn("owner")
		last := in.idOf(3)
		for _, name := range []string{turnJob, reencryptJob} {
			if name == reencryptJob { // a row that waits keeps the task from ending
				in.tamper(`INSERT INTO attachments (id, contact, name, size, added_by, created_at) VALUES ('nofileaaaaaaaaaaaaaa', $1, $2, 1, 'seller1', 1)`, last, []byte("no name"))
			}
			status, _ := owner.post("/keys/" + name)
			require.Equal(t, http.StatusOK, status)
			require.Eventually(t, func() bool { job := in.app.jobs.job(name); return job.Step != "" || !job.running() }, 5*time.Second, time.Millisecond)
			in.stop()
			in.start()
			owner = in.signedIn("owner")
			job := in.ended(name)
			require.False(t, job.Failed, name)
			require.Equal(t, "owner", job.By)
			_, page := owner.get("/contacts")
			has(t, page, phoneOf(3))
			_, page = owner.get("/journal?person=system:" + name)
			require.LessOrEqual(t, strings.Count(page, ">attempted</span>"), 1, name)
			require.Equal(t, 1, strings.Count(page, ">done</span>"), name)
		}
		require.Equal(t, 2, in.app.jobs.job(reencryptJob).Left, "what does not open is counted, and keeps nobody waiting")

		// Cut off in the middle of the rows: those that were done are not read again.
		ctx := crmguard.System(t.Context(), tenant, "test")
		ids := column(t, in.app.db.DB, `SELECT id FROM contacts ORDER BY id`)
		slices.Sort(ids)
		for _, id := range ids {
			_, err := in.app.vault.keys.Rotate(ctx, encrypt.Scope{Tenant: tenant, Purpose: encrypt.DataKey, Name: id})
			require.NoError(t, err)
		}
		before := [][]byte{in.sealed(ids[0]), in.sealed(ids[3])}
		require.NoError(t, in.app.storeJob(ctx, keyJob{Name: reencryptJob, ID: "cut", By: "owner", Began: in.app.now(), Step: stepContacts, Cursor: ids[1], Done: 2}))
		in.stop()
		in.start()
		job := in.ended(reencryptJob)
		require.Equal(t, 2, job.Changed)
		require.Equal(t, before[0], in.sealed(ids[0]))
		require.NotEqual(t, before[1], in.sealed(ids[3]))

		// A state that somebody made up begins nothing.
		in.stop()
		alter(t, in.cfg, `UPDATE settings SET value = $1 WHERE name = 'job-turn'`, []byte(`{"name":"turn","id":"x","by":"x","began":"2026-01-01T00:00:00Z"}`))
		in.start()
		require.Nil(t, in.app.jobs.job(turnJob))
		require.NotNil(t, in.app.jobs.job(reencryptJob))
	})
}

// TestUpkeep: keys of contacts that were never stored go, keys of the search are replaced, and
// nobody who exists, or existed a moment ago, loses anything.
func TestUpkeep(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(12))
		ctx := crmguard.System(t.Context(), tenant, "test")
		orphan := crmguard.Place{Tenant: tenant, Client: newContactID(), Kind: kind, Record: "x", Field: "name"}
		_, err := in.app.vault.keys.Seal(ctx, orphan, []byte("rolled back"))
		require.NoError(t, err)
		require.NoError(t, in.app.upkeep(t.Context()))
		state := func(client string) string {
			receipt, err := in.app.vault.keys.Receipt(ctx, tenant, client)
			if err != nil {
				require.ErrorIs(t, err, encrypt.ErrNotErased)
				return "active"
			}
			return receipt.State
		}
		require.Equal(t, "active", state(orphan.Client), "its row may be on the way")

		in.pass(25 * time.Hour)
		// As if an older database had been put back: there were more contacts.
		_, err = in.app.marks.raise(sweepMark, 13)
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, in.app.upkeep(t.Context()))
			require.Equal(t, "active", state(orphan.Client), "it is needed when the newer database is back")
			status, _ := in.signedIn("owner").post("/contacts/new", "name", "Later", "owner", "seller1")
			require.Equal(t, http.StatusOK, status)
		}

		in.app.marks.mu.Lock()
		delete(in.app.marks.highest, sweepMark)
		in.app.marks.mu.Unlock()
		require.NoError(t, in.app.upkeep(t.Context()))
		require.Equal(t, "closing", state(orphan.Client))
		for i := range 12 {
			require.Equal(t, "active", state(in.idOf(i)))
		}
		in.pass(2 * time.Minute)
		require.NoError(t, in.app.finishErasuresOnce(t.Context()))
		require.Equal(t, "destroyed", state(orphan.Client))

		// Keys of the search that are too old are replaced, and everybody is found all the
		// time; imported rows are known again for half that time.
		old := in.indexKey()
		in.pass(indexLife / 2)
		require.NoError(t, in.app.upkeep(t.Context()))
		report, err := in.app.Import(in.importing(), sample(12), nil, nil)
		require.NoError(t, err)
		require.Zero(t, report.Added)
		in.pass(indexLife / 2)
		for range 3 {
			require.NoError(t, in.app.upkeep(t.Context()))
			_, page := in.signedIn("owner").post("/contacts/search", "query", phoneOf(5))
			has(t, page, "1 contact found")
			in.pass(time.Hour)
		}
		imported, err := in.app.vault.store.Load(t.Context(), []encrypt.Scope{importKeyScope})
		require.NoError(t, err)
		require.NotEmpty(t, imported)
		require.True(t, imported[0].CreatedAt.After(old), "nothing tells any more who was imported then")
		require.True(t, in.indexKey().After(old))
	})
}

// TestWorkGoesOnMeanwhile: while clients are reencrypted and keys of the search replaced,
// files are imported, contacts added, changed, forgotten and found.
func TestWorkGoesOnMeanwhile(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.pass(indexLife / 2)
		require.NoError(t, in.app.upkeep(t.Context()))
		in.pass(indexLife / 2)
		old, first, gone := in.indexKey(), in.idOf(0), in.idOf(59)
		owner := in.signedIn("owner")
		header, rows, _ := strings.Cut(string(sample(90)), "\n")
		file := []byte(header + "\n" + strings.Join(strings.SplitAfter(rows, "\n")[60:], ""))
		found := func(b *browser, phone string) {
			_, page := b.post("/contacts/search", "query", phone)
			has(t, page, "1 contact found", phone)
		}

		status, _ := owner.post("/keys/reencrypt")
		require.Equal(t, http.StatusOK, status)
		var all sync.WaitGroup
		var kept, imported error
		var report ImportReport
		all.Go(func() { kept = in.app.upkeep(t.Context()) })
		all.Go(func() { report, imported = in.app.Import(in.importing(), file, nil, nil) })
		seller := in.signedIn("seller1")
		all.Go(func() {
			for i := range 10 {
				status, _ := seller.post("/contacts/new", "name", "Meanwhile", "phone", fmt.Sprintf("+7916444%04d", i), "country", "RU", "owner", "seller1")
				require.Equal(t, http.StatusOK, status)
				status, _ = seller.post("/contacts/"+first+"/edit", "version", strconv.Itoa(i+1), "name", "Changed", "phone", fmt.Sprintf("+7916333%04d", i), "country", "RU", "owner", "seller1")
				require.Equal(t, http.StatusOK, status)
				found(seller, fmt.Sprintf("+7916333%04d", i))
			}
		})
		all.Go(func() {
			for i := 1; i < 59; i++ {
				found(owner, phoneOf(i))
			}
			_, page := owner.post("/contacts/"+gone+"/forget", "reason", "client-request")
			has(t, page, "This is the receipt")
		})
		all.Wait()
		require.NoError(t, errors.Join(kept, imported))
		require.Equal(t, 30, report.Added)

		job := in.ended(reencryptJob)
		require.False(t, job.Failed)
		require.Zero(t, job.Left)
		for range 2 { // the old keys go when nobody can be writing under them any more
			in.pass(time.Hour)
			require.NoError(t, in.app.upkeep(t.Context()))
		}
		require.True(t, in.indexKey().After(old))
		owner = in.signedIn("owner")
		for i := 1; i < 90; i++ {
			if i != 59 {
				found(owner, phoneOf(i))
			}
		}
		found(owner, "+79164440009")
		found(owner, "+79163330009")
		_, page := owner.post("/contacts/search", "query", phoneOf(59))
		has(t, page, "0 contacts found")
		report, imported = in.app.Import(in.importing(), file, nil, nil)
		require.NoError(t, imported)
		require.Zero(t, report.Added)
	})
}

// indexKey is when the oldest key of the search by phone was made.
func (in *installation) indexKey() time.Time {
	in.t.Helper()
	list, err := in.app.vault.store.List(in.t.Context(), encrypt.Record{Scope: encrypt.Scope{Tenant: tenant, Purpose: encrypt.IndexKey}}, 100)
	require.NoError(in.t, err)
	i := slices.IndexFunc(list, func(r encrypt.Record) bool { return strings.HasPrefix(r.Scope.Name, "phone/") })
	require.NotEqual(in.t, -1, i)
	return list[i].CreatedAt
}
