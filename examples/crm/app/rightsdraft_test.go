package app

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

var draftForm = regexp.MustCompile(`name="draft" value="([A-Z2-7]+)"`)

// prepare types rows, and returns the page that says what they would mean.
func (b *browser) prepare(rows ...string) string {
	b.t.Helper()
	status, page := b.post("/rights/draft", "rows", strings.Join(rows, "\n"))
	require.Equal(b.t, http.StatusOK, status)
	return page
}

// put saves the draft of a page.
func (b *browser) put(page, reason string) (int, string) {
	b.t.Helper()
	match := draftForm.FindStringSubmatch(page)
	require.NotNil(b.t, match, "the page %q lacks the form", heading(page))
	form := []string{"version", version(b.t, page), "draft", match[1], "reason", reason}
	if strings.Contains(page, `name="lost"`) {
		form = append(form, "lost", match[1])
	}
	return b.post("/rights/draft/save", form...)
}

// change prepares rows and saves them.
func (b *browser) change(rows ...string) {
	b.t.Helper()
	status, page := b.put(b.prepare(rows...), "a test")
	require.Equal(b.t, http.StatusOK, status, page)
}

// choices are the fields of the form of one role, as a page shows them but for these.
func choices(t *testing.T, page string, changed ...string) []string {
	t.Helper()
	form := []string{"version", version(t, page)}
	for _, field := range regexp.MustCompile(`<select id="r-[0-9-]+" name="([^"]+)">(.*?)</select>`).FindAllStringSubmatch(page, -1) {
		chosen := regexp.MustCompile(`value="([a-z]+)" selected`).FindStringSubmatch(field[2])
		require.NotNil(t, chosen, field[1])
		form = append(form, field[1], chosen[1])
	}
	require.Greater(t, len(form), 100)
	return append(form, changed...)
}

const (
	phonesOfHeads = "+ p, role:head, default, contacts#phone, unmask, tree, allow"
	farewell      = "- p, role:owner, default, rights, configure, all, allow"
)

// TestRightsAreChanged: what a change would mean is said before it is saved, and nothing
// holds before that.
func TestRightsAreChanged(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(9))
		owner, head := in.signedIn("owner"), in.signedIn("head")
		_, page := owner.get("/rights")
		has(t, page, `href="/rights/role:head#row-`)
		_, page = owner.get("/rights/role:head")
		has(t, page, "p, role:head, default, contacts#phone, reveal, tree, allow")
		status, page := owner.post("/rights/role:head", choices(t, page, "contacts#phone|unmask", "tree")...)
		require.Equal(t, http.StatusOK, status)
		// Head of Sales has the contacts of Sales and of Sales / North, head2 those of Support.
		has(t, page, "+9 phones")
		has(t, page, "2 people can see them in the clear")
		has(t, page, "head +6, head2 +3")
		has(t, page, phonesOfHeads[2:])
		_, list := head.get("/contacts")
		hasNot(t, list, "+7916555", "not yet")
		require.Empty(t, in.changes(rightsKind, crmguard.Attempted))

		status, again := owner.put(page, " ")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		has(t, again, "Say why")
		status, again = in.session("owner", crmguard.AssurancePassword, 0).put(page, "they ring them anyway")
		require.Equal(t, http.StatusUnauthorized, status, "saving wants a fresh code")
		has(t, again, `name="back" value="/rights/draft"`)
		_, page = owner.get("/rights/draft")
		has(t, page, `value="they ring them anyway"`, "nothing is lost meanwhile")

		status, page = owner.put(page, "they ring them anyway")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "The rights are in force")
		_, list = head.get("/contacts")
		has(t, list, "+7916555")
		_, page = owner.get("/rights/history")
		has(t, page, "they ring them anyway")
		has(t, page, phonesOfHeads[2:])
		done := in.changes(rightsKind, crmguard.Done)
		require.Len(t, done, 1)
		require.Equal(t, "owner", done[0].Subject.ID)
		require.Equal(t, 1, done[0].Count)
		require.Equal(t, fmt.Sprintf("version:%d", in.app.rights.Status().Stored.Number), done[0].Reason)
		_, page = owner.get("/rights/draft")
		has(t, page, "Choose rights of a role", "it is done")

		in.stop()
		in.start()
		_, list = in.signedIn("head").get("/contacts")
		has(t, list, "+7916555")
	})
}

