package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// Stages of the first start, each stored before it begins.
const (
	stageSetting  = "first-start"
	stageCompany  = "company"
	stageContacts = "contacts"
	stageDone     = "done"
)

// firstStart creates the demo company and its contacts, once; what a crash
// interrupted goes on from where it was. Where it was is proven by a MAC: a company
// that exists is never founded again because somebody changed a row.
func (a *App) firstStart(ctx context.Context) error {
	ctx = crmguard.System(ctx, tenant, "first-start")
	stored, err := a.vault.proven(ctx, a.db, stageSetting)
	if err != nil {
		return fmt.Errorf("the database %s was changed past the CRM: nobody was let in; put back a backup of the data (%w)", a.db.name, err)
	}
	stage := string(stored)
	reach := func(next string) error {
		stage = next
		return a.vault.prove(ctx, a.db, stageSetting, []byte(next))
	}
	if stage == "" {
		accounts, err := a.people.accounts(ctx)
		if err != nil {
			return err
		}
		if len(accounts) > 0 {
			return fmt.Errorf("the database %s has accounts, but its setting %s is gone: nobody was let in; put back a backup of the data", a.db.name, stageSetting)
		}
		if err := reach(stageCompany); err != nil {
			return err
		}
	}
	if stage == stageCompany {
		if err := a.founding(ctx); err != nil {
			return err
		}
		if err := reach(stageContacts); err != nil {
			return err
		}
	}
	if stage == stageContacts {
		if a.cfg.Contacts != nil {
			report, err := a.Import(ctx, a.cfg.Contacts, nil, a.cfg.Progress)
			a.log.InfoContext(ctx, "first import", "rows", report.Rows, "added", report.Added, "duplicates", report.Duplicates, "bad", len(report.Bad))
			if err != nil {
				return err
			}
		}
		return reach(stageDone)
	}
	return nil
}

// ErrNoOwnAccounts refuses to serve other machines while there is no owner who can
// sign in there: demo accounts, whose password stands in a terminal, cannot.
var ErrNoOwnAccounts = errors.New("no owner with an open account of your own: start on 127.0.0.1, run `crm account add LOGIN owner`, then try again")

// leaveLoopback makes sure that no demo account reaches beyond this machine.
func (a *App) leaveLoopback(ctx context.Context) error {
	if owners, err := a.openOwners(ctx); err != nil {
		return err
	} else if len(owners) == 0 {
		return ErrNoOwnAccounts
	}
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range accounts {
		if !p.Demo {
			continue
		}
		// Their sessions of the loopback time end; new ones cannot start.
		if _, err := a.sessions.Revoke(ctx, tenant, p.ID); err != nil {
			return fmt.Errorf("end the sessions of %s: %w", p.ID, err)
		}
	}
	return nil
}
