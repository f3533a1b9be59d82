package app

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/masking"
)

// maxBatch is how many rows one transaction of an import adds at most.
const maxBatch = 500

// BadRow is a row of an imported file of which nothing was imported.
type BadRow struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"` // names the field, never its value
}

// ImportReport counts what became of a file's rows.
type ImportReport struct {
	Rows       int      `json:"rows"` // read so far
	Added      int      `json:"added"`
	Duplicates int      `json:"duplicates"` // of rows in this file, or of what was imported before
	Bad        []BadRow `json:"bad,omitempty"`
}

// Import adds the contacts of a CSV file. Rows that were imported before, from
// this file or another, add nothing, so that an import that was cut off is simply
// run again. The context says who imports. The columns are name, phone, email,
// company, city, note, owner, department and country; mapping tells what they are
// called in the file. progress, if not nil, is called after each batch.
func (a *App) Import(ctx context.Context, file []byte, mapping map[string]string, progress func(ImportReport)) (ImportReport, error) {
	a.importing.Lock() // so that nobody else adds a row between looking for it and adding it
	defer a.importing.Unlock()
	var report ImportReport
	rows, err := openCSV(file, mapping)
	if err != nil {
		return report, err
	}
	names, err := a.knownNames(ctx)
	if err != nil {
		return report, err
	}
	var lost error
	batch := make([]*Contact, 0, maxBatch)
	flush := func() error {
		added, err := a.importBatch(ctx, batch)
		if err != nil {
			return fmt.Errorf("%w; what was imported before stays, and the same file again adds the rest", err)
		}
		report.Added += added
		report.Duplicates += len(batch) - added
		batch = batch[:0]
		if progress != nil {
			progress(report)
		}
		return nil
	}
	for {
		row, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		report.Rows++
		if bad, ok := errors.AsType[*csvError](err); ok {
			report.Bad = append(report.Bad, BadRow{bad.line, bad.reason})
			if bad.lost {
				lost = fmt.Errorf("the quotes of line %d do not fit, so it cannot be told where the next row begins: nothing below that line was imported; put it right and import the file again", bad.line)
			}
			continue
		}
		if err != nil {
			return report, err
		}
		c, err := names.contact(row)
		if err != nil {
			report.Bad = append(report.Bad, BadRow{row.line, strings.ReplaceAll(err.Error(), "\n", "; ")})
			continue
		}
		if batch = append(batch, c); len(batch) == maxBatch {
			if err := flush(); err != nil {
				return report, err
			}
		}
	}
	if err := flush(); err != nil {
		return report, err
	}
	return report, lost
}

// knownNames are the logins and departments that a file may name.
type knownNames struct {
	unitOf map[string]string // login of an open employee → department
	units  map[string]string // name of a department → id
}

func (a *App) knownNames(ctx context.Context) (knownNames, error) {
	k := knownNames{map[string]string{}, map[string]string{}}
	accounts, err := a.openEmployees(ctx)
	if err != nil {
		return k, err
	}
	for _, p := range accounts {
		k.unitOf[p.ID] = p.Unit
	}
	units, err := a.people.units(ctx)
	if err != nil {
		return k, err
	}
	for _, u := range units {
		k.units[u.name] = u.id
	}
	return k, nil
}

// contact turns a row into a clean contact. It belongs to the owner's department, as
// one from the form does; the department counts where there is no owner.
func (k knownNames) contact(row csvRow) (*Contact, error) {
	f := row.fields
	c := &Contact{
		Name: f["name"], Phone: f["phone"], Email: f["email"], Company: f["company"], City: f["city"], Note: f["note"],
		Owner: f["owner"], Country: f["country"],
	}
	err := errors.Join(c.clean(), masking.RefuseMasked(c))
	ownUnit, known := k.unitOf[c.Owner]
	if c.Owner != "" && !known {
		err = errors.Join(err, &fieldError{"owner", "no open employee has this login"})
	}
	c.Unit = ownUnit
	if department := f["department"]; department != "" {
		if c.Unit, known = k.units[department]; !known {
			err = errors.Join(err, &fieldError{"department", "there is none of this name"})
		} else if ownUnit != "" && c.Unit != ownUnit {
			err = errors.Join(err, &fieldError{"department", "is not that of the owner"})
		}
	}
	if err == nil && c.Unit == "" {
		err = &fieldError{"department", "is missing, and there is no owner to take it from"}
	}
	return c, err
}

const importKeyField = "import-key"

// importKeys are keyed digests of a row, as newer and older keys make them. They
// find the row again, and tell nothing to whoever has the database alone. Keys end:
// see [App.ageImportKey].
func (a *App) importKeys(ctx context.Context, c *Contact) ([][]byte, error) {
	h := sha256.New()
	for _, value := range []string{c.Name, c.Phone, c.Email, c.Company, c.City, c.Note, c.Owner, c.Unit, c.Country} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) //nolint:gosec // fields are short
		h.Write([]byte(value))
	}
	return a.vault.keys.Pseudonyms(ctx, crmguard.Place{Tenant: tenant, Kind: kind, Field: importKeyField}, h.Sum(nil))
}

// importBatch adds those rows that were not imported before: sealed first, then
// rows, index and one entry of the journal in one transaction.
func (a *App) importBatch(ctx context.Context, batch []*Contact) (added int, err error) {
	fresh, keys, err := a.notYetImported(ctx, batch)
	if err != nil || len(fresh) == 0 {
		return 0, err
	}
	now := a.now()
	for _, c := range fresh {
		c.ID, c.Created, c.Updated = newContactID(), now, now
	}
	entries, err := a.table.Seal(ctx, tenant, fresh...)
	if err != nil {
		return 0, fmt.Errorf("seal the rows: %w", err)
	}
	e := systemEvent(ctx, crmguard.Import, crmguard.Resource{Tenant: tenant, Kind: kind}, now)
	e.Count = len(fresh)
	err = a.recorded(ctx, e, func(ctx context.Context, tx *sql.Tx) error {
		for i, c := range fresh {
			if err := insertContact(ctx, tx, c, keys[i]); err != nil {
				return err
			}
		}
		return a.index.Put(ctx, tx, entries)
	})
	if err != nil {
		return 0, fmt.Errorf("add the rows: %w", err)
	}
	return len(fresh), nil
}

// notYetImported leaves out rows that are in the database, and all but the first
// of equal rows.
func (a *App) notYetImported(ctx context.Context, batch []*Contact) (fresh []*Contact, keys [][]byte, err error) {
	seen := make(map[string]bool, len(batch))
	known, err := a.db.PrepareContext(ctx, `SELECT EXISTS (SELECT 1 FROM contacts WHERE import_key = $1)`)
	if err != nil {
		return nil, nil, err
	}
	defer known.Close() //nolint:errcheck // it only read
	for _, c := range batch {
		versions, err := a.importKeys(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		duplicate := seen[string(versions[0])]
		for _, key := range versions {
			if duplicate {
				break
			}
			if err := known.QueryRowContext(ctx, key).Scan(&duplicate); err != nil {
				return nil, nil, fmt.Errorf("look for a row: %w", err)
			}
		}
		if duplicate {
			continue
		}
		seen[string(versions[0])] = true
		fresh, keys = append(fresh, c), append(keys, versions[0])
	}
	return fresh, keys, nil
}
