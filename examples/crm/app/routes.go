package app

import (
	"context"
	"errors"
	"net/http"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// maxForm is the size of the largest form that is read.
const maxForm = 64 << 10

// routes says which right each page needs. A page that is not here does not exist.
func (a *App) routes() http.Handler {
	g, mux := a.guard, http.NewServeMux()
	a.mux = mux
	mux.Handle("GET /static/", a.pages.static())
	mux.Handle("GET /{$}", http.RedirectHandler("/contacts", http.StatusSeeOther))
	mux.HandleFunc("GET /sign-in", a.signInPage)
	mux.HandleFunc("POST /sign-in", a.signIn)
	mux.HandleFunc("POST /sign-out", a.signOut)
	mux.HandleFunc("POST /confirm", a.confirm)

	mux.Handle("GET /me", g.Protect(crmguard.Access, ownFactors(""), a.me))
	mux.Handle("POST /me/apps", g.ProtectAct(crmguard.Configure, ownFactors("add-app"), a.addApp))
	mux.Handle("POST /me/apps/confirm", g.ProtectAct(crmguard.Configure, ownFactors("confirm-app"), a.confirmApp))
	mux.Handle("POST /me/apps/{id}/remove", g.ProtectAct(crmguard.Configure, a.ownAppOf, a.removeApp))
	mux.Handle("POST /me/recovery", g.ProtectAct(crmguard.Configure, ownFactors("replace-recovery-codes"), a.replaceRecovery))
	mux.Handle("POST /me/sessions/{id}/end", g.ProtectAct(crmguard.Revoke, a.ownSessionOf, a.endSession))

	mux.Handle("GET /contacts", g.Protect(crmguard.List, allContacts, a.list))
	mux.HandleFunc("POST /contacts/search", a.remember(a.contactSearch()))
	mux.Handle("GET /contacts/search", g.ProtectAct(crmguard.Search, a.sought(a.contactSearch()), a.search))
	mux.HandleFunc("GET /contacts/export", a.exportForm)
	mux.Handle("POST /contacts/export", g.ProtectAct(crmguard.Export, a.exportedContacts, a.export))
	mux.HandleFunc("GET /contacts/new", a.blankForm)
	mux.Handle("POST /contacts/new", g.ProtectAct(crmguard.Create, a.newContact, a.create))
	mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, a.contactOf, a.card))
	mux.Handle("GET /contacts/{id}/edit", g.Protect(crmguard.View, a.contactOf, a.editForm))
	mux.Handle("POST /contacts/{id}/edit", g.ProtectAct(crmguard.Update, a.contactOf, a.edit))
	mux.Handle("POST /contacts/{id}/reveal", g.ProtectAct(crmguard.Reveal, a.revealedField, a.reveal))
	mux.Handle("POST /contacts/{id}/call", g.ProtectAct(crmguard.Call, a.calledContact, a.call))
	mux.Handle("GET /contacts/{id}/forget", g.Protect(crmguard.View, a.contactOf, a.forgetForm))
	mux.Handle("POST /contacts/{id}/forget", g.ProtectAct(crmguard.Erase, a.forgottenContact, a.forget))
	mux.Handle("GET /contacts/{id}/receipt", g.Protect(crmguard.View, a.contactOf, a.downloadReceipt))
	mux.Handle("GET /contacts/{id}/extract", g.Protect(crmguard.Access, a.extractedContact, a.downloadExtract))
	mux.Handle(uploadRoute, g.ProtectAct(crmguard.Update, a.attachmentsOfContact, a.upload))
	mux.Handle("POST /contacts/{id}/attachments/{file}/download", g.ProtectAct(crmguard.Reveal, a.fetchedAttachment, a.download))
	mux.Handle("POST /contacts/{id}/attachments/{file}/delete", g.ProtectAct(crmguard.Update, a.attachmentOf, a.detach))

	mux.Handle("GET /journal", g.Protect(crmguard.Access, section("journal"), a.journalPage))
	mux.HandleFunc("POST /journal/find", a.remember(a.journalSearch()))
	mux.Handle("GET /journal/find", g.Protect(crmguard.Access, a.sought(a.journalSearch()), a.findInJournal))
	mux.HandleFunc("GET /journal/live", a.liveJournal)
	mux.Handle("GET /journal/entries/{entry}", g.Protect(crmguard.Access, numbered("entry"), a.entryPage))
	mux.Handle("GET /journal/entries/{entry}/proof", g.Protect(crmguard.Access, numbered("proof"), a.proveEntry))
	mux.Handle("POST /journal/verify", g.ProtectAct(crmguard.Access, verified, a.verifyJournal))
	mux.HandleFunc("GET /journal/verification", a.verificationPage)
	mux.Handle("POST /journal/open", g.ProtectAct(crmguard.Reveal, journalEntry, a.openEntry))
	mux.Handle("GET /exchange", g.Protect(crmguard.Access, section("exchange"), a.exchangePage))
	mux.Handle("GET /alerts", g.Protect(crmguard.Access, section("alerts"), a.alertsPage))
	mux.HandleFunc("GET /alerts/live", a.liveAlerts)
	mux.Handle("GET /receipts", g.Protect(crmguard.Access, section("receipts"), a.receiptsPage))
	mux.Handle(receiptRoute, g.ProtectAct(crmguard.Access, receiptCheck, a.checkReceipt))
	mux.Handle("GET /keys", g.Protect(crmguard.Access, section("keys"), a.keysPage))
	mux.HandleFunc("GET /keys/live", a.liveKeys)
	mux.Handle("POST /keys/turn", g.ProtectAct(crmguard.Configure, keysOf(turnJob), a.begin(turnJob)))
	mux.Handle("POST /keys/reencrypt", g.ProtectAct(crmguard.Configure, keysOf(reencryptJob), a.begin(reencryptJob)))
	mux.Handle("GET /settings", g.Protect(crmguard.Access, section("settings"), a.settingsPage))
	mux.Handle("POST /settings/norms", g.ProtectAct(crmguard.Configure, settingOf(normsSetting), a.changeNorms))
	mux.Handle("POST /settings/addresses", g.ProtectAct(crmguard.Configure, settingOf(addressSetting), a.changeAddresses))
	mux.Handle("POST /settings/addresses/explain", g.ProtectAct(crmguard.Access, explained, a.explainAddress))
	mux.Handle("GET /staff", g.Protect(crmguard.Access, section("staff"), a.staffPage))
	mux.Handle("POST /staff/{login}/role", g.ProtectAct(crmguard.Grant, a.personOf, a.changeRole))
	mux.Handle("POST /staff/{login}/dismiss", g.ProtectAct(crmguard.Revoke, a.personOf, a.dismiss))
	mux.Handle("GET /staff/{login}/leaver", g.Protect(crmguard.Access, a.reviewed, a.leaverPage))
	mux.HandleFunc("GET /staff/{login}/leaver/live", a.liveLeaver)
	mux.Handle("POST /staff/{login}/handover", g.ProtectAct(crmguard.Revoke, a.personOf, a.handOverContacts))
	mux.Handle("GET /deputies/{login}", g.Protect(crmguard.Access, a.deputiesOf, a.deputiesPage))
	mux.Handle("POST /deputies/{login}/set", g.ProtectAct(crmguard.Configure, a.deputiesOf, a.setDeputy))
	mux.Handle("POST /deputies/{login}/end", g.ProtectAct(crmguard.Configure, a.deputiesOf, a.endDeputy))
	mux.Handle("GET /rights", g.Protect(crmguard.Access, section("rights"), a.rightsPage))
	mux.Handle("GET /rights/history", g.Protect(crmguard.Access, section("rights"), a.rightsHistory))
	mux.Handle("POST /rights/history/{version}/back", g.Protect(crmguard.Access, drafting, a.draftOlder))
	mux.Handle("POST /rights/why", g.Protect(crmguard.Access, section("rights"), a.findRefusal))
	mux.Handle("GET /journal/entries/{entry}/why", g.Protect(crmguard.Access, explainedEntry, a.whyPage))
	mux.Handle("GET /rights/{holder}", g.Protect(crmguard.Access, section("rights"), a.holderPage))
	mux.Handle("POST /rights/{holder}", g.Protect(crmguard.Access, drafting, a.draftHolder))
	mux.HandleFunc("GET /rights/draft", a.draftPage)
	mux.Handle("POST /rights/draft", g.Protect(crmguard.Access, drafting, a.draftRows))
	mux.Handle("POST /rights/draft/discard", g.Protect(crmguard.Access, drafting, a.discardDraft))
	mux.Handle("POST /rights/draft/save", g.ProtectAct(crmguard.Configure, a.savedDraft, a.saveDraft))
	mux.Handle("GET /lockdown", g.Protect(crmguard.Access, section("lockdown"), a.lockdownPage))
	mux.Handle("POST /lockdown", g.ProtectAct(crmguard.Revoke, lockdownResource, a.lockDown))
	mux.Handle("POST /lockdown/reopen", g.ProtectAct(crmguard.Grant, lockdownResource, a.reopen))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { g.WriteError(w, r, guard.ErrNotFound) })

	origin := http.NewCrossOriginProtection() // no page of another site can send our forms
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.WriteError(w, r, &guard.Problem{Status: http.StatusForbidden, Title: "Sent from another site", Code: "cross-origin",
			Detail: "The form did not come from a page of this CRM, so it was not read. Open the page here and try again."})
	}))
	return a.secured(origin.Handler(g.Handler(withState(mux))))
}

