package guardgorm

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// prepare is what all statements have in common; t is nil for models without sealed fields.
// Values of sealed fields that became SQL would be in gorm's log, so it refuses conditions
// on them before.
func (w *watcher) prepare(stmt *gorm.Statement, t *table) error {
	if t != nil {
		stmt.Selects, stmt.Omits = t.translate(stmt, stmt.Selects), t.translate(stmt, stmt.Omits)
		if selects, ok := stmt.Clauses["SELECT"].Expression.(clause.Select); ok {
			for _, c := range selects.Columns {
				if c.Name == "" { // what gorm makes of Pluck("Phone")
					return fmt.Errorf("guardgorm: %s: a plain field has no column to select", t.kind)
				}
			}
		}
	}
	return w.checkStatement(stmt, t)
}

// scope is what names in conditions can mean.
type scope struct {
	current []*table            // without a qualifier
	aliases map[string][]*table // by qualifier, in lower case
	others  []*table            // whose aliases are in SQL text
}

func (w *watcher) checkStatement(stmt *gorm.Statement, t *table) error {
	s := &scope{current: w.tablesOf(stmt), aliases: make(map[string][]*table)}
	if t != nil && !slices.Contains(s.current, t) {
		s.current = append(s.current, t)
	}
	s.add(stmt.Table, s.current)
	for _, t := range s.current {
		s.add(t.schema.Table, s.current)
	}
	paths := make([][]*table, len(stmt.Joins))
	for i, join := range stmt.Joins {
		paths[i] = w.joined(stmt, s, join.Name)
		s.add(join.Alias, paths[i])
	}
	from, _ := stmt.Clauses["FROM"].Expression.(clause.From)
	for _, join := range from.Joins {
		s.add(join.Table.Alias, w.named(join.Table.Name))
		s.add(join.Table.Name, w.named(join.Table.Name))
	}
	if len(s.aliases)+len(s.others) == 0 {
		return nil
	}
	for i, join := range stmt.Joins {
		if err := s.checkText(join.Name, join.Conds); err != nil {
			return err
		}
		on := &scope{current: paths[i], aliases: s.aliases, others: s.others}
		if join.On != nil {
			if err := on.check(join.On.Exprs); err != nil {
				return err
			}
		}
		if err := on.checkOne(join.Expression); err != nil {
			return err
		}
	}
	for _, join := range from.Joins {
		if err := s.check(append(slices.Clone(join.ON.Exprs), join.Expression)); err != nil {
			return err
		}
	}
	for _, name := range []string{"SELECT", "WHERE", "GROUP BY", "ORDER BY", "ON CONFLICT"} {
		switch e := stmt.Clauses[name].Expression.(type) {
		case nil:
		case clause.Expr, clause.NamedExpr: // gorm's of a SELECT with values
			if err := s.checkValue(e); err != nil {
				return err
			}
		case clause.Select:
			if err := s.checkValue(e.Expression); err != nil {
				return err
			}
		case clause.OrderBy:
			if err := s.checkValue(e.Expression); err != nil {
				return err
			}
		case clause.Where:
			if err := s.check(e.Exprs); err != nil {
				return err
			}
		case clause.GroupBy:
			if err := s.check(e.Having); err != nil {
				return err
			}
		case clause.OnConflict:
			if err := s.check(slices.Concat(e.TargetWhere.Exprs, e.Where.Exprs)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("guardgorm: %s of type %T is unknown, and may name a sealed field", name, e)
		}
	}
	return nil
}

func (s *scope) add(alias string, tables []*table) {
	if alias = strings.ToLower(bare(alias)); alias != "" && len(tables) > 0 {
		s.aliases[alias] = append(s.aliases[alias], tables...)
	}
}

// joined returns the tables on a path of relations, or those that SQL text names.
func (w *watcher) joined(stmt *gorm.Statement, s *scope, path string) (found []*table) {
	current := stmt.Schema
	for i, name := range strings.Split(path, ".") {
		if current == nil || current.Relationships.Relations[name] == nil {
			if found = w.named(path); i == 0 {
				s.others = append(s.others, found...)
			}
			return found
		}
		current = current.Relationships.Relations[name].FieldSchema
		if t := w.byType[current.ModelType]; t != nil {
			found = append(found, t)
			s.add(name, []*table{t})
			s.add(t.schema.Table, []*table{t})
			s.add(strings.ReplaceAll(path, ".", "__"), []*table{t})
		}
	}
	return found
}

// check refuses conditions on sealed fields, and those of which that cannot be told.
func (s *scope) check(exprs []clause.Expression) error {
	for _, e := range exprs {
		if err := s.checkOne(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *scope) checkOne(expr clause.Expression) error {
	v := reflect.ValueOf(expr)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	switch e := v.Interface().(type) {
	case clause.Expr:
		return s.checkText(e.SQL, e.Vars)
	case clause.NamedExpr:
		return s.checkText(e.SQL, e.Vars)
	case allowed: // its columns say whose a row is
		return nil
	}
	if v.Kind() != reflect.Struct {
		return fmt.Errorf("guardgorm: a condition of type %T is unknown, and may name a sealed field", expr)
	}
	if inner, ok := member(v, "Exprs"); ok {
		if exprs, ok := reflect.TypeAssert[[]clause.Expression](inner); ok {
			return s.check(exprs)
		}
	}
	// clause.Eq and all that are like it; and what other packages have, such as JSON queries.
	column, ok := member(v, "Column")
	if !ok {
		return fmt.Errorf("guardgorm: a condition of type %T is unknown, and may name a sealed field", expr)
	}
	harmless := false
	if value, ok := member(v, "Value"); ok && value.CanInterface() {
		switch value.Interface().(type) {
		case nil, []byte, clause.Column:
			harmless = true
		}
	}
	return s.checkColumn(column, harmless)
}

// member returns the field of a struct with this name, in whatever case.
func member(v reflect.Value, name string) (reflect.Value, bool) {
	f, ok := v.Type().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, name) })
	if !ok {
		return reflect.Value{}, false
	}
	value, err := v.FieldByIndexErr(f.Index)
	return value, err == nil && (!f.IsExported() || value.CanInterface())
}

