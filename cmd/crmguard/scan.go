package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

var scan = command{
	name:  "scan",
	args:  "FILE|- -db DATABASE -store DATABASE -kek FILE [-passphrase PASSFILE] [-prefix P] [-json]",
	about: "find what lies unsealed, foreign or damaged in columns that should be sealed",
	help: `Reads all rows of the tables that FILE declares and says whether every column holds only
sealed values that open for their row, or NULL. It finds plaintext that was written
past the CRM's code, values that were moved, and damage. It changes nothing, prints no
value, and the CRM may run meanwhile. FILE is a JSON list, one object per table and tenant:

  [{"tenant": "acme", "kind": "contacts", "table": "contacts",
    "columns": {"tenant": "tenant", "record": "id", "client": "client_id"},
    "sealed": {"phone": "phone_sealed", "note": "note_sealed"},
    "legacy": {"phone": "phone"}}]

Kind and the names in front are those in the struct tags, the others are columns. Without
"tenant" under "columns" all rows belong to the tenant, without "client" each record is its own
client. "legacy" names columns that the fields were in before they were sealed. Rows of tenants
that FILE does not name, or of none, are not read: see that the numbers of rows are right. A
tenant with neither a key nor a row is refused, as its name may be mistyped.

PASSFILE holds the passphrase of a KEK file that was made with one, in a file that only you can
read; - asks on the terminal or reads it from a pipe.

` + databaseHelp + `
Exit codes: 0 all is sealed, 1 something is not, 2 not understood, 3 could not be found out.
`,
	do: scanTables,
}

// scanned is a table of one tenant in the declaration.
type scanned struct {
	Tenant  string `json:"tenant"`
	Kind    string `json:"kind"`
	Table   string `json:"table"`
	Columns struct {
		Tenant string `json:"tenant"`
		Record string `json:"record"`
		Client string `json:"client"`
	} `json:"columns"`
	Sealed map[string]string `json:"sealed"`
	Legacy map[string]string `json:"legacy"`
}

// scanResult is what was found in one.
type scanResult struct {
	Tenant     string        `json:"tenant"`
	Kind       string        `json:"kind"`
	OK         bool          `json:"ok"`
	Rows       int           `json:"rows"`
	Plaintext  int           `json:"plaintext"`
	Malformed  int           `json:"malformed"`
	Foreign    int           `json:"foreign"`
	Unreadable int           `json:"unreadable"`
	Erased     int           `json:"erased"` // left of erased clients; nobody can open them
	Findings   []scanFinding `json:"findings,omitempty"`
}

type scanFinding struct {
	Record string `json:"record"`
	Field  string `json:"field"`
	What   string `json:"what"`
}

func scanTables(c *call) int {
	name := c.flags.String("db", "", "`database` of the CRM")
	f := c.keyFlags()
	asJSON := c.flags.Bool("json", false, "print JSON")
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	switch {
	case *name == "" || f.store == "" || f.kek == "":
		return c.misused("-db, -store and -kek are needed")
	case rest[0] == "-" && f.passphrase == "-":
		return c.misused("FILE and PASSFILE cannot both be -")
	}
	tables, err := c.readDeclaration(rest[0])
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	db, err := openDatabase(c, *name)
	if err != nil {
		return c.fail(unable, "the database cannot be opened: %v", err)
	}
	defer db.Close() //nolint:errcheck // nothing was written
	keys, err := c.openKeys(f, false)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	shown := &shownRows{out: c.err, told: time.Now()}
	if !isTerminal(c.err) {
		shown.out = nil
	}
	rows := make([]*encryptsql.Rows, len(tables))
	for i, t := range tables {
		if rows[i], err = encryptsql.NewRows(c, db, t.layout()); err != nil {
			return c.fail(unable, "%v", err)
		}
	}
	if err := c.checkTenants(keys.store, tables, rows); err != nil {
		return c.fail(unable, "%v", err)
	}
	results := make([]scanResult, 0, len(tables))
	for i, t := range tables {
		ctx := crmguard.System(c, t.Tenant, "scan")
		report, err := keys.Scan(ctx, t.Tenant, t.Kind, slices.Sorted(maps.Keys(t.Sealed)), rows[i], &encrypt.JobOptions{Progress: shown.progress})
		shown.end()
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		results = append(results, t.result(&report))
	}
	return c.tellScan(results, *asJSON)
}

