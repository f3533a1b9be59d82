package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// transfer gives the contacts of somebody who leaves to somebody else. It runs in the
// background, and goes on after a restart.
type transfer struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	By    string    `json:"by"` // by whose rights
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	Done  int       `json:"done"`
	All   int       `json:"all"`
	Left  string    `json:"left,omitempty"` // why some stay where they are
}

func (h *transfer) Running() bool { return h != nil && h.Ended.IsZero() }

// handovers are the newest of each leaver.
type handovers struct {
	mu     sync.Mutex
	newest map[string]transfer
}

func (h *handovers) of(login string) *transfer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if newest, ok := h.newest[login]; ok {
		return &newest
	}
	return nil
}

func (h *handovers) show(newest transfer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newest == nil {
		h.newest = map[string]transfer{}
	}
	h.newest[newest.From] = newest
}

// handoverBatch is how many contacts change hands in one transaction.
const handoverBatch = 500

func handoverSetting(login string) string { return "handover-" + login }

// loadHandovers reads what became of them, and goes on with those that were cut off.
func (a *App) loadHandovers(ctx context.Context) error {
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range accounts {
		text, err := a.vault.proven(ctx, a.db, handoverSetting(p.ID))
		var h transfer
		if err == nil && text != nil {
			err = json.Unmarshal(text, &h)
		}
		if err != nil {
			a.log.ErrorContext(ctx, "what became of a handover was changed past the CRM", "person", p.ID, "error", err)
			continue
		}
		if h.From != p.ID {
			continue
		}
		a.handovers.show(h)
		if h.Running() {
			a.background.Go(func() { a.runHandover(h) })
		}
	}
	return nil
}

func (a *App) keepHandover(ctx context.Context, h transfer) error {
	a.handovers.show(h)
	text, err := json.Marshal(h)
	if err == nil {
		err = a.vault.prove(ctx, a.db, handoverSetting(h.From), text)
	}
	return err
}

// heirs are those to whom the subject may give contacts of somebody who leaves, who must
// be able to open them then.
func (a *App) heirs(ctx context.Context, leaver string) ([]account, error) {
	open, err := a.openEmployees(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(open, func(p account) bool {
		return p.ID == leaver || a.mayInherit(ctx, subjectOf(ctx), p) != nil
	}), nil
}

// mayInherit checks what contacts would be like in the hands of somebody else.
func (a *App) mayInherit(ctx context.Context, by crmguard.Subject, heir account) error {
	then := crmguard.Resource{Tenant: tenant, Kind: kind, ID: "any", Owner: heir.ID, Unit: heir.Unit}
	return errors.Join(a.rights.Check(ctx, by, crmguard.Update, then),
		a.rights.Check(ctx, crmguard.Subject{Tenant: tenant, ID: heir.ID, Kind: heir.Kind}, crmguard.View, then))
}

// errNoHeir refuses a form that names nobody of the list.
var errNoHeir = &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Not to this person", Code: "heir",
	Detail: "Nothing was done. Choose somebody of the list: a colleague who works here, can open the contacts, and to whom you may give them."}

// chosenHeir reads to whom contacts go; empty: they stay.
func (a *App) chosenHeir(r *http.Request, leaver string) (string, error) {
	if err := readForm(r); err != nil {
		return "", err
	}
	to := r.PostForm.Get("heir")
	if to == "" {
		return "", nil
	}
	heirs, err := a.heirs(r.Context(), leaver)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(heirs, func(p account) bool { return p.ID == to }) {
		return "", errNoHeir
	}
	return to, nil
}

// ownedBy counts the contacts that name somebody as responsible.
func (a *App) ownedBy(ctx context.Context, login string) (n int, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM contacts WHERE owner = $1`, login).Scan(&n)
	return n, err
}

// handOver begins, unless there is nothing to hand over: what is told of an earlier
// handover stays then.
func (a *App) handOver(ctx context.Context, from, to string, owned int) error {
	if a.handovers.of(from).Running() {
		return &guard.Problem{Status: http.StatusConflict, Title: "This is under way", Code: "busy", Detail: "The contacts of this person are being handed over already."}
	}
	if owned == 0 {
		return nil
	}
	h := transfer{From: from, To: to, By: subjectOf(ctx).ID, Began: a.now(), All: owned}
	if err := a.keepHandover(ctx, h); err != nil {
		return fmt.Errorf("remember a handover: %w", err)
	}
	a.background.Go(func() { a.runHandover(h) })
	return nil
}

// runHandover does it to the end. What the end of the program cuts off goes on when it
// starts.
func (a *App) runHandover(h transfer) {
	ctx := crmguard.System(a.jobs.cut, tenant, "handover")
	for h.Running() {
		n, err := a.handOverSome(ctx, h)
		if ctx.Err() != nil {
			return
		}
		if h.Done += n; err != nil {
			a.log.ErrorContext(ctx, "a handover has ended early", "person", h.From, "error", err)
			h.Ended, h.Left = a.now(), "Meanwhile somebody lost the rights for it, or it failed. The log says more."
		} else if n == 0 {
			h.Ended = a.now()
		}
		if err := a.keepHandover(ctx, h); err != nil {
			a.log.ErrorContext(ctx, "how far a handover is was not stored", "person", h.From, "error", err)
			return
		}
	}
}

// handOverSome moves the next contacts, each with its entry in the journal, by the rights
// that whoever began it still has.
func (a *App) handOverSome(ctx context.Context, h transfer) (n int, err error) {
	open, err := a.openEmployees(ctx)
	if err != nil {
		return 0, err
	}
	heir := slices.IndexFunc(open, func(p account) bool { return p.ID == h.To })
	if heir < 0 {
		return 0, fmt.Errorf("%s does not work here any more", h.To)
	}
	to, by := open[heir], crmguard.Subject{Tenant: tenant, ID: h.By, Kind: employee}
	if err := a.mayInherit(ctx, by, to); err != nil {
		return 0, err
	}
	filter, err := a.rights.Filter(ctx, by, crmguard.Update, kind)
	if err != nil {
		return 0, err
	}
	where, args, err := filter.SQL(contactColumns, 5)
	if err != nil {
		return 0, err
	}
	err = a.journal.InTx(ctx, a.db.DB, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
		//nolint:gosec // where is from rbac.Filter, which checks its columns
		rows, err := tx.QueryContext(ctx, fmt.Sprintf(`UPDATE contacts SET version = version + 1, owner = $1, unit = $2, updated_at = $3
			WHERE owner = $4 AND id IN (SELECT id FROM contacts WHERE owner = $4 AND (%s) ORDER BY seq LIMIT %d) RETURNING id`, where, handoverBatch),
			append([]any{to.ID, to.Unit, micros(a.now()), h.From}, args...)...)
		if err != nil {
			return err
		}
		ids, err := scanned(rows)
		if err != nil {
			return err
		}
		for _, id := range ids {
			e := systemEvent(ctx, crmguard.Update, crmguard.Resource{Tenant: tenant, Kind: kind, ID: id, Owner: to.ID, Unit: to.Unit}, a.now())
			e.Subject.OnBehalfOf, e.Reason, e.Fields = h.By, "handover:"+h.From+":"+to.ID, []string{"owner", "unit"}
			if err := record(e); err != nil {
				return err
			}
		}
		n = len(ids)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// scanned reads a column of texts.
func scanned(rows *sql.Rows) (texts []string, err error) {
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, rows.Err()
}
