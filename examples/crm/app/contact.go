package app

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	tenant = crmguard.SingleTenant
	kind   = "contacts"
)

// Contact is a client. Beside each value is what is stored of it. A value whose
// column was not read stays empty.
type Contact struct {
	ID      string `encrypt:",record" mask:"-"`
	Seq     int64
	Owner   string `mask:"-"`
	Unit    string `mask:"-"`
	Country string `mask:"-"`
	Version int64
	Created time.Time
	Updated time.Time
	Erased  time.Time
	Damaged bool // it did not open, and was not erased

	Name          string `encrypt:"name" mask:"name"`
	NameSealed    []byte `encrypt:"name,sealed"`
	Phone         string `encrypt:"phone,index=phone" mask:"phone"`
	PhoneSealed   []byte `encrypt:"phone,sealed"`
	Email         string `encrypt:"email,index=email" mask:"email"`
	EmailSealed   []byte `encrypt:"email,sealed"`
	Company       string `encrypt:"company" mask:"name"`
	CompanySealed []byte `encrypt:"company,sealed"`
	City          string `encrypt:"city" mask:"name"`
	CitySealed    []byte `encrypt:"city,sealed"`
	Note          string `encrypt:"note" mask:"secret"`
	NoteSealed    []byte `encrypt:"note,sealed"`
}

// text is one of a contact's personal fields.
type text struct {
	name, label string
	value       *string
	sealed      *[]byte
}

// texts lists the personal fields in the order in which pages show them.
func (c *Contact) texts() []text {
	return []text{
		{"name", "Name", &c.Name, &c.NameSealed},
		{"phone", "Phone", &c.Phone, &c.PhoneSealed},
		{"email", "E-mail", &c.Email, &c.EmailSealed},
		{"company", "Company", &c.Company, &c.CompanySealed},
		{"city", "City", &c.City, &c.CitySealed},
		{"note", "Note", &c.Note, &c.NoteSealed},
	}
}

// text returns the field of this name.
func (c *Contact) text(name string) *string {
	for _, t := range c.texts() {
		if t.name == name {
			return t.value
		}
	}
	return new(string)
}

// differences names what changed between two states of a contact.
func differences(before, after *Contact) []string {
	var changed []string
	now := after.texts()
	for i, t := range before.texts() {
		if *t.value != *now[i].value {
			changed = append(changed, t.name)
		}
	}
	if before.Owner != after.Owner {
		changed = append(changed, "owner")
	}
	if before.Unit != after.Unit {
		changed = append(changed, "unit")
	}
	if before.Country != after.Country {
		changed = append(changed, "country")
	}
	return changed
}

// fieldNames are the personal fields, as rights and the journal know them.
var fieldNames = []string{"name", "phone", "email", "company", "city", "note"}

func (c *Contact) resource() crmguard.Resource {
	return crmguard.Resource{Tenant: tenant, Kind: kind, ID: c.ID, Owner: c.Owner, Unit: c.Unit}
}

// newContactID is random: it is written to the journal, so it must say nothing
// about the client.
func newContactID() string { return strings.ToLower(rand.Text())[:20] }

const (
	plainColumns = `seq, id, owner, unit, country, version, created_at, updated_at, erased_at`
	listColumns  = plainColumns + `, name, phone, email, company, city, NULL`
	cardColumns  = plainColumns + `, name, phone, email, company, city, note`
)