// secured sets the headers of every answer and bounds every form. Pages load
// nothing from elsewhere, run no inline script and are framed by nobody.
func (a *App) secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), display-capture=()")
		if !a.cfg.Loopback {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, a.largest(r))
		next.ServeHTTP(w, r)
	})
}

// largest is how much of a request is read. Of a file that is too large some more is,
// so that its sender is told.
func (a *App) largest(r *http.Request) int64 {
	switch _, pattern := a.mux.Handler(r); pattern {
	case uploadRoute, receiptRoute:
		return 4 * maxFile
	}
	return maxForm
}

// state carries what a loader found to the handler behind it, and what a handler
// wants to be drawn instead of a plain error.
type state struct {
	contact  *Contact
	search   *searchBox
	query    string // that was typed into it
	file     *attachment
	person   account
	confirm  *confirmPage
	enrol    *enrolPage
	form     *formPage
	settings *settingsView
	draft    *draftView
	deputies *deputiesView
	export   *exportPage  // a form that is not in order
	order    *exportOrder // one that is
}

type stateKey struct{}

func withState(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stateKey{}, new(state))))
	})
}

func stateOf(ctx context.Context) *state {
	if s, ok := ctx.Value(stateKey{}).(*state); ok {
		return s
	}
	return new(state)
}

