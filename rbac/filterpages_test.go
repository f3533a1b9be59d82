package rbac

import (
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

// almostNames are what a database could take for another name, for nothing, for a pattern, a
// parameter or a piece of SQL.
var almostNames = []string{
	"vera", "Vera", "VERA", "vera ", " vera", "ver\u0430", "ve\u0301ra", "v\u00e9ra", "vera\u200b", "ver_", "ver%", "v*", "vera\n", "vera\\",
	"'", "''", "o'neil", `"vera"`, "vera'--", "$1", "$2", "?", ":vera", "@p1", "NULL", "null", "0", "00", "0.0", "-0", "1e0", "true", "\\0", "%00", "ВЕРА", "вера", "ß", "ss", "🙂",
}

// Whatever owners and departments are called, SQL finds those of which Check says yes, and
// none that only resemble them.
func TestFilterOfNamesThatAlmostMatch(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.ExecContext(t.Context(), `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, owner TEXT, unit TEXT)`)
		require.NoError(t, err)
		var rows []hostRow
		for i, name := range almostNames {
			for j, row := range []hostRow{{owner: &name}, {unit: &name}, {owner: &name, unit: &name}} {
				row.tenant, row.id = "acme", fmt.Sprintf("%d.%d", i, j)
				rows = append(rows, row)
				_, err := db.ExecContext(t.Context(), `INSERT INTO contacts (tenant, id, owner, unit) VALUES ($1, $2, $3, $4)`, row.tenant, row.id, row.owner, row.unit)
				require.NoError(t, err)
			}
		}
		agrees := func(e *Engine, id string, most int) {
			f, err := e.Filter(t.Context(), person(id), crmguard.List, "contacts")
			require.NoError(t, err)
			where, args, err := f.SQL(Columns{Tenant: "c.tenant", Owner: "c.owner", Unit: "c.unit"}, 2)
			require.NoError(t, err)
			var want []string
			for _, row := range rows {
				if e.Check(t.Context(), person(id), crmguard.List, row.resource("contacts")) == nil {
					want = append(want, row.id)
				}
			}
			slices.Sort(want)
			require.NotEmpty(t, want)
			require.LessOrEqual(t, len(want), most)
			require.Equal(t, want, chosen(t.Context(), t, db, args, where), "%q", id)
		}
		owners := 0
		for _, name := range almostNames {
			org := &StaticOrg{}
			org.Set("acme", Units{Members: map[string][]string{"vera": {name}}})
			agrees(engineFromCSV(t, "p, u:vera, acme, contacts, list, dept, allow", org), "vera", 4) // and her own
			set, err := lint([]row{{"", "p", []string{"u:" + name, "acme", "contacts", "list", "own", "allow"}}})
			if err != nil {
				continue // no policy can name this person
			}
			agrees(engineOf(t, set.all(), nil), name, 2)
			owners++
		}
		require.Greater(t, owners, 20)
		wrong := `SELECT c.id FROM contacts c WHERE lower(c.owner) = lower($1)`
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM (`+wrong+`) AS x`, "vera").Scan(&n))
		require.Greater(t, n, 2, "planted fault: a comparison that is not by bytes finds more")
	})
}

// A count is the number of rows for which Check says yes, and pages are these rows in their
// order, each once, whether one goes on by number or from the last one seen.
func TestCountsAndPagesAgreeWithCheck(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		rnd := rand.New(rand.NewPCG(21, 22)) //nolint:gosec // the same run every time
		rows, shared := hostTables(t, db, rnd)
		long := 0
		for range 12 {
			e := engineOf(t, randomPolicy(rnd, 180, 0, 12), randomOrg(rnd, map[string]Units{}))
			for _, id := range somePersons[:4] {
				s := crmguard.Subject{Tenant: pick(rnd, someTenants), ID: id, Kind: crmguard.KindEmployee}
				want := []string{}
				for _, row := range rows {
					r := row.resource("contacts")
					r.Shared = shared(row.id, id)
					if e.Check(t.Context(), s, crmguard.View, r) == nil {
						want = append(want, row.id)
					}
				}
				slices.Sort(want)
				if len(want) > 3*pageOfTest {
					long++
				}
				f, err := e.Filter(t.Context(), s, crmguard.View, "contacts")
				require.NoError(t, err)
				for _, ask := range []selecting{whole, Filter.Union} {
					n, byNumber, byCursor := pages(t, db, f, ask)
					require.Equal(t, len(want), n)
					require.Equal(t, want, byNumber)
					require.Equal(t, want, byCursor)
				}
			}
		}
		require.Greater(t, long, 5)
	})
}

const pageOfTest = 7

// pages reads all that a filter allows: how many there are, page after page, and from the last
// one seen.
func pages(t *testing.T, db *sql.DB, f Filter, ask selecting) (n int, byNumber, byCursor []string) {
	t.Helper()
	wheres, args, err := ask(f, contactColumns, 2)
	require.NoError(t, err)
	read := func(offset int, after string) (ids []string) {
		parts := slices.Clone(wheres)
		for i, where := range parts {
			parts[i] = fmt.Sprintf(`SELECT * FROM (SELECT c.id FROM contacts c WHERE c.id > $1 AND %s ORDER BY c.id LIMIT %d) AS page`, where, offset+pageOfTest)
		}
		query := fmt.Sprintf(`%s ORDER BY id LIMIT %d OFFSET %d`, strings.Join(parts, " UNION "), pageOfTest, offset)
		rows, err := db.QueryContext(t.Context(), query, slices.Concat([]any{after}, args)...)
		require.NoError(t, err)
		defer rows.Close() //nolint:errcheck // Err tells
		for rows.Next() {
			var id string
			require.NoError(t, rows.Scan(&id))
			ids = append(ids, id)
		}
		require.NoError(t, rows.Err())
		return ids
	}
	byNumber, byCursor = []string{}, []string{}
	for page := read(0, ""); len(page) > 0; page = read(len(byNumber), "") {
		byNumber = append(byNumber, page...)
	}
	for page := read(0, ""); len(page) > 0; page = read(0, byCursor[len(byCursor)-1]) {
		byCursor = append(byCursor, page...)
	}
	parts := slices.Clone(wheres)
	for i, where := range parts {
		parts[i] = `SELECT c.id FROM contacts c WHERE $1 = '' AND ` + where
	}
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM (`+strings.Join(parts, " UNION ")+`) AS u`, slices.Concat([]any{""}, args)...).Scan(&n))
	return n, byNumber, byCursor
}
