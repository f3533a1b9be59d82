package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// A company with many contacts, sellers who are responsible for a share each, and
// departments of regions. Tests of the claims make it smaller.
var (
	filteredContacts = 1_000_000
	filteredSellers  = 1_000
)

const (
	departments    = 400
	regionOf       = 40 // departments
	sharedWithEach = 50
	pageRows       = 50
)

// rbacFilterClaims compare a page of a list through a filter, which is made anew for each
// page, to the query that one would write by hand for the same rights. Both have
// the indexes that docs/guides/rows.md names.
func rbacFilterClaims() []claim {
	return []claim{
		{name: "rbac.filter", unit: "µs", direction: atMost, limit: 1.2, open: openFilter(ownPage)},
		{name: "rbac.filter-shared", unit: "µs", direction: atMost, limit: 1.2, open: openFilter(sharedPage)},
		{name: "rbac.filter-head", unit: "µs", direction: atMost, limit: 1.2, open: openFilter(headPage)},
	}
}

// contactList is a kind of page: whose it is, by which rules, and how it is read.
type contactList struct {
	rules  string
	person func(i int) string
	where  func(f rbac.Filter) ([]string, []any, error)
	hand   []string // conditions by hand; $1 the tenant, $2 the person, $3 the person's departments
	units  bool
}

var filterColumns = rbac.Columns{
	Tenant: "c.tenant", Owner: "c.owner", Unit: "c.unit", ID: "c.id",
	Shares: &rbac.Shares{Table: "shares", Tenant: "tenant", Record: "record", Person: "person"},
}

func seller(i int) string { return "seller-" + strconv.Itoa(i%filteredSellers) }

func once(f rbac.Filter) ([]string, []any, error) {
	where, args, err := f.SQL(filterColumns, 1)
	return []string{where}, args, err
}

var (
	ownPage = contactList{
		rules: "p, role:seller, acme, contacts, list, own, allow", person: seller, where: once,
		hand: []string{"c.tenant = $1 AND c.owner = $2"},
	}
	sharedPage = contactList{
		rules: "p, role:seller, acme, contacts, list, own, allow\np, role:seller, acme, contacts, list, shared, allow", person: seller,
		where: func(f rbac.Filter) ([]string, []any, error) { return f.Union(filterColumns, 1) },
		hand: []string{
			"c.tenant = $1 AND c.owner = $2",
			"c.tenant = $1 AND c.id IN (SELECT record FROM shares WHERE tenant = $1 AND person = $2)",
		},
	}
	headPage = contactList{
		rules: "p, role:seller, acme, contacts, list, tree, allow", where: once, units: true,
		person: func(i int) string { return "head-" + strconv.Itoa(i%(departments/regionOf)) },
		hand:   []string{"c.tenant = $1 AND (c.owner = $2 OR c.unit = ANY($3))"},
	}
)

// pageOf is a query for the rows before a position, the newest first.
func pageOf(wheres []string, before string) string {
	page := func(where string) string {
		return "SELECT c.seq, c.id, c.name FROM contacts c WHERE " + where + " AND c.seq < " + before + " ORDER BY c.seq DESC LIMIT " + strconv.Itoa(pageRows)
	}
	if len(wheres) == 1 {
		return page(wheres[0])
	}
	pages := make([]string, len(wheres))
	for i, where := range wheres {
		pages[i] = "SELECT * FROM (" + page(where) + ") AS page"
	}
	return strings.Join(pages, " UNION ") + " ORDER BY seq DESC LIMIT " + strconv.Itoa(pageRows)
}

