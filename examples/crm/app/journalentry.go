package app

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
)

// entryView is what entry.html shows.
type entryView struct {
	entry
	Recorded time.Time
	Facts    []fact

	MayOpen, MayExplain bool
}

// fact is one line about an entry.
type fact struct{ Name, Text string }

// numbered is what a request for one entry is about.
func numbered(what string) guard.Loader {
	return func(r *http.Request) (crmguard.Resource, error) {
		seq, err := readNumber(r.PathValue("entry"))
		if err != nil {
			return sectionOf("journal"), err
		}
		guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = what + ":" + strconv.FormatInt(seq, 10) })
		return section("journal")(r)
	}
}

// entryPage shows all that an entry says.
func (a *App) entryPage(w http.ResponseWriter, r *http.Request) error {
	e, err := a.entryAt(r.Context(), r.PathValue("entry"))
	if err != nil {
		return err
	}
	view := entryView{
		entry: describe(e), Recorded: e.Recorded, Facts: facts(e),
		MayOpen: a.mayOpenSealed(r),
		MayExplain: explainable(e.Event) && notTheirOwn(subjectOf(r.Context()), e.Event) == nil &&
			a.may(r, crmguard.Access, sectionOf("rights")),
	}
	return a.render(w, http.StatusOK, "entry", a.page(r, "Entry "+strconv.FormatInt(e.Seq, 10), true, view))
}

// facts are what the line of an entry in the list leaves out.
func facts(e audit.Entry) []fact {
	ev := e.Event
	var list []fact
	add := func(name, text string) {
		if text != "" {
			list = append(list, fact{name, text})
		}
	}
	add("Kind", ev.Resource.Kind)
	add("Field", ev.Resource.Field)
	add("Reason", ev.Reason)
	add("Fields", strings.Join(ev.Fields, ", "))
	if ev.Count > 0 {
		add("Records", strconv.Itoa(ev.Count))
	}
	add("Sealed", strings.Join(sealedNames(e), ", "))
	add("On behalf of", ev.Subject.OnBehalfOf)
	if ev.Subject.Addr.IsValid() {
		add("Address", ev.Subject.Addr.String())
	}
	add("Device", ev.Subject.Device)
	add("Session", ev.Subject.Session)
	if ev.Subject.Kind != crmguard.KindSystem {
		add("Proved by", ev.Subject.Assurance.String())
	}
	add("Request", ev.Request)
	add("Policy", ev.Policy)
	add("Act", ev.ID)
	return list
}

// extractedContact is the erased client whose acts somebody wants as a file.
func (a *App) extractedContact(r *http.Request) (crmguard.Resource, error) {
	if _, err := a.contactOf(r); err != nil {
		return receipts, err
	}
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "extract" })
	return receipts, nil
}

// downloadExtract sends all entries about an erased client, each with its proof, and a
// signature that these are all: what goes with an act of destruction of personal data.
func (a *App) downloadExtract(w http.ResponseWriter, r *http.Request) error {
	c := stateOf(r.Context()).contact
	if err := a.guard.Check(r.Context(), crmguard.View, c.resource()); err != nil {
		return err
	}
	if _, err := a.vault.keys.Receipt(r.Context(), tenant, c.ID); err != nil {
		if errors.Is(err, encrypt.ErrNotErased) {
			return guard.ErrNotFound
		}
		return err
	}
	var extract bytes.Buffer
	made, err := a.journal.Extract(r.Context(), audit.Query{Tenant: tenant, Kind: kind, Record: c.ID}, &extract)
	if failed, ok := errors.AsType[*audit.VerifyError](err); ok {
		a.log.ErrorContext(r.Context(), "no extract was made", "error", err)
		return &guard.Problem{Status: http.StatusInternalServerError, Title: explain(failed.Report).Title, Code: unverifiedProblem,
			Detail: "An extract of it would prove nothing, so there is none. Open the journal and press Verify, which says more; tell the administrator before anything else is done."}
	}
	if err != nil {
		return err
	}
	forgotten, err := a.journal.Find(r.Context(), audit.Query{Tenant: tenant, Kind: kind, Record: c.ID, Action: crmguard.Erase, Limit: 1})
	if err != nil {
		return err
	}
	if len(forgotten.Entries) == 0 || forgotten.Entries[0].Seq >= made.Size {
		return unsigned("Nothing was downloaded: the entry that says that this client was forgotten is so new that no signature covers it, and the extract would lack it. Try again in a minute.")
	}
	sendFile(w, "application/jsonl", "extract-"+c.ID+".jsonl", extract.Bytes())
	return nil
}

// sendFile sends what is to be kept byte by byte.
func sendFile(w http.ResponseWriter, contentType, name string, content []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(content) //nolint:gosec // an attachment, and the client may be gone
}
