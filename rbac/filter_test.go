package rbac

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

var contactColumns = Columns{
	Tenant: "c.tenant", Owner: "c.owner", Unit: "c.unit", ID: "c.id",
	Shares: &Shares{Table: "shares", Tenant: "tenant", Record: "record", Person: "person"},
}

func TestFilterSQL(t *testing.T) {
	const sharedWith = " IN (SELECT crmguard_share.record FROM shares AS crmguard_share WHERE crmguard_share.tenant = $%d AND crmguard_share.person = $%d"
	const shared = "c.id" + sharedWith + ")"
	for name, test := range map[string]struct {
		rules []string // scope effect
		where string
		args  []any
	}{
		"nothing":          {nil, "1=0", nil},
		"all denied":       {[]string{"all allow", "all deny"}, "1=0", nil},
		"everything":       {[]string{"all allow"}, "c.tenant = $3", []any{"acme"}},
		"own":              {[]string{"own allow"}, "(c.tenant = $3 AND c.owner = $4)", []any{"acme", "vera"}},
		"dept":             {[]string{"dept allow"}, "(c.tenant = $3 AND (c.owner = $4 OR c.unit = $5))", []any{"acme", "vera", "north"}},
		"tree":             {[]string{"tree allow"}, "(c.tenant = $3 AND (c.owner = $4 OR c.unit IN ($5, $6)))", []any{"acme", "vera", "north", "north-1"}},
		"headed":           {[]string{"headed allow"}, "(c.tenant = $3 AND (c.owner = $4 OR c.unit IN ($5, $6)))", []any{"acme", "vera", "desk", "support"}},
		"shared":           {[]string{"shared allow"}, fmt.Sprintf("(c.tenant = $3 AND "+shared+")", 4, 5), []any{"acme", "acme", "vera"}},
		"own and shared":   {[]string{"own allow", "shared allow"}, fmt.Sprintf("(c.tenant = $3 AND (c.owner = $4 OR "+shared+"))", 5, 6), []any{"acme", "vera", "acme", "vera"}},
		"all but own":      {[]string{"all allow", "own deny"}, "(c.tenant = $3 AND (c.owner IS NULL OR NOT c.owner = $4))", []any{"acme", "vera"}},
		"all but the tree": {[]string{"all allow", "tree deny"}, "(c.tenant = $3 AND (c.owner IS NULL OR NOT c.owner = $4) AND (c.unit IS NULL OR NOT c.unit IN ($5, $6)))", []any{"acme", "vera", "north", "north-1"}},
		"tree but dept":    {[]string{"tree allow", "dept deny"}, "(c.tenant = $3 AND (c.owner IS NULL OR NOT c.owner = $4) AND c.unit = $5)", []any{"acme", "vera", "north-1"}},
		"all but shared":   {[]string{"all allow", "shared deny"}, fmt.Sprintf("(c.tenant = $3 AND c.id NOT"+sharedWith+" AND crmguard_share.record IS NOT NULL))", 4, 5), []any{"acme", "acme", "vera"}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := []string{goodRule}
			for _, rule := range test.rules {
				scope, effect, _ := strings.Cut(rule, " ")
				lines = append(lines, fmt.Sprintf("p, u:vera, acme, contacts, list, %s, %s", scope, effect))
			}
			e := engineFromCSV(t, strings.Join(lines, "\n"), teamOrg())
			f, err := e.Filter(t.Context(), person("vera"), crmguard.List, "contacts")
			require.NoError(t, err)
			where, args, err := f.SQL(contactColumns, 3)
			require.NoError(t, err)
			require.Equal(t, test.where, where)
			require.Equal(t, test.args, args)
		})
	}
}

