package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// Steps of a reencryption, in their order.
const (
	stepKeys     = "keys"     // a new key for each client
	stepContacts = "contacts" // rows
	stepTitles   = "names"    // of attachments
	stepFiles    = "files"    // attachments themselves
)

// contactLayout and attachmentLayout tell where the rows lie.
var (
	contactLayout = encryptsql.Layout{Table: "contacts", Tenant: "tenant", Record: "id",
		Sealed: map[string]string{"name": "name", "phone": "phone", "email": "email", "company": "company", "city": "city", "note": "note"}}
	attachmentLayout = encryptsql.Layout{Table: "attachments", Record: "id", Client: "contact", Sealed: map[string]string{"name": "name"}}
)

type reencryptStep struct {
	name  string
	table string // whose rows it goes through
	do    func(ctx context.Context, job *keyJob) error
}

// reencrypt gives each client a new key, and seals anew under it what the CRM keeps
// of the client. The old keys stay for what the journal has sealed under them, which
// nobody may write anew.
func (a *App) reencrypt(ctx context.Context, job *keyJob) error {
	steps := []reencryptStep{
		{stepKeys, contactLayout.Table, a.renewKeys},
		{stepContacts, contactLayout.Table, func(ctx context.Context, job *keyJob) error {
			return a.sealAnew(ctx, job, contactLayout, a.table.Reencrypt)
		}},
		{stepTitles, attachmentLayout.Table, func(ctx context.Context, job *keyJob) error {
			return a.sealAnew(ctx, job, attachmentLayout, a.attachments.table.Reencrypt)
		}},
		{stepFiles, attachmentLayout.Table, a.encryptFilesAnew},
	}
	begin := slices.IndexFunc(steps, func(s reencryptStep) bool { return s.name == job.Step })
	for _, step := range steps[max(begin, 0):] {
		if job.Step != step.name {
			job.Step, job.Cursor, job.Done = step.name, "", 0
			if err := a.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM `+step.table).Scan(&job.All); err != nil {
				return fmt.Errorf("count what is to be done: %w", err)
			}
			if err := a.keep(ctx, *job); err != nil {
				return err
			}
		}
		if err := step.do(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// renewKeys makes the next version of the key of each client that has none since the
// task began: so it can be cut off and begun again. A damaged key keeps nobody else waiting.
func (a *App) renewKeys(ctx context.Context, job *keyJob) error {
	before := job.Keys
	rotated, err := a.vault.keys.RotateClients(ctx, tenant, job.Began, func(ctx context.Context, rotated int) error {
		job.Keys = before + rotated
		job.Done = job.Keys
		return a.keep(ctx, *job)
	})
	job.Keys = before + rotated
	if errors.Is(err, encrypt.ErrDamaged) {
		a.log.ErrorContext(ctx, "clients got no new key", "error", err)
		job.Damaged, err = true, nil
	}
	return err
}

// sealAnew has one of the tables seal its rows anew.
func (a *App) sealAnew(ctx context.Context, job *keyJob, layout encryptsql.Layout,
	walk func(context.Context, string, encrypt.Rows, *encrypt.JobOptions) (encrypt.Report, error)) error {
	rows, err := encryptsql.NewRows(ctx, a.db.DB, layout)
	if err != nil {
		return err
	}
	before := *job
	report, err := walk(ctx, tenant, rows, &encrypt.JobOptions{After: job.Cursor, Progress: func(ctx context.Context, r encrypt.Report) error {
		job.Cursor, job.Done, job.Changed = r.Cursor, before.Done+r.Rows, before.Changed+r.Changed
		job.Left = before.Left + r.Malformed + r.Foreign + r.Unreadable + r.Busy
		return a.keep(ctx, *job)
	}})
	for _, f := range report.Findings {
		a.log.ErrorContext(ctx, "a value was not sealed anew", "table", layout.Table, "record", f.Record, "field", f.Field, "error", f.Err)
	}
	return err
}

// encryptFilesAnew gives each attachment a new key of its own, which is sealed under
// the client's newest.
func (a *App) encryptFilesAnew(ctx context.Context, job *keyJob) error {
	for {
		var f attachment
		err := a.db.QueryRowContext(ctx, `SELECT id, contact FROM attachments WHERE id > $1 ORDER BY id LIMIT 1`, job.Cursor).Scan(&f.ID, &f.Contact)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read attachments: %w", err)
		}
		err = a.encryptFileAnew(ctx, &f)
		switch {
		case err == nil:
			job.Changed++
		case ctx.Err() != nil:
			return err
		case !errors.Is(err, crmguard.ErrErased) && !errors.Is(err, errNoAttachment):
			a.log.ErrorContext(ctx, "an attachment was not encrypted anew", "attachment", f.ID, "error", err)
			job.Left++
		}
		job.Cursor, job.Done = f.ID, job.Done+1
		if err := a.keep(ctx, *job); err != nil {
			return err
		}
	}
}

func (a *App) encryptFileAnew(ctx context.Context, f *attachment) error {
	stored, err := a.db.fetch(ctx, f)
	if err != nil {
		return err
	}
	defer stored.Close() //nolint:errcheck // it was only read
	anew, err := unnamedFile()
	if err != nil {
		return err
	}
	defer anew.Close() //nolint:errcheck // it is gone then, and was stored or not
	if err := a.attachments.files.Reencrypt(ctx, f.place(), anew, stored); err != nil {
		return err
	}
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to take back
	if err := replacePieces(ctx, tx, f, anew); err != nil {
		return err
	}
	return tx.Commit()
}