// TestWhoMayChangeRights: whoever lacks the right is refused each page and each form of
// it, and so is another site.
func TestWhoMayChangeRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner := in.signedIn("owner")
		page := owner.prepare(phonesOfHeads)
		before := in.app.rights.Version()
		pages := []string{"/rights", "/rights/role:head", "/rights/draft", "/rights/history"}
		forms := []string{"/rights/role:head", "/rights/draft", "/rights/draft/discard", "/rights/draft/save", "/rights/history/1/back", "/rights/why"}
		fill := []string{"version", version(t, page), "draft", draftForm.FindStringSubmatch(page)[1], "reason", "x", "rows", phonesOfHeads}
		for _, login := range []string{"head", "seller1", "accountant"} {
			b := in.signedIn(login)
			for _, path := range pages {
				status, _ := b.get(path)
				require.Equal(t, http.StatusForbidden, status, path)
			}
			for _, path := range forms {
				status, _ := b.post(path, fill...)
				require.Equal(t, http.StatusForbidden, status, path)
			}
		}
		admin := in.signedIn("admin") // looks, and asks why
		for _, path := range []string{"/rights", "/rights/role:head", "/rights/history"} {
			status, page := admin.get(path)
			require.Equal(t, http.StatusOK, status, path)
			hasNot(t, page, "What if", path)
			hasNot(t, page, "<select", path)
		}
		for _, path := range slices.DeleteFunc(forms, func(path string) bool { return path == "/rights/why" || path == "/rights/draft/discard" }) {
			status, _ := admin.post(path, fill...)
			require.Equal(t, http.StatusForbidden, status, path)
			status, _ = read(t, owner.do(http.MethodPost, path, fields(fill...), "Sec-Fetch-Site", "cross-site"))
			require.Equal(t, http.StatusForbidden, status, path)
			status, _ = in.browser().post(path, fill...)
			require.Equal(t, http.StatusUnauthorized, status, path)
		}
		require.Equal(t, before, in.app.rights.Version())
		require.True(t, in.app.drafts.of("admin").empty())
		status, _ := owner.put(page, "the form that the others sent")
		require.Equal(t, http.StatusOK, status)

		// With rules that give it the same requests pass: it is the rights that refuse them.
		in.allow([]string{"role:head", tenant, "section:rights", "access", "all", "allow"})
		head := in.signedIn("head")
		for _, path := range []string{"/rights", "/rights/role:head", "/rights/history"} {
			status, _ := head.get(path)
			require.Equal(t, http.StatusOK, status, path)
		}
		status, _ = head.post("/rights/draft", "rows", phonesOfHeads)
		require.Equal(t, http.StatusForbidden, status)
		in.allow([]string{"role:head", tenant, rightsKind, "configure", "all", "allow"})
		head.change("- p, role:seller, default, contacts#note, reveal, own, allow")
	})
}

// TestTwoChangesOfRights: whoever looked at other rights than those in force looks again,
// and loses nothing of what they prepared.
func TestTwoChangesOfRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		_, err := in.app.AddAccount(t.Context(), NewAccount{Login: "anna", Role: "owner"})
		require.NoError(t, err)
		anna, owner := in.signedIn("anna"), in.signedIn("owner")
		page := owner.prepare(phonesOfHeads)
		_, form := owner.get("/rights/role:seller")
		anna.change("- p, role:seller, default, contacts#note, reveal, own, allow")
		status, page := owner.put(page, "mine")
		require.Equal(t, http.StatusConflict, status)
		has(t, page, "Somebody changed the rights meanwhile")
		has(t, page, phonesOfHeads[2:])
		has(t, page, `value="mine"`)
		// A form of before says what was chosen on it, and nothing of what others changed.
		status, page = owner.post("/rights/role:seller", choices(t, form, "contacts#email|unmask", "own")...)
		require.Equal(t, http.StatusOK, status)
		hasNot(t, page, "+ p, role:seller, default, contacts#note, reveal")
		// Another window of the same person.
		other := owner.prepare(phonesOfHeads, "+ p, role:seller, default, contacts#email, unmask, own, allow")
		status, _ = owner.put(page, "mine")
		require.Equal(t, http.StatusConflict, status)
		status, _ = owner.put(other, "mine")
		require.Equal(t, http.StatusOK, status)
		rows, err := in.app.policy.Load(t.Context())
		require.NoError(t, err)
		for row, there := range map[string]bool{
			phonesOfHeads[2:]: true, "p, role:seller, default, contacts#email, unmask, own, allow": true, "p, role:seller, default, contacts#note, reveal, own, allow": false,
		} {
			require.Equal(t, there, hasRow(rows.Rules, strings.Split(row, ", ")), row)
		}
		history, err := in.app.rights.History(t.Context(), tenant, 0, 1)
		require.NoError(t, err)
		require.Equal(t, "mine", history[0].Reason)
	})
}