// checkTenants refuses tenants of whom nothing is there, neither a key nor a row: of a name that
// was mistyped a scan would say that all is sealed.
func (c *call) checkTenants(store encrypt.Store, tables []scanned, rows []*encryptsql.Rows) error {
	known := make(map[string]bool)
	for i, t := range tables {
		if known[t.Tenant] {
			continue
		}
		keysets, err := store.Load(c, []encrypt.Scope{{Tenant: t.Tenant, Purpose: encrypt.TenantKeyset}})
		if err != nil {
			return err
		}
		page, err := rows[i].Page(c, t.Tenant, "", 1)
		if err != nil {
			return err
		}
		known[t.Tenant] = len(keysets) > 0 || len(page) > 0
	}
	for _, t := range tables {
		if !known[t.Tenant] {
			return advised{fmt.Errorf("tenant %s has neither a key in the key store nor a row in the declared tables", plain(t.Tenant)),
				"See that FILE names it as the CRM does (crmguard keys list shows those that have keys); leave it out as long as nothing is stored for it"}
		}
	}
	return nil
}

func (c *call) tellScan(results []scanResult, asJSON bool) int {
	code := good
	for _, r := range results {
		if !r.OK {
			code = bad
		}
	}
	if asJSON {
		if err := printJSON(c.out, results); err != nil {
			return c.fail(unable, "%v", err)
		}
		return code
	}
	for _, r := range results {
		verdict := "all is sealed"
		if !r.OK {
			verdict = "NOT all is sealed"
		}
		fmt.Fprintf(c.out, "%s, %s: %s: %s; %d in plaintext, %d no sealed values, %d of other places or changed, %d unreadable; %d left of erased clients\n",
			plain(r.Tenant), plain(r.Kind), verdict, count(r.Rows, "row"), r.Plaintext, r.Malformed, r.Foreign, r.Unreadable, r.Erased)
		for _, f := range r.Findings {
			fmt.Fprintf(c.out, "  record %s, field %s: %s\n", plain(f.Record), plain(f.Field), plain(f.What))
		}
	}
	return code
}

var errDeclaration = errors.New("the declaration is not a list of tables as crmguard help scan shows it")

func (c *call) readDeclaration(name string) ([]scanned, error) {
	read := func() ([]byte, error) { return io.ReadAll(c.in) }
	if name != "-" {
		read = func() ([]byte, error) { return os.ReadFile(name) } //nolint:gosec // whoever calls names it
	}
	text, err := read()
	if err != nil {
		return nil, err
	}
	var tables []scanned
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&tables); err != nil {
		return nil, fmt.Errorf("%w: %w", errDeclaration, err)
	}
	if _, err := d.Token(); err != io.EOF { // what follows would not be scanned
		return nil, fmt.Errorf("%w: something follows it", errDeclaration)
	}
	for _, t := range tables {
		if t.Tenant == "" || t.Kind == "" || t.Table == "" || t.Columns.Record == "" || len(t.Sealed) == 0 {
			return nil, fmt.Errorf("%w: each has a tenant, a kind, a table, a column of records and columns of sealed values", errDeclaration)
		}
	}
	if len(tables) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errDeclaration)
	}
	return tables, nil
}

func (t *scanned) layout() encryptsql.Layout {
	return encryptsql.Layout{Table: t.Table, Tenant: t.Columns.Tenant, Record: t.Columns.Record, Client: t.Columns.Client, Sealed: t.Sealed, Legacy: t.Legacy}
}

func (t *scanned) result(r *encrypt.Report) scanResult {
	result := scanResult{Tenant: t.Tenant, Kind: t.Kind, OK: r.OK(), Rows: r.Rows, Plaintext: r.Plaintext, Malformed: r.Malformed,
		Foreign: r.Foreign, Unreadable: r.Unreadable, Erased: r.Erased}
	for _, f := range r.Findings {
		result.Findings = append(result.Findings, scanFinding{f.Record, f.Field, f.Err.Error()})
	}
	return result
}

// shownRows tells a terminal how far a scan has come.
type shownRows struct {
	out  io.Writer // nil: not a terminal
	told time.Time
}

func (s *shownRows) progress(_ context.Context, r encrypt.Report) error {
	if s.out != nil && time.Since(s.told) >= progressEvery {
		s.told = time.Now()
		fmt.Fprintf(s.out, "\r%s%d rows", clearLine, r.Rows)
	}
	return nil
}

func (s *shownRows) end() {
	if s.out != nil {
		fmt.Fprint(s.out, "\r"+clearLine)
	}
}