func openFilter(l contactList) func(ctx context.Context, s *servers) (trial, error) {
	return func(ctx context.Context, s *servers) (_ trial, err error) {
		db, drop, err := s.schema(ctx, 1)
		if err != nil {
			return trial{}, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, drop())
			}
		}()
		if err := fillContacts(ctx, db); err != nil {
			return trial{}, err
		}
		rights, err := filterRights(ctx, l)
		if err != nil {
			return trial{}, err
		}
		return trial{
			ours: microseconds(func(i int) error {
				subject := crmguard.Subject{Tenant: "acme", ID: l.person(i), Kind: crmguard.KindEmployee}
				filter, err := rights.Filter(ctx, subject, crmguard.List, "contacts")
				if err != nil {
					return err
				}
				wheres, args, err := l.where(filter)
				if err != nil {
					return err
				}
				return readPage(ctx, db, pageOf(wheres, "$"+strconv.Itoa(len(args)+1)), append(args, position(i))...)
			}),
			peer: microseconds(func(i int) error {
				args := []any{"acme", l.person(i)}
				if l.units {
					args = append(args, departmentsOf(i%(departments/regionOf)))
				}
				return readPage(ctx, db, pageOf(l.hand, "$"+strconv.Itoa(len(args)+1)), append(args, position(i))...)
			}),
			close: drop,
		}, nil
	}
}

// position is where the page of a turn begins: every second one is the first page.
func position(i int) int64 {
	if i%2 == 0 {
		return math.MaxInt64
	}
	return int64(filteredContacts / 2)
}

// microseconds measures one call of op after the other, each with its number.
func microseconds(op func(i int) error) measurement {
	i := 0
	inNanoseconds := perOp(func() error { i++; return op(i) })
	return per(1000, inNanoseconds)
}

func fillContacts(ctx context.Context, db *sql.DB) error {
	for _, statement := range []string{
		`CREATE UNLOGGED TABLE contacts (seq BIGINT PRIMARY KEY, tenant TEXT NOT NULL, id TEXT NOT NULL, owner TEXT, unit TEXT, name TEXT NOT NULL)`,
		fmt.Sprintf(`INSERT INTO contacts SELECT n, 'acme', 'c' || n, 'seller-' || n * 7919 %% %d, 'unit-' || n * 7919 %% %d %% %d, 'name ' || n FROM generate_series(1, %d::bigint) n`,
			filteredSellers, filteredSellers, departments, filteredContacts),
		`CREATE UNIQUE INDEX contacts_id ON contacts (tenant, id)`,
		`CREATE INDEX contacts_owner ON contacts (tenant, owner, seq)`,
		`CREATE INDEX contacts_unit ON contacts (tenant, unit, seq)`,
		`CREATE UNLOGGED TABLE shares (tenant TEXT, person TEXT, record TEXT, PRIMARY KEY (tenant, person, record))`,
		fmt.Sprintf(`INSERT INTO shares SELECT 'acme', 'seller-' || n %% %d, 'c' || 1 + n * 17 %% %d FROM generate_series(1, %d) n`,
			filteredSellers, filteredContacts, filteredSellers*sharedWithEach),
		`VACUUM ANALYZE contacts`,
		`VACUUM ANALYZE shares`,
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// departmentsOf are those of a region.
func departmentsOf(region int) []string {
	units := make([]string, regionOf)
	for i := range units {
		units[i] = "unit-" + strconv.Itoa(region*regionOf+i)
	}
	return units
}

func filterRights(ctx context.Context, l contactList) (*rbac.Engine, error) {
	units := rbac.Units{Parent: map[string]string{}, Members: map[string][]string{}}
	rows := []string{l.rules}
	for i := range filteredSellers {
		rows = append(rows, "g, u:"+seller(i)+", role:seller, acme")
		units.Members[seller(i)] = []string{"unit-" + strconv.Itoa(i%departments)}
	}
	for i := range departments / regionOf {
		region, head := "region-"+strconv.Itoa(i), headPage.person(i)
		for _, unit := range departmentsOf(i) {
			units.Parent[unit] = region
		}
		units.Members[head] = []string{region}
		rows = append(rows, "g, u:"+head+", role:seller, acme")
	}
	org := &rbac.StaticOrg{}
	org.Set("acme", units)
	return rbac.New(ctx, stringadapter.NewAdapter(strings.Join(rows, "\n")), &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
}

// readPage reads what a page shows, which are as many rows as it has room for.
func readPage(ctx context.Context, db *sql.DB, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	n := 0
	for rows.Next() {
		var seq int64
		var id, name string
		if err := rows.Scan(&seq, &id, &name); err != nil {
			return err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != pageRows {
		return fmt.Errorf("a page has %d rows", n)
	}
	return nil
}