// TestWhatThePageDoesNotSave: rights that nobody may give, and what is decided elsewhere. The
// rows are sound: the program itself can store them, so that it is the page that refuses.
func TestWhatThePageDoesNotSave(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		require.NoError(t, in.app.sessions.ClosePerson(t.Context(), tenant, "seller4"))
		owner := in.signedIn("owner")
		job := crmguard.System(t.Context(), tenant, "test")
		for rows, why := range map[string]string{
			"+ p, role:owner, default, contacts, delete, all, allow":                                       "Nobody gives what they lack",
			"+ p, u:owner, default, contacts, delete, own, allow":                                          "You would get a right yourself",
			"+ p, role:seller, default, contacts, delete, own, allow":                                      "Nobody gives what they lack",
			"+ g, role:owner, role:clerk, default\n+ p, role:clerk, default, contacts, delete, own, allow": "Nobody gives what they lack",
			farewell: "Nobody who can sign in could change rights any more",
			"- p, role:owner, default, section:rights, access, all, allow": "Nobody who can sign in could change rights any more",
			"+ p, u:owner, default, rights, configure, all, deny":          "Nobody who can sign in could change rights any more",
			"+ g, u:seller1, role:owner, default":                          "changed on the staff page",
			"+ p2, u:seller1, role:owner, default, 2099-01-01T00:00:00Z":   "changed on the staff page",
			"- g, u:admin, role:admin, default":                            "changed on the staff page",
			"+ p, u:seller4, default, contacts, view, all, allow":          "nobody with this login works here",
			"+ p, u:ghost, default, contacts, view, all, allow":            "nobody with this login works here",
			"+ p, u:system:sweep, default, contacts, view, all, allow":     "nobody with this login works here",
		} {
			stored, err := in.app.policy.Load(t.Context())
			require.NoError(t, err)
			page := owner.prepare(rows)
			form := fields("version", fmt.Sprint(stored.Version.Number), "draft", in.app.drafts.of("owner").ID, "reason", "an attack")
			answer := owner.do(http.MethodPost, "/rights/draft/save", form)
			status, refused := read(t, answer)
			require.Contains(t, []int{http.StatusForbidden, http.StatusUnprocessableEntity}, status, rows)
			has(t, page+refused, why, rows)
			require.Equal(t, stored.Version.Digest, in.app.rights.Version(), rows)

			draft, problem := parseDraft(rows)
			require.Empty(t, problem)
			saved, err := in.app.rights.Replace(job, tenant, stored.Version.Number, draft.on(stored.Rules), "the page would not")
			require.NoError(t, err, rows)
			_, err = in.app.rights.Replace(job, tenant, saved.Number, stored.Rules, "as it was")
			require.NoError(t, err)
		}
		for rows, why := range map[string]string{
			"+ p, role:head, elsewhere, contacts, export, all, allow": "it is of another tenant",
			"+ p, role:head, default, contacts, fly, all, allow":      "fly",
			"+ p, head, default, contacts, view, all, allow":          "head",
			"+ g, role:head, role:head, default":                      "role:head",
		} {
			page := owner.prepare(rows)
			has(t, page, "This cannot be saved", rows)
			has(t, page, why, rows)
			hasNot(t, page, "Put it in force", rows)
		}
		for _, rows := range []string{"p, role:head, default, contacts, export, all, allow", "+", "-", "+ g2, own, all, x", "+ x", "= p, a, b, c", "<b>"} {
			status, page := owner.post("/rights/draft", "rows", rows)
			require.Equal(t, http.StatusUnprocessableEntity, status, rows)
			has(t, page, `class="error"`, rows)
		}
	})
}

// TestAnotherMayChangeRights: the last one is the last who can sign in, not the last of a
// role.
func TestAnotherMayChangeRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		owner := in.signedIn("owner")
		owner.change("+ p, role:admin, default, rights, configure, all, allow")
		has(t, owner.prepare(farewell), "You could not give them back to yourself")
		owner.change(farewell)
		status, _ := owner.get("/rights/draft")
		require.Equal(t, http.StatusForbidden, status)
		admin := in.signedIn("admin")
		has(t, admin.prepare("- p, role:admin, default, rights, configure, all, allow"), "Nobody who can sign in")
		status, _ = admin.post("/deputies/admin/set", "deputy", "seller2", "from", in.day(0), "to", in.day(9))
		require.Equal(t, http.StatusOK, status)
		status, _ = in.signedIn("seller2").get("/rights/draft")
		require.Equal(t, http.StatusOK, status, "but only for as long")
		for path, form := range map[string][]string{"role": {"role", "seller"}, "dismiss": nil} {
			status, page := owner.post("/staff/admin/"+path, form...)
			require.Equal(t, http.StatusConflict, status, path)
			has(t, page, "the last one who may change rights")
		}
		require.NoError(t, in.app.sessions.ClosePerson(t.Context(), tenant, "admin"))
		stored, err := in.app.policy.Load(t.Context())
		require.NoError(t, err)
		left, err := in.app.whoMayChangeRights(t.Context(), stored.Rules)
		require.NoError(t, err)
		require.Empty(t, left, "who is closed cannot")
	})
}