// queryContacts reads rows, still sealed.
func (s *store) queryContacts(ctx context.Context, query string, args ...any) ([]*Contact, error) {
	rows, err := s.QueryContext(ctx, query, args...) //nolint:gosec // the text is from this package and rbac.Filter, which checks its columns
	if err != nil {
		return nil, fmt.Errorf("read contacts: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var contacts []*Contact
	for rows.Next() {
		c := new(Contact)
		var created, updated, erased int64
		if err := rows.Scan(&c.Seq, &c.ID, &c.Owner, &c.Unit, &c.Country, &c.Version, &created, &updated, &erased,
			&c.NameSealed, &c.PhoneSealed, &c.EmailSealed, &c.CompanySealed, &c.CitySealed, &c.NoteSealed); err != nil {
			return nil, fmt.Errorf("read contacts: %w", err)
		}
		c.Created, c.Updated, c.Erased = fromMicros(created), fromMicros(updated), fromMicros(erased)
		contacts = append(contacts, c)
	}
	return contacts, rows.Err()
}

var errNoContact = errors.New("no such contact")

// contactID is the shape of [newContactID].
var contactID = regexp.MustCompile(`^[a-z2-7]{20}$`)

// contact reads one card, still sealed.
func (s *store) contact(ctx context.Context, id string) (*Contact, error) {
	if !contactID.MatchString(id) { // PostgreSQL fails at some text, such as a NUL
		return nil, errNoContact
	}
	found, err := s.queryContacts(ctx, `SELECT `+cardColumns+` FROM contacts WHERE id = $1`, id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errNoContact
	}
	return found[0], nil
}

// insertContact stores a sealed row. A nil importKey is none.
func insertContact(ctx context.Context, tx *sql.Tx, c *Contact, importKey []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO contacts (tenant, id, owner, unit, country, created_at, updated_at, import_key,
			name, phone, email, company, city, note)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		tenant, c.ID, c.Owner, c.Unit, c.Country, micros(c.Created), micros(c.Updated), importKey,
		c.NameSealed, c.PhoneSealed, c.EmailSealed, c.CompanySealed, c.CitySealed, c.NoteSealed)
	if err != nil {
		return fmt.Errorf("insert a contact: %w", err)
	}
	return nil
}

// errChanged: the row has another version by now, or the person may no longer
// change it.
var errChanged = errors.New("the contact was changed meanwhile")

// updateContact replaces a row that still has the version that was read and that
// still lies within what the person may change. It was sealed a moment ago, so the
// client was not erased, whatever the row said.
func updateContact(ctx context.Context, tx *sql.Tx, c *Contact, within predicate) error {
	args := []any{c.Owner, c.Unit, c.Country, micros(c.Updated),
		c.NameSealed, c.PhoneSealed, c.EmailSealed, c.CompanySealed, c.CitySealed, c.NoteSealed, c.ID, c.Version}
	where, whereArgs, err := within(len(args) + 1)
	if err != nil {
		return err
	}
	//nolint:gosec // where is from rbac.Filter, which checks its columns
	result, err := tx.ExecContext(ctx, `UPDATE contacts SET version = version + 1, erased_at = 0, owner = $1, unit = $2, country = $3, updated_at = $4,
			name = $5, phone = $6, email = $7, company = $8, city = $9, note = $10
		WHERE id = $11 AND version = $12 AND (`+where+`)`, append(args, whereArgs...)...)
	if err != nil {
		return fmt.Errorf("update a contact: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errChanged, err)
	}
	return nil
}

// emptied is what a row becomes: everything goes but that there was one. The import
// key goes too: nothing that was made from the client's data stays.
const emptied = `version = version + 1, erased_at = $1, updated_at = $1, import_key = NULL, country = '',
	name = NULL, phone = NULL, email = NULL, company = NULL, city = NULL, note = NULL`

// isEmpty is a condition on rows of which nothing personal is left.
const isEmpty = `(COALESCE(import_key, name, phone, email, company, city, note) IS NULL)`

// emptyContact empties a row that still has the version that was read and that
// still lies within what the person may erase.
func emptyContact(ctx context.Context, tx *sql.Tx, c *Contact, now time.Time, within predicate) error {
	where, args, err := within(4)
	if err != nil {
		return err
	}
	//nolint:gosec // where is from rbac.Filter, which checks its columns
	result, err := tx.ExecContext(ctx, `UPDATE contacts SET `+emptied+` WHERE id = $2 AND version = $3 AND (`+where+`)`,
		append([]any{micros(now), c.ID, c.Version}, args...)...)
	if err != nil {
		return fmt.Errorf("erase a contact: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errChanged, err)
	}
	return removeAttachments(ctx, tx, c.ID)
}

// isEmptied reports whether emptyContact has emptied the row already.
func isEmptied(ctx context.Context, tx *sql.Tx, id string) bool {
	var done bool
	err := tx.QueryRowContext(ctx, `SELECT erased_at > 0 AND `+isEmpty+` FROM contacts WHERE id = $1`, id).Scan(&done)
	return err == nil && done
}

// tombstone empties the row of a client whose key is destroyed, if that was not done
// when the erasure was ordered, and removes what came after that.
func tombstone(ctx context.Context, tx execer, id string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE contacts SET `+emptied+`
		WHERE id = $2 AND (erased_at = 0 OR NOT `+isEmpty+`)`, micros(now), id)
	if err != nil {
		return fmt.Errorf("erase a contact: %w", err)
	}
	return removeAttachments(ctx, tx, id)
}

// predicate is a condition on rows of contacts whose parameters start at first.
type predicate func(first int) (where string, args []any, err error)

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(m int64) time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMicro(m)
}