// A column that the table does not have is one that is empty in every row.
func TestFilterOfTablesWithoutOwnerOrUnit(t *testing.T) {
	e := engineFromCSV(t, "p, u:vera, acme, contacts, view, tree, allow\np, u:vera, acme, contacts, list, all, allow\np, u:vera, acme, contacts, list, own, deny", teamOrg())
	for _, test := range []struct {
		action  crmguard.Action
		columns Columns
		where   string
	}{
		{crmguard.View, Columns{Tenant: "tenant", Owner: "owner"}, "(tenant = $1 AND owner = $2)"},
		{crmguard.View, Columns{Tenant: "tenant", Unit: "unit"}, "(tenant = $1 AND unit IN ($2, $3))"},
		{crmguard.View, Columns{Tenant: "tenant"}, "1=0"},
		{crmguard.List, Columns{Tenant: "tenant", Unit: "unit"}, "tenant = $1"},
	} {
		f, err := e.Filter(t.Context(), person("vera"), test.action, "contacts")
		require.NoError(t, err)
		where, args, err := f.SQL(test.columns, 1)
		require.NoError(t, err)
		require.Equal(t, test.where, where)
		require.Len(t, args, strings.Count(where, "$"))
	}
}

func TestFilterRefuses(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	for _, kind := range []string{"", "section:journal", "contacts#", "#phone"} {
		_, err := e.Filter(t.Context(), person("oleg"), crmguard.List, kind)
		require.Error(t, err)
	}
	f, err := e.Filter(t.Context(), person("oleg"), crmguard.View, "contacts")
	require.NoError(t, err)
	for name, fault := range map[string]func(c *Columns){
		"no tenant":     func(c *Columns) { c.Tenant = "" },
		"quote":         func(c *Columns) { c.Owner = `owner"` },
		"space":         func(c *Columns) { c.Owner = "owner = owner OR 1" },
		"comment":       func(c *Columns) { c.Unit = "unit--" },
		"parenthesis":   func(c *Columns) { c.Unit = "lower(unit)" },
		"newline":       func(c *Columns) { c.Unit = "unit\n" },
		"digit first":   func(c *Columns) { c.Unit = "1unit" },
		"dots":          func(c *Columns) { c.Unit = "a..b" },
		"four parts":    func(c *Columns) { c.Unit = "a.b.c.d" },
		"not ASCII":     func(c *Columns) { c.Owner = "владелец" },
		"no ID, shares": func(c *Columns) { c.ID = "" },
		"dot in shares": func(c *Columns) {
			c.Shares = &Shares{Table: "s", Tenant: "s.tenant", Record: "s.record", Person: "c.person"}
		},
		"table of shares": func(c *Columns) { c.Shares = &Shares{Table: "x; DROP", Tenant: "t", Record: "r", Person: "p"} },
		"empty in shares": func(c *Columns) { c.Shares = &Shares{Table: "x", Tenant: "t", Record: "r"} },
	} {
		c := contactColumns
		fault(&c)
		_, _, err := f.SQL(c, 1)
		require.Error(t, err, name)
	}
	_, _, err = f.SQL(contactColumns, 0)
	require.Error(t, err)
	where, args, err := Filter{}.SQL(contactColumns, 1)
	require.NoError(t, err)
	require.Equal(t, "1=0", where, "the zero filter chooses nothing")
	require.Empty(t, args)
}

// hostRow is a row of a host's table; nil is NULL.
type hostRow struct {
	id, tenant  string
	owner, unit *string
}

// hostTables makes a table of contacts and one of shares with every mixture of
// owner and unit that the names allow.
func hostTables(t *testing.T, db *sql.DB, rnd *rand.Rand) (rows []hostRow, shared func(id, person string) bool) {
	t.Helper()
	ctx := t.Context()
	_, err := db.ExecContext(ctx, `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, owner TEXT, unit TEXT)`)
	require.NoError(t, err)
	// All columns of contacts are here too, so that a name which is read in the wrong table finds something.
	_, err = db.ExecContext(ctx, `CREATE TABLE shares (tenant TEXT NOT NULL, id TEXT NOT NULL, record TEXT, person TEXT NOT NULL, owner TEXT, unit TEXT)`)
	require.NoError(t, err)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	given := map[[2]string]bool{}
	values := func(names []string) []*string {
		some := []*string{nil, new("")}
		for _, name := range names {
			some = append(some, new(name))
		}
		return some
	}
	for _, tenant := range someTenants {
		for _, owner := range values(somePersons) {
			for _, unit := range values(someUnits) {
				row := hostRow{fmt.Sprintf("№%03d", len(rows)), tenant, owner, unit}
				_, err := tx.ExecContext(ctx, `INSERT INTO contacts (tenant, id, owner, unit) VALUES ($1, $2, $3, $4)`, row.tenant, row.id, row.owner, row.unit)
				require.NoError(t, err)
				rows = append(rows, row)
				for _, person := range somePersons {
					share := func(tenant string, record any) {
						_, err := tx.ExecContext(ctx, `INSERT INTO shares (tenant, id, record, person) VALUES ($1, $2, $3, $4)`, tenant, row.id, record, person)
						require.NoError(t, err)
					}
					switch rnd.IntN(12) {
					case 0, 1, 2:
						given[[2]string{row.id, person}] = true
						share(tenant, row.id)
					case 3:
						share(tenant+"-other", row.id)
					case 4:
						share(tenant, nil)
					}
				}
			}
		}
	}
	require.NoError(t, tx.Commit())
	return rows, func(id, person string) bool { return given[[2]string{id, person}] }
}

