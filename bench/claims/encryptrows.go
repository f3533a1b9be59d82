package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// encryptRowsClaims compare what is done to whole tables with what it costs on plaintext.
func encryptRowsClaims() []claim {
	return []claim{
		{name: "encrypt.search", unit: "ms", direction: atMost, limit: 6, open: openSearch(false)},
		{name: "encrypt.search-cold", unit: "ms", direction: atMost, limit: 25, open: openSearch(true)},
		{name: "encrypt.reencrypt", unit: "rows/s", direction: atLeast, limit: 0.5, open: openReencrypt},
	}
}

// person is a row of the tables that are searched.
type person struct {
	ID          string `encrypt:",record"`
	Name        string `encrypt:"name"`
	NameSealed  []byte `encrypt:"name,sealed"`
	Phone       string `encrypt:"phone"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
	Email       string `encrypt:"email"`
	EmailSealed []byte `encrypt:"email,sealed"`
}

// personOf makes up a person. The last of all is the one who is looked for.
func personOf(i int) *person {
	first := []string{"Анна", "Ольга", "Пётр", "Иван", "Марина", "Alexandra", "José", "Семён", "Татьяна", "John"}
	last := []string{"Петрова", "Водкина", "Кузнецов", "Smith", "Королёва", "Лебедева", "García", "Морозов", "Miller"}
	p := &person{
		ID: fmt.Sprintf("c-%06d", i), Name: first[i%len(first)] + " " + last[i%len(last)],
		Phone: fmt.Sprintf("+7 (9%02d) %03d-%02d-%02d", i%97, i%991, i%89, i%83), Email: fmt.Sprintf("user%06d@example.com", i*7%1_000_003),
	}
	if i == manyClients-1 {
		p.Name = "Анастасия Зоркальцева"
	}
	return p
}

// crowd is a SQLite database with the same persons twice, plain and sealed, and one with
// their keys.
type crowd struct {
	*pair
	db    *sql.DB
	store *encryptsql.Store
}

func newCrowd(ctx context.Context) (_ *crowd, err error) {
	p, err := newPair(ctx)
	if err != nil {
		return nil, err
	}
	c := &crowd{pair: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.store, err = encryptsql.OpenSQLite(ctx, filepath.Join(p.dir, "keys", "keys.db"), true); err != nil {
		return c, err
	}
	if c.db, err = sql.Open("sqlite", "file:"+filepath.Join(p.dir, "crm.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"); err != nil {
		return c, err
	}
	for _, statement := range []string{
		`CREATE TABLE plain (id TEXT PRIMARY KEY, name TEXT, phone TEXT, email TEXT) WITHOUT ROWID`,
		`CREATE TABLE sealed (id TEXT PRIMARY KEY, name BLOB, phone BLOB, email BLOB) WITHOUT ROWID`,
	} {
		if _, err := c.db.ExecContext(ctx, statement); err != nil {
			return c, err
		}
	}
	keys, table, err := c.open()
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	for first := 0; first < manyClients; first += searchPage {
		if err := c.add(table, first); err != nil {
			return c, err
		}
	}
	return c, nil
}

// searchPage is how many rows a search reads at once.
const searchPage = 500

func (c *crowd) add(table *encrypt.Table[person], first int) error {
	rows := make([]*person, searchPage)
	for i := range rows {
		rows[i] = personOf(first + i)
	}
	if _, err := table.Seal(c.ctx, phonePlace.Tenant, rows...); err != nil {
		return err
	}
	tx, err := c.db.BeginTx(c.ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to take back
	for _, r := range rows {
		if _, err := tx.ExecContext(c.ctx, `INSERT INTO plain VALUES ($1, $2, $3, $4)`, r.ID, r.Name, r.Phone, r.Email); err != nil {
			return err
		}
		if _, err := tx.ExecContext(c.ctx, `INSERT INTO sealed VALUES ($1, $2, $3, $4)`, r.ID, r.NameSealed, r.PhoneSealed, r.EmailSealed); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// open begins as a process does, without any key.
func (c *crowd) open() (*encrypt.Keyring, *encrypt.Table[person], error) {
	keys, err := encrypt.New(c.kek, c.store, &encrypt.Options{CacheEntries: 3 * manyClients})
	if err != nil {
		return nil, nil, err
	}
	table, err := encrypt.NewTable[person](keys, "contacts", nil)
	return keys, table, err
}

func (c *crowd) close() error {
	var errs []error
	if c.db != nil {
		errs = append(errs, c.db.Close())
	}
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	return errors.Join(append(errs, c.pair.close())...)
}

func (c *crowd) next(ctx context.Context, after *person) (page []*person, err error) {
	last := ""
	if after != nil {
		last = after.ID
	}
	rows, err := c.db.QueryContext(ctx, `SELECT id, name, phone, email FROM sealed WHERE id > $1 ORDER BY id LIMIT $2`, last, searchPage)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	page = make([]*person, 0, searchPage)
	for rows.Next() {
		p := &person{}
		if err := rows.Scan(&p.ID, &p.NameSealed, &p.PhoneSealed, &p.EmailSealed); err != nil {
			return nil, err
		}
		page = append(page, p)
	}
	return page, rows.Err()
}

func (c *crowd) search(ctx context.Context, table *encrypt.Table[person]) error {
	found, err := table.Search(crmguard.System(ctx, phonePlace.Tenant, "claims"), phonePlace.Tenant,
		encrypt.Query{Text: "зоркаль анаст", Fields: []string{"name", "phone", "email"}, Limit: 50}, c.next)
	if err == nil && (len(found.Rows) != 1 || found.Looked != manyClients) {
		err = fmt.Errorf("found %d rows among %d", len(found.Rows), found.Looked)
	}
	return err
}

// openSearch looks for two parts of a name in 100,000 contacts, of which the last one has
// them; the peer is LIKE over the same contacts in plaintext. Cold is a process that has
// just started and has no key yet.
func openSearch(cold bool) func(ctx context.Context, _ *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (trial, error) {
		c, err := newCrowd(ctx)
		if err != nil {
			return trial{}, err
		}
		keys, table, err := c.open()
		if err != nil {
			return trial{}, errors.Join(err, c.close())
		}
		if !cold {
			if err := c.search(ctx, table); err != nil {
				return trial{}, errors.Join(err, keys.Close(), c.close())
			}
		}
		return trial{
			ours: milliseconds(func(ctx context.Context) error {
				if !cold {
					return c.search(ctx, table)
				}
				keys, table, err := c.open()
				if err != nil {
					return err
				}
				return errors.Join(c.search(ctx, table), keys.Close())
			}),
			peer: milliseconds(func(ctx context.Context) error {
				const query = `SELECT id FROM plain WHERE (name LIKE $1 OR phone LIKE $1 OR email LIKE $1) AND (name LIKE $2 OR phone LIKE $2 OR email LIKE $2) LIMIT 50`
				var id string
				return c.db.QueryRowContext(ctx, query, "%Зоркаль%", "%Анаст%").Scan(&id)
			}),
			close: func() error { return errors.Join(keys.Close(), c.close()) },
		}, nil
	}
}

func milliseconds(op func(ctx context.Context) error) measurement {
	return func(ctx context.Context) (float64, error) {
		start := time.Now()
		err := op(ctx)
		return float64(time.Since(start).Microseconds()) / 1000, err
	}
}

// jobBatch is how many rows a transaction changes.
const jobBatch = 500

// openReencrypt seals every row of a table on PostgreSQL anew, after the keys of its clients
// were rotated; the peer writes the same column of the same rows with an UPDATE each,
// in transactions of as many rows.
func openReencrypt(ctx context.Context, s *servers) (_ trial, err error) {
	url, err := s.Postgres(ctx)
	if err != nil {
		return trial{}, err
	}
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return trial{}, errors.Join(err, p.close())
	}
	schema := "claims_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	closeAll := func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), `DROP SCHEMA IF EXISTS `+schema+` CASCADE`)
		return errors.Join(err, db.Close(), p.close())
	}
	r, err := newReencryption(p, db, schema)
	if err != nil {
		return trial{}, errors.Join(err, closeAll())
	}
	return trial{ours: r.ours, peer: r.peer, close: closeAll}, nil
}

type note struct {
	ID         string `encrypt:",record"`
	Client     string `encrypt:",client"`
	Text       string `encrypt:"text"`
	TextSealed []byte `encrypt:"text,sealed"`
}

type reencryption struct {
	*pair
	db      *sql.DB
	columns string // of the table
	table   *encrypt.Table[note]
	rows    *encryptsql.Rows
	ids     []string
	clients map[string]bool
}

func newReencryption(p *pair, db *sql.DB, schema string) (*reencryption, error) {
	r := &reencryption{pair: p, db: db, columns: schema + ".notes", clients: make(map[string]bool)}
	for _, statement := range []string{
		`CREATE SCHEMA ` + schema,
		`CREATE TABLE ` + r.columns + ` (id TEXT PRIMARY KEY, client TEXT NOT NULL, text_sealed BYTEA)`,
	} {
		if _, err := db.ExecContext(p.ctx, statement); err != nil {
			return nil, err
		}
	}
	var err error
	if r.table, err = encrypt.NewTable[note](p.ours, "notes", nil); err != nil {
		return nil, err
	}
	layout := encryptsql.Layout{Table: r.columns, Record: "id", Client: "client", Sealed: map[string]string{"text": "text_sealed"}}
	if r.rows, err = encryptsql.NewRows(p.ctx, db, layout); err != nil {
		return nil, err
	}
	all := make([]*note, reencrypted)
	for i := range all {
		all[i] = &note{ID: fmt.Sprintf("n-%06d", i), Client: "c-" + strconv.Itoa(i/100), Text: string(longText)}
		r.ids = append(r.ids, all[i].ID)
		r.clients[all[i].Client] = true
	}
	if _, err := r.table.Seal(p.ctx, phonePlace.Tenant, all...); err != nil {
		return nil, err
	}
	return r, r.inBatches(p.ctx, func(tx *sql.Tx, i int) error {
		_, err := tx.ExecContext(p.ctx, `INSERT INTO `+r.columns+` VALUES ($1, $2, $3)`, all[i].ID, all[i].Client, all[i].TextSealed) // #nosec G202 -- our own name
		return err
	})
}

func (r *reencryption) inBatches(ctx context.Context, each func(tx *sql.Tx, i int) error) error {
	for first := 0; first < reencrypted; first += jobBatch {
		tx, err := r.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for i := range jobBatch {
			if err := each(tx, first+i); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reencryption) ours(ctx context.Context) (float64, error) {
	ctx = crmguard.System(ctx, phonePlace.Tenant, "claims")
	for client := range r.clients {
		if _, err := r.pair.ours.Rotate(ctx, encrypt.Scope{Tenant: phonePlace.Tenant, Purpose: encrypt.DataKey, Name: client}); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	report, err := r.table.Reencrypt(ctx, phonePlace.Tenant, r.rows, &encrypt.JobOptions{Batch: jobBatch})
	took := time.Since(start)
	if err == nil && report.Changed != reencrypted {
		err = fmt.Errorf("reencrypted %d rows", report.Changed)
	}
	return float64(reencrypted) / took.Seconds(), err
}

func (r *reencryption) peer(ctx context.Context) (float64, error) {
	value := make([]byte, len(longText)+encrypt.Overhead)
	if _, err := rand.Read(value); err != nil {
		return 0, err
	}
	// The sealed values come back before the next round of ours.
	kept, err := r.keep(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	err = r.update(ctx, func(int) []byte { return value })
	took := time.Since(start)
	return float64(reencrypted) / took.Seconds(), errors.Join(err, r.update(ctx, func(i int) []byte { return kept[i] }))
}

func (r *reencryption) update(ctx context.Context, value func(i int) []byte) error {
	return r.inBatches(ctx, func(tx *sql.Tx, i int) error {
		_, err := tx.ExecContext(ctx, `UPDATE `+r.columns+` SET text_sealed = $1 WHERE id = $2`, value(i), r.ids[i]) // #nosec G202 -- our own name
		return err
	})
}

func (r *reencryption) keep(ctx context.Context) (kept [][]byte, err error) {
	rows, err := r.db.QueryContext(ctx, `SELECT text_sealed FROM `+r.columns+` ORDER BY id`) // #nosec G202 -- our own name
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var value []byte
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		kept = append(kept, value)
	}
	return kept, rows.Err()
}
