package guardgorm

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"
)

// meant returns the sealed field that a name means to gorm, which turns PHONE, phoneSealed
// and the like into columns, or to a database, which may overlook case. The column is the
// sealed one or the one of plaintext that was before it; none means the plain field.
func (t *table) meant(name string) (f *field, column *schema.Field) {
	for _, name := range []string{name, bare(name)} {
		if f := t.names[name]; f != nil {
			return f, nil
		}
		if c := t.schema.LookUpField(name); c != nil {
			return t.behind(c, name)
		}
	}
	name = bare(name)
	for _, f := range t.pairs {
		for _, c := range []*schema.Field{f.sealed, f.old} {
			if c != nil && (strings.EqualFold(name, c.DBName) || strings.EqualFold(name, c.Name)) {
				return t.behind(c, name)
			}
		}
		if strings.EqualFold(name, f.plain.Name) || t.names[f.Name] == f && strings.EqualFold(name, f.Name) {
			return f, nil
		}
	}
	return nil, nil
}

// behind returns what [table.meant] does, of what gorm calls a field by this name; nothing
// of those that are not sealed.
func (t *table) behind(c *schema.Field, name string) (*field, *schema.Field) {
	for _, f := range t.pairs {
		switch c {
		case f.plain:
			return f, nil
		case f.sealed:
			return f, c
		case f.old:
			if t.names[c.DBName] == f && !strings.EqualFold(bare(name), c.Name) {
				return f, nil // the column has the logical name
			}
			return f, c
		}
	}
	return nil, nil
}

// idNamed returns the column of the record's or client's id, if a name means it.
func (t *table) idNamed(name string) *schema.Field {
	for _, id := range []*schema.Field{t.idCol, t.clientCol} {
		if t.schema.LookUpField(name) == id || t.schema.LookUpField(bare(name)) == id || strings.EqualFold(bare(name), id.DBName) {
			return id
		}
	}
	return nil
}

// bare returns a name without the table before it and without quotes.
func bare(name string) string {
	return strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "\"`[] ")
}

// translate turns names of plain fields into columns.
func (t *table) translate(stmt *gorm.Statement, names []string) []string {
	plain := func(name string) *field {
		if i := strings.LastIndexByte(name, '.'); i >= 0 && !strings.EqualFold(bare(name[:i]), stmt.Table) {
			return nil // another table's
		}
		if f, column := t.meant(name); column == nil {
			return f
		}
		return nil
	}
	if !slices.ContainsFunc(names, func(name string) bool { return plain(name) != nil }) {
		return names
	}
	translated := make([]string, 0, len(names)+1) // the old slice is other statements', too
	for _, name := range names {
		f := plain(name)
		if f == nil {
			translated = append(translated, name)
			continue
		}
		translated = append(translated, f.sealed.DBName)
		if f.old != nil {
			translated = append(translated, f.old.DBName)
		}
	}
	return translated
}

// named returns the tables whose names are in a text.
func (w *watcher) named(text string) (found []*table) {
	for _, word := range append(strings.FieldsFunc(text, notOfNames), bare(text)) {
		for _, t := range w.byName[strings.ToLower(word)] {
			if !slices.Contains(found, t) {
				found = append(found, t)
			}
		}
	}
	return found
}

func notOfNames(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '$'
}

// tablesOf returns the tables with sealed fields that a statement names.
func (w *watcher) tablesOf(stmt *gorm.Statement) []*table {
	text := stmt.Table
	if stmt.TableExpr != nil {
		text += " " + stmt.TableExpr.SQL
	}
	return w.named(text)
}

// checkBypass refuses what other structs, or maps without a model, would write to
// sealed columns.
func (w *watcher) checkBypass(stmt *gorm.Statement) error {
	for _, t := range w.tablesOf(stmt) {
		if stmt.Schema != nil {
			for _, name := range stmt.Schema.DBNames {
				if _, column := t.meant(name); column != nil {
					return fmt.Errorf("guardgorm: %v writes to sealed column %s, but no kind was given for it", stmt.Schema.ModelType, column.DBName)
				}
			}
		}
		var names []string
		for _, m := range mapsOf(stmt.Dest) {
			for name := range m {
				names = append(names, name)
			}
		}
		set, ok := stmt.Clauses["SET"].Expression.(clause.Set)
		if c := stmt.Clauses["SET"]; !ok && c.Expression != nil {
			return fmt.Errorf("guardgorm: %s: SET of type %T is unknown", t.kind, c.Expression)
		}
		conflict, _ := stmt.Clauses["ON CONFLICT"].Expression.(clause.OnConflict)
		for _, a := range slices.Concat(set, conflict.DoUpdates) {
			names = append(names, a.Column.Name)
		}
		for _, name := range names {
			if f, _ := t.meant(name); f != nil {
				return fmt.Errorf("guardgorm: %s: sealed field %q is written through the model only", t.kind, f.Name)
			}
		}
	}
	return w.prepare(stmt, nil)
}