// Loaders: what a request is about, from the server's own data.

func allContacts(*http.Request) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: tenant, Kind: kind}, nil
}

func section(name string) guard.Loader {
	return func(*http.Request) (crmguard.Resource, error) {
		return sectionOf(name), nil
	}
}

func sectionOf(name string) crmguard.Resource {
	return crmguard.Resource{Tenant: tenant, Kind: "section:" + name}
}

// contactOf finds the contact that the path names.
func (a *App) contactOf(r *http.Request) (crmguard.Resource, error) {
	c, err := a.db.contact(r.Context(), r.PathValue("id"))
	if errors.Is(err, errNoContact) {
		return crmguard.Resource{Tenant: tenant, Kind: kind}, guard.ErrNotFound
	}
	if err != nil {
		return crmguard.Resource{}, err
	}
	stateOf(r.Context()).contact = c
	return c.resource(), nil
}

// readForm parses the form of a request; one that is too large stays an error
// that says so.
func readForm(r *http.Request) error {
	err := r.ParseForm()
	if err == nil {
		return nil
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return err
	}
	return unreadable()
}

func unreadable() error {
	return &guard.Problem{Status: http.StatusBadRequest, Title: "The form could not be read", Code: "form",
		Detail: "It did not arrive whole, or is not one of this CRM's, so nothing of it was done. Go back and send it again."}
}

// subjectOf returns who acts. Behind Protect there always is somebody.
func subjectOf(ctx context.Context) crmguard.Subject {
	s, _ := crmguard.SubjectFrom(ctx)
	return s
}