func (r hostRow) resource(kind string) crmguard.Resource {
	res := crmguard.Resource{Tenant: r.tenant, Kind: kind, ID: r.id}
	if r.owner != nil {
		res.Owner = *r.owner
	}
	if r.unit != nil {
		res.Unit = *r.unit
	}
	return res
}

// chosen are the rows that at least one of the conditions chooses.
func chosen(ctx context.Context, t *testing.T, db *sql.DB, args []any, wheres ...string) []string {
	t.Helper()
	for i, where := range wheres {
		wheres[i] = `SELECT c.id FROM contacts c WHERE $1 <> '' AND ` + where + ` AND $` + fmt.Sprint(len(args)+2) + ` <> ''`
	}
	query := strings.Join(wheres, " UNION ")
	rows, err := db.QueryContext(ctx, query, slices.Concat([]any{"before"}, args, []any{"after"})...)
	require.NoError(t, err, query)
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	slices.Sort(ids)
	return ids
}

// selecting is how the rows that a filter chooses are asked for.
type selecting func(f Filter, c Columns, firstParam int) (wheres []string, args []any, err error)

func whole(f Filter, c Columns, firstParam int) ([]string, []any, error) {
	where, args, err := f.SQL(c, firstParam)
	return []string{where}, args, err
}

// filterRun compares the rows that SQL chooses with those for which Check says
// yes, over random policies and departments, and counts the disagreements; when there
// are enough, if that is not 0, it looks no further.
func filterRun(t *testing.T, db *sql.DB, ask selecting, enough int) (wrong int, share float64) {
	rnd := rand.New(rand.NewPCG(9, 10)) //nolint:gosec // the same run every time
	rows, shared := hostTables(t, db, rnd)
	asked, yes := 0, 0
	for range 40 {
		var org Org
		if rnd.IntN(3) > 0 {
			org = randomOrg(rnd, map[string]Units{})
		}
		e := engineOf(t, withDeputies(rnd, randomPolicy(rnd, 180, 0, 8+16*rnd.IntN(2))), org)
		for range 4 {
			s := crmguard.Subject{Tenant: pick(rnd, someTenants), ID: pick(rnd, somePersons)}
			s.Kind = kindOf(s.ID)
			if org == nil {
				s.Units = shuffled(rnd, someUnits)[:rnd.IntN(3)]
			}
			if rnd.IntN(6) == 0 {
				s.OnBehalfOf = pick(rnd, somePersons[:4]) // not the job
			}
			if rnd.IntN(8) == 0 {
				s.Scopes = []string{"contacts:view"}
			}
			kind, action := pick(rnd, someKinds), pick(rnd, someActions)
			columns := contactColumns
			withShares := rnd.IntN(4) > 0
			if !withShares {
				columns.Shares = nil
			}
			object, field := kind, pick(rnd, someFields)
			if field != "" {
				object += "#" + field
			}
			f, err := e.Filter(t.Context(), s, action, object)
			require.NoError(t, err)
			wheres, args, err := ask(f, columns, 2)
			require.NoError(t, err)
			var want []string
			for _, row := range rows {
				if row.tenant != s.Tenant {
					continue
				}
				r := row.resource(kind)
				r.Field, r.Shared = field, withShares && shared(row.id, s.ID)
				asked++
				if e.Check(t.Context(), s, action, r) == nil {
					want = append(want, row.id)
					yes++
				}
			}
			slices.Sort(want)
			if !slices.Equal(want, chosen(t.Context(), t, db, args, wheres...)) {
				if wrong++; wrong == enough {
					return wrong, float64(yes) / float64(asked)
				}
			}
		}
	}
	return wrong, float64(yes) / float64(asked)
}

