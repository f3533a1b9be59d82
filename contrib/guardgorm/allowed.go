package guardgorm

import (
	"errors"
	"regexp"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/crmguard/crmguard/rbac"
)

// Allowed is a scope that narrows a statement to the rows that a filter chooses:
//
//	filter, err := rights.Filter(ctx, subject, crmguard.List, "contacts")
//	db.Scopes(guardgorm.Allowed(filter, columns)).Order("id DESC").Limit(50).Find(&contacts)
//
// It works in queries, with Count, Joins and aliases, in Updates and Delete, as a condition
// of Preload and in subqueries. Whatever other conditions there are, such as those that
// Or adds before or after it, holds within it only. An update that meets no row has a
// RowsAffected of 0: for whoever acts that row does not exist. Columns are named as
// the statement has them, with the table or its alias where others have such columns, too.
//
// It fails, and nothing is read or changed, when a column is no identifier, and where
// there is no WHERE that it could narrow: in Raw and Exec, and in whatever inserts,
// which Save does, too, when it has found no row to update. Only a subquery of Raw's drops
// its scopes in silence: that is gorm's doing.
//
// The plugin is not needed for it.
func Allowed(f rbac.Filter, c rbac.Columns) func(*gorm.DB) *gorm.DB {
	return func(db *gorm.DB) *gorm.DB {
		text, args, err := f.SQL(c, 1)
		a := &allowed{Expr: clause.Expr{SQL: numbered.ReplaceAllString(text, "?"), Vars: args}, err: err}
		db = db.Where(a)
		if db.Statement.SQL.Len() > 0 {
			_ = db.AddError(errNoWhere)
		}
		where := db.Statement.Clauses["WHERE"]
		where.Builder = buildWhere(filtersIn(where))
		db.Statement.Clauses["WHERE"] = where
		db.Statement.Clauses["INSERT"] = clause.Clause{Name: "INSERT", Expression: noInsert{}}
		return db
	}
}

var (
	errNoWhere = errors.New("guardgorm: Allowed narrows nothing here: the statement has no WHERE of gorm's")
	errNested  = errors.New("guardgorm: Allowed narrows a statement, not a group of its conditions: use Scopes of the statement")
)

// numbered is a parameter as rbac.Filter writes it: all of them once and in order. gorm
// gives them the form and the number that they need in the statement.
var numbered = regexp.MustCompile(`\$[0-9]+`)

// allowed is the condition of a filter. It is among the others of the statement, so that gorm
// carries it along, but [buildWhere] writes it.
type allowed struct {
	clause.Expr
	err error // the statement must fail
}

// Build implements clause.Expression, for a place among other conditions: below those that
// [buildWhere] has in hand, where a soft delete puts it, or in a group of another statement.
func (a *allowed) Build(b clause.Builder) {
	if stmt, ok := b.(*gorm.Statement); ok {
		if _, ok := stmt.Settings.Load(a); ok {
			_, _ = b.WriteString("1=1")
			return
		}
	}
	refuse(b, errNested)
}

// filtersIn lists the filters of a WHERE.
func filtersIn(c clause.Clause) (all []*allowed) {
	where, _ := c.Expression.(clause.Where)
	for _, e := range where.Exprs {
		if a, ok := e.(*allowed); ok {
			all = append(all, a)
		}
	}
	return all
}

func isAllowed(e clause.Expression) bool {
	_, ok := e.(*allowed)
	return ok
}

// buildWhere writes filters first and all other conditions in parentheses, because gorm
// strings conditions together: a OR b AND filter.
func buildWhere(filters []*allowed) clause.ClauseBuilder {
	return func(c clause.Clause, b clause.Builder) {
		stmt, ok := b.(*gorm.Statement)
		if !ok {
			refuse(b, errNoWhere)
			return
		}
		_, _ = b.WriteString("WHERE ")
		for i, a := range filters {
			if i > 0 {
				_, _ = b.WriteString(clause.AndWithSpace)
			}
			if a.err != nil {
				refuse(b, a.err)
			}
			a.Expr.Build(b)
			stmt.Settings.Store(a, true) // it holds for all that follows
			defer stmt.Settings.Delete(a)
		}
		where, _ := c.Expression.(clause.Where)
		where.Exprs = slices.DeleteFunc(slices.Clone(where.Exprs), isAllowed)
		if len(where.Exprs) > 0 {
			_, _ = b.WriteString(" AND (")
			where.Build(b)
			_ = b.WriteByte(')')
		}
	}
}

// noInsert stands where a statement would insert.
type noInsert struct{}

func (noInsert) Build(b clause.Builder) { refuse(b, errNoWhere) }

// refuse lets a statement fail while it is built. Its text is then none that a database
// takes, because gorm drops the errors of subqueries.
func refuse(b clause.Builder, err error) {
	if stmt, ok := b.(*gorm.Statement); ok {
		_ = stmt.AddError(err)
	}
	_, _ = b.WriteString(" refused by guardgorm ")
}
