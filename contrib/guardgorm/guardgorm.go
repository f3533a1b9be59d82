// Package guardgorm seals fields of gorm models with package encrypt, and narrows statements
// to the rows that package rbac allows: see [Allowed], which needs nothing of what follows.
//
// A sealed field is a pair: the plain field, which has no column, and a []byte, which has
// one. The plugin fills the second from the first before gorm writes, and the first from
// the second after gorm reads:
//
//	type Contact struct {
//		ID          string `gorm:"primaryKey" encrypt:",record"`
//		Phone       string `gorm:"-" encrypt:"phone,index=phone"`
//		PhoneSealed []byte `encrypt:"phone,sealed"`
//		Calls       []Call `encrypt:"-"`
//		Erased      bool   `gorm:"-"`
//	}
//
//	func (c *Contact) SetErased(erased bool) { c.Erased = erased }
//
//	plugin, err := guardgorm.New(keys, guardgorm.Kinds{"contacts": {Contact{}}, "calls": {Call{}}}, nil)
//	err = db.Use(plugin)
//	err = db.WithContext(ctx).Create(&Contact{ID: uuid, Phone: "+7 916 123-45-67"}).Error
//
// The context says who acts and so for which tenant: see crmguard.WithSubject.
//
// # Why pairs
//
// A gorm serializer on one field would be shorter. But gorm calls it field by field while
// it scans, so that a page could not be opened in one batch; it does not call it for values
// in maps, so that Updates(map[string]any{"phone": …}) would store what it was given; and
// without the plugin the column would take plaintext. Of a pair the plain half has no
// column: whatever bypasses the plugin, plaintext has nowhere to go. What raw SQL writes
// into a sealed column does not open, and a scan of the table finds it.
//
// # What works
//
// Create, CreateInBatches, Save, Updates, Update, UpdateColumn(s), FirstOrCreate, upserts,
// associations, Find and its relatives, Preload, Joins, soft delete, transactions. Plain
// fields are named as they are in the struct, or by their logical name:
// Update("Phone", …), Select("ID", "Phone"), Omit("phone"). Sealed columns, in whatever
// spelling gorm or the database understands, take nothing that the plugin has not sealed.
//
//   - Ids must be known before the INSERT, because values are bound to them: from the
//     program or a BeforeCreate hook, not from the database. A record's id is unique in its table,
//     not only within a tenant or another part of the primary key: [New]'s plugin refuses other models.
//   - An update of sealed fields is of one record, named by Model(&contact). It also needs
//     the client's id where that is another field. To give a record to another client, load it,
//     change it and Save it.
//   - A condition on a sealed field is an error, before its value is in SQL and in gorm's
//     log. So is one of a type that does not show its column. encrypt.Table's Find returns
//     ids for Where("id IN ?", ids). In SQL text only plain comparisons such as "phone = ?"
//     are noticed, in Raw and Exec nothing, so keep values of sealed fields out of it.
//     Order and text see the sealed column, which is random.
//   - A subquery that is refused is a syntax error of the statement around it, because gorm
//     drops the errors of subqueries.
//   - All rows of a query are opened in one batch: one query to the key store, OnOpen asked
//     once; one more batch for each joined or preloaded model.
//   - What gorm reads without its query callbacks comes back sealed, with empty plain
//     fields: Scan, Rows, ScanRows, other structs than those given to [New]. [Plugin.Open]
//     opens such rows. Pluck of a sealed column returns its bytes.
//
// # Rows that do not open
//
// They come back with empty plain fields, beside all others, which are open. That a client
// was erased is told to the row, if it is [Erasable]; every other reason, and erasure
// of rows that are not, makes the query's error an encrypt.RowErrors: it names the rows,
// and the page can be used still. Do not Save a row that did not open: an empty field would
// be sealed. Rows of erased clients are refused there.
//
// # Index
//
// Entries are put in the transaction that writes the row, so a model with an index is not
// written with SkipDefaultTransaction outside of one. An update of some fields leaves the
// entries of the others; an upsert puts those of values that were stored. DELETE removes
// them, soft delete does not.
//
// # Compatibility
//
// Tested with SQLite and PostgreSQL. MySQL's upserts do not name the column that they
// conflict on, so there the plugin cannot see that they stay with the record.
package guardgorm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"gorm.io/gorm"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// Kinds says which structs hold rows of which kind. Kinds are logical names, bound to what
// was sealed: a table may be renamed, its kind may not. Several structs of one kind are
// different views of the same rows.
type Kinds map[string][]any