// checkColumn looks at what a condition calls its column. Sealed columns can be compared
// with NULL, bytes and other columns.
func (s *scope) checkColumn(column reflect.Value, harmless bool) error {
	for column.Kind() == reflect.Interface || column.Kind() == reflect.Pointer {
		column = column.Elem()
	}
	var table, name string
	switch column.Kind() {
	case reflect.String:
		if name = column.String(); strings.Contains(name, ".") {
			table = name[:strings.LastIndexByte(name, '.')]
		}
	case reflect.Slice, reflect.Array:
		for i := range column.Len() {
			if err := s.checkColumn(column.Index(i), harmless); err != nil {
				return err
			}
		}
		return nil
	case reflect.Struct:
		switch column.Type() {
		case reflect.TypeFor[clause.Column]():
			table, name = column.FieldByName("Table").String(), column.FieldByName("Name").String()
			if table == "" && strings.Contains(name, ".") {
				table = name[:strings.LastIndexByte(name, '.')]
			}
		case reflect.TypeFor[clause.Expr](), reflect.TypeFor[clause.NamedExpr]():
			for _, word := range strings.FieldsFunc(column.FieldByName("SQL").String(), func(r rune) bool { return notOfNames(r) && r != '.' }) {
				if err := s.checkColumn(reflect.ValueOf(word), harmless); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if name == "" {
		return fmt.Errorf("guardgorm: a condition on a column of kind %v is unknown, and may name a sealed field", column.Kind())
	}
	for _, t := range s.tables(table) {
		if f, c := t.meant(name); f != nil && (c == nil || !harmless) {
			return errCondition(t, name)
		}
	}
	return nil
}

func errCondition(t *table, name string) error {
	return fmt.Errorf("guardgorm: %s: a condition on sealed field %q finds nothing: ask encrypt.Table's Find for ids", t.kind, bare(name))
}

// tables returns those that a qualifier can mean.
func (s *scope) tables(qualifier string) []*table {
	if qualifier != clause.CurrentTable {
		qualifier = strings.ToLower(bare(qualifier))
	}
	switch tables := s.aliases[qualifier]; {
	case qualifier == "":
		return slices.Concat(s.current, s.others)
	case qualifier == clause.CurrentTable:
		return s.current
	case tables != nil:
		return tables
	}
	return s.others
}

// checkValue looks at what is not a condition, but may be SQL text.
func (s *scope) checkValue(v any) error {
	switch e := v.(type) {
	case clause.Expr:
		return s.checkText(e.SQL, e.Vars)
	case clause.NamedExpr:
		return s.checkText(e.SQL, e.Vars)
	case clause.CommaExpression:
		for _, e := range e.Exprs {
			if err := s.checkValue(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// compared finds names in SQL text that something is compared with.
var compared = regexp.MustCompile("(?i)([\\w.\"`@:]+)\\s*(?:[=<>~]|!=|!~|(?:NOT\\s+)?(?:I?LIKE|IN|BETWEEN|GLOB|SIMILAR)\\b)")

// checkText refuses values that SQL text compares with a plain field, which has no column:
// it would fail, and be logged.
func (s *scope) checkText(sql string, vars []any) error {
	if len(vars) == 0 {
		return nil
	}
	for _, v := range vars {
		if err := s.checkValue(v); err != nil {
			return err
		}
	}
	for _, match := range compared.FindAllStringSubmatch(sql, -1) {
		name, table := match[1], ""
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			table = name[:i]
		}
		for _, t := range s.tables(table) {
			if f, c := t.meant(name); f != nil && c == nil && f.old == nil {
				return errCondition(t, name)
			}
		}
	}
	return nil
}