func TestSQLChoosesTheRowsThatCheckAllows(t *testing.T) {
	for name, ask := range map[string]selecting{"SQL": whole, "Union": Filter.Union} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				wrong, share := filterRun(t, db, ask, 0)
				require.Zero(t, wrong)
				require.GreaterOrEqual(t, share, 0.3, "too few rows are allowed for the test to mean much")
				t.Logf("%.0f %% of the rows were allowed", 100*share)
			})
		})
	}
}

// Each of these filters has one fault, and the comparison above must notice it.
func TestPlantedFaultsInFiltersAreFound(t *testing.T) {
	inParts := func(fault func(p *filterPart)) selecting {
		return func(f Filter, c Columns, firstParam int) ([]string, []any, error) {
			f.parts = slices.Clone(f.parts)
			for i := range f.parts {
				fault(&f.parts[i])
			}
			return whole(f, c, firstParam)
		}
	}
	rewritten := func(what, by string) selecting {
		return func(f Filter, c Columns, firstParam int) ([]string, []any, error) {
			wheres, args, err := whole(f, c, firstParam)
			return []string{strings.ReplaceAll(wheres[0], what, by)}, args, err
		}
	}
	for name, ask := range map[string]selecting{
		"sub-departments left out": inParts(func(p *filterPart) { p.units[relTree] = nil }),
		"heads left out":           inParts(func(p *filterPart) { p.units[relHeaded] = nil }),
		"heads for members":        inParts(func(p *filterPart) { p.units[relDept] = append(p.units[relDept], p.units[relHeaded]...) }),
		"deputies left out":        inParts(func(p *filterPart) { p.whom = nil }),
		"deputies undenied": inParts(func(p *filterPart) {
			p.undenied = &filterPart{plain: everyRelation & unsharedRelations, shared: unsharedRelations}
		}),
		"sharing left out":       inParts(func(p *filterPart) { p.shared = p.plain }),
		"denies left out":        inParts(func(p *filterPart) { p.plain |= 1 << relOwn }),
		"nobody's rows left out": inParts(func(p *filterPart) { p.plain &^= 1 << relNone; p.shared &^= 1 << relNone }),
		"another person":         inParts(func(p *filterPart) { p.person = "nobody" }),
		"the tenant left out": func(f Filter, c Columns, firstParam int) ([]string, []any, error) {
			f.tenant = someTenants[0]
			return whole(f, c, firstParam)
		},
		"the one acted for left out": func(f Filter, c Columns, firstParam int) ([]string, []any, error) {
			f.parts = f.parts[:min(1, len(f.parts))]
			return whole(f, c, firstParam)
		},
		"the tenant of shares left out": rewritten("crmguard_share.tenant = ", "'' <> "),
		"NULL among the shares left in": rewritten(" AND crmguard_share.record IS NOT NULL", ""),
		"one of a union left out": func(f Filter, c Columns, firstParam int) ([]string, []any, error) {
			wheres, args, err := f.Union(c, firstParam)
			wheres[0] = wheres[len(wheres)-1]
			return wheres, args, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			wrong, _ := filterRun(t, sqldbtest.SQLite(t), ask, 1)
			require.NotZero(t, wrong)
		})
	}
}

func TestFilterOfAField(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, teamOrg())
	for object, want := range map[string]string{
		"contacts":       "(tenant = $1 AND (owner = $2 OR unit IN ($3, $4)))", // tree
		"contacts#phone": "(tenant = $1 AND owner = $2)",                       // write: own
		"contacts#email": "1=0",
	} {
		action := crmguard.Update
		if object == "contacts" {
			action = crmguard.View
		}
		f, err := e.Filter(t.Context(), person("vera"), action, object)
		require.NoError(t, err)
		where, _, err := f.SQL(Columns{Tenant: "tenant", Owner: "owner", Unit: "unit"}, 1)
		require.NoError(t, err)
		require.Equal(t, want, where, object)
	}
}
