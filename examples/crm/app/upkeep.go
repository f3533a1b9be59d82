package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

const (
	erasureEvery = 10 * time.Second // how often closed keys are looked for whose wait is over
	upkeepEvery  = time.Hour        // how often keys are looked after
)

// keepUp does, until the CRM stops, what nobody asks for: it finishes erasures and
// looks after the keys.
func (a *App) keepUp(ctx context.Context) {
	ticker := time.NewTicker(erasureEvery)
	defer ticker.Stop()
	next := time.Now().Add(erasureEvery)
	for {
		if err := a.finishErasuresOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.ErrorContext(ctx, "erasures are not finished yet", "error", err)
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(upkeepEvery)
			if err := a.upkeep(ctx); err != nil && ctx.Err() == nil {
				a.log.ErrorContext(ctx, "the keys were not looked after", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// finishErasuresOnce destroys the keys of forgotten clients when nobody can still be
// using them, and empties rows that a crash left behind.
func (a *App) finishErasuresOnce(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "erasure")
	finished, err := a.vault.keys.FinishErasures(ctx)
	for _, receipt := range finished {
		err = errors.Join(err, a.recordErasure(ctx, receipt, "key-destroyed"))
	}
	return err
}

// upkeep replaces the keys of the search when they are old, and erases the keys
// of contacts that were never stored.
func (a *App) upkeep(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "upkeep")
	rows, err := encryptsql.NewRows(ctx, a.db.DB, contactLayout)
	if err != nil {
		return err
	}
	_, err = a.table.MaintainIndex(ctx, tenant, rows, nil)
	return errors.Join(err, a.ageImportKey(ctx), a.ageJournalKeys(ctx), a.sweep(ctx))
}

// importKeyScope is the key of [App.importKeys], named as docs/formats/encrypt.md says.
var importKeyScope = encrypt.IndexScope(tenant, kind, importKeyField, "")

// ageImportKey ends the life of the keys by which imported rows are known again, as
// that of the search's keys ends: who holds one can try what rows were imported. So a row
// is known for half that life at least, and whole that life at most.
func (a *App) ageImportKey(ctx context.Context) error {
	return a.ageKey(ctx, importKeyScope, func() error { return nil })
}

// ageKey replaces a key at half its life, and removes versions that have lived it, after
// before was done.
func (a *App) ageKey(ctx context.Context, scope encrypt.Scope, before func() error) error {
	versions, err := a.vault.store.Load(ctx, []encrypt.Scope{scope})
	if err != nil || len(versions) == 0 {
		return err
	}
	newest := versions[len(versions)-1]
	keep := slices.IndexFunc(versions, func(v encrypt.Record) bool {
		return v.Version == newest.Version || a.now().Sub(v.CreatedAt) < indexLife
	})
	if keep > 0 {
		if err := before(); err != nil {
			return err
		}
		if _, err := a.vault.keys.Retire(ctx, scope, versions[keep].Version); err != nil {
			return err
		}
	}
	if a.now().Sub(newest.CreatedAt) >= indexLife/2 {
		_, err = a.vault.keys.Rotate(ctx, scope)
	}
	return err
}

// sweepMark is how far contacts had been numbered when keys were swept last.
const sweepMark = "contacts"

// sweep erases the keys of contacts that do not exist, because adding them was rolled
// back. That they do not exist may also mean that an older database was put back: then
// they are needed as soon as the newer one is. So nothing is ever swept any more
// once contacts were numbered further than they are.
func (a *App) sweep(ctx context.Context) error {
	var last sql.NullInt64
	if err := a.db.QueryRowContext(ctx, `SELECT MAX(seq) FROM contacts`).Scan(&last); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	highest, err := a.marks.raise(sweepMark, last.Int64)
	if err != nil {
		return err
	}
	if last.Int64 < highest {
		_, err = a.marks.raise(sweepMark, math.MaxInt64)
		return err
	}
	swept, err := a.vault.keys.Sweep(ctx, tenant, a.db.existing)
	if swept > 0 {
		e := systemEvent(ctx, crmguard.Erase, crmguard.Resource{Tenant: tenant, Kind: kind}, a.now())
		e.Reason, e.Count = "never-stored", swept
		err = errors.Join(err, a.recorder.Record(ctx, e))
	}
	return err
}

// existing returns those of these ids of which there is a contact.
func (s *store) existing(ctx context.Context, ids []string) (existing []string, err error) {
	params, args := make([]string, len(ids)), make([]any, len(ids))
	for i, id := range ids {
		params[i], args[i] = fmt.Sprintf("$%d", i+1), id
	}
	rows, err := s.QueryContext(ctx, `SELECT id FROM contacts WHERE id IN (`+strings.Join(params, ", ")+`)`, args...) //nolint:gosec // parameters only
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("sweep: %w", err)
		}
		existing = append(existing, id)
	}
	return existing, rows.Err()
}