// Erasable is a row that can show that its client was erased. The plugin calls SetErased
// for each row that it has read.
type Erasable interface{ SetErased(erased bool) }

// Plugin is a gorm.Plugin. It is safe for concurrent use, by several databases.
type Plugin struct {
	models map[reflect.Type]*model
}

var _ gorm.Plugin = (*Plugin)(nil)

// New reads the tags of structs. Index entries go to the encrypt.Options.Index of keys. Nil
// options mean the defaults.
func New(keys *encrypt.Keyring, kinds Kinds, o *encrypt.TableOptions) (*Plugin, error) {
	p := &Plugin{models: make(map[reflect.Type]*model)}
	for kind, rows := range kinds {
		for _, row := range rows {
			t := reflect.TypeOf(row)
			if t != nil && t.Kind() == reflect.Pointer {
				t = t.Elem()
			}
			if p.models[t] != nil {
				return nil, fmt.Errorf("guardgorm: %v has two kinds", t)
			}
			m, err := newModel(keys, kind, t, o)
			if err != nil {
				return nil, err
			}
			p.models[t] = m
		}
	}
	return p, nil
}

// Name implements gorm.Plugin.
func (p *Plugin) Name() string { return "guardgorm" }

// Initialize implements gorm.Plugin: use [gorm.DB.Use], before the first query.
func (p *Plugin) Initialize(db *gorm.DB) error {
	w := &watcher{plugin: p, byType: make(map[reflect.Type]*table), byName: make(map[string][]*table)}
	for t, m := range p.models {
		table, err := newTable(db, m)
		if err != nil {
			return fmt.Errorf("guardgorm: %v: %w", t, err)
		}
		w.byType[t] = table
		name := strings.ToLower(bare(table.schema.Table)) // as statements have it
		w.byName[name] = append(w.byName[name], table)
	}
	on := db.Callback()
	return errors.Join( // always "before", because gorm puts what comes "after" behind the COMMIT
		on.Create().Before("gorm:create").Register("guardgorm:seal", w.beforeCreate),
		on.Create().Before("gorm:save_after_associations").Register("guardgorm:index", w.afterCreate),
		on.Update().Before("gorm:update").Register("guardgorm:seal", w.beforeUpdate),
		on.Update().Before("gorm:save_after_associations").Register("guardgorm:index", w.afterUpdate),
		on.Delete().Before("gorm:delete").Register("guardgorm:find", w.beforeDelete),
		on.Delete().Before("gorm:after_delete").Register("guardgorm:index", w.afterDelete),
		on.Query().Before("gorm:query").Register("guardgorm:check", w.beforeRead),
		on.Query().Before("gorm:after_query").Register("guardgorm:open", w.afterQuery),
		on.Row().Before("gorm:row").Register("guardgorm:check", w.beforeRead),
	)
}

// Open opens rows that were read past the plugin: a pointer to a struct or a slice of
// structs or of pointers to them. Its errors are those of a query.
func (p *Plugin) Open(ctx context.Context, rows any) error {
	v := reflect.ValueOf(rows)
	if v.Kind() != reflect.Pointer && v.Kind() != reflect.Slice || v.IsNil() {
		return fmt.Errorf("guardgorm: %T is not a pointer to rows", rows)
	}
	b := newBatches(p)
	if err := b.addAll(v); err != nil {
		return err
	}
	return b.open(ctx)
}

// tenantOf returns the tenant for which a context acts.
func tenantOf(ctx context.Context) (string, error) {
	s, ok := crmguard.SubjectFrom(ctx)
	if !ok || s.Tenant == "" {
		return "", errors.New("guardgorm: no subject in the context: use db.WithContext")
	}
	return s.Tenant, nil
}