// TestWhatIfCounts: the numbers of a page are those of the rows that both policies choose
// in SQL.
func TestWhatIfCounts(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(60))
		in.tamper(`UPDATE contacts SET phone = NULL WHERE seq % 4 = 0`)
		in.tamper(`UPDATE contacts SET owner = '' WHERE seq % 5 = 0`)
		ctx := crmguard.System(t.Context(), tenant, "test")
		stored, err := in.app.policy.Load(ctx)
		require.NoError(t, err)
		draft, _ := parseDraft(`
			- p, role:seller, default, contacts, view, own, allow
			+ p, role:seller, default, contacts, view, dept, allow
			- p, role:seller, default, contacts, list, own, allow
			+ p, role:seller, default, contacts, list, dept, allow
			- p, role:seller, default, contacts#phone, reveal, own, allow
			+ p, role:seller, default, contacts#phone, reveal, all, allow
			+ p, u:head2, default, contacts#phone, reveal, own, deny
			- p, role:accountant, default, contacts, list, all, allow`)
		then, err := in.app.rights.Draft(ctx, tenant, draft.on(stored.Rules))
		require.NoError(t, err)
		change, err := in.app.rights.WhatIf(ctx, tenant, then)
		require.NoError(t, err)
		effects, err := in.app.effects(ctx, then, change)
		require.NoError(t, err)

		// chosen are the ids that one policy chooses.
		chosen := func(e *rbac.Engine, login, object string, action crmguard.Action, column string) map[string]bool {
			filter, err := e.Filter(ctx, crmguard.Subject{Tenant: tenant, ID: login, Kind: employee}, action, object)
			require.NoError(t, err)
			where, args, err := filter.SQL(contactColumns, 1)
			require.NoError(t, err)
			rows, err := in.app.db.QueryContext(ctx, `SELECT id FROM contacts WHERE `+column+` IS NOT NULL AND `+where, args...)
			require.NoError(t, err)
			defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
			ids := map[string]bool{}
			for rows.Next() {
				var id string
				require.NoError(t, rows.Scan(&id))
				ids[id] = true
			}
			require.NoError(t, rows.Err())
			return ids
		}
		gained, each := map[string]bool{}, []string{}
		for _, login := range []string{"seller1", "seller2", "seller3", "seller4", "seller5"} {
			n := 0
			before, visible := chosen(in.app.rights, login, "contacts#phone", crmguard.Reveal, "phone"), chosen(then, login, kind, crmguard.View, "id")
			for id := range chosen(then, login, "contacts#phone", crmguard.Reveal, "phone") {
				if visible[id] && !before[id] {
					gained[id] = true
					n++
				}
			}
			if n > 0 {
				each = append(each, fmt.Sprintf("%s +%d", login, n))
			}
		}
		require.NotEmpty(t, each)
		i := slices.IndexFunc(effects, func(e effect) bool { return strings.Contains(e.Text, "can reveal them") })
		require.Equal(t, fmt.Sprintf("+%d phones", len(gained)), effects[i].Amount)
		require.Equal(t, each, effects[i].Each)
		var told []string
		for _, e := range effects {
			told = append(told, e.Amount+": "+e.Text)
		}
		require.Contains(t, told, "−60 contacts: 1 person can no longer find them in lists")
		require.Contains(t, strings.Join(told, "\n"), "can open them")
	})
}

func FuzzParseDraft(f *testing.F) {
	f.Add("+ p, role:head, default, contacts, export, tree, allow\n- g, role:a, role:b, default")
	f.Add("+\n-\n+p,,,\n− x")
	f.Fuzz(func(t *testing.T, typed string) {
		draft, problem := parseDraft(typed)
		if problem != "" {
			return
		}
		again, problem := parseDraft(draft.text())
		require.Empty(t, problem)
		require.Equal(t, draft, again)
	})
}
