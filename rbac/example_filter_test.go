package rbac_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// The newest fifty contacts of a person who has own ones and some that were shared.
func ExampleFilter_Union() {
	e, err := rbac.New(context.Background(), stringadapter.NewAdapter(policy+"p, role:seller, default, contacts, list, shared, allow\n"),
		&rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	filter, err := e.Filter(context.Background(), anna, crmguard.List, "contacts")
	if err != nil {
		panic(err)
	}
	conditions, args, err := filter.Union(rbac.Columns{
		Tenant: "contacts.tenant", Owner: "contacts.owner", ID: "contacts.id",
		Shares: &rbac.Shares{Table: "shares", Tenant: "tenant", Record: "record", Person: "person"},
	}, 1)
	if err != nil {
		panic(err)
	}
	for i, where := range conditions {
		conditions[i] = "SELECT * FROM (SELECT seq, id, name FROM contacts WHERE " + where + " ORDER BY seq DESC LIMIT 50) AS page\n"
	}
	fmt.Println(strings.ReplaceAll(strings.Join(conditions, "UNION ")+"ORDER BY seq DESC LIMIT 50", " contacts.id IN", "\n\tcontacts.id IN"))
	fmt.Println(args)
	// Output:
	// SELECT * FROM (SELECT seq, id, name FROM contacts WHERE (contacts.tenant = $1 AND contacts.owner = $2) ORDER BY seq DESC LIMIT 50) AS page
	// UNION SELECT * FROM (SELECT seq, id, name FROM contacts WHERE (contacts.tenant = $3 AND
	// 	contacts.id IN (SELECT crmguard_share.record FROM shares AS crmguard_share WHERE crmguard_share.tenant = $4 AND crmguard_share.person = $5)) ORDER BY seq DESC LIMIT 50) AS page
	// ORDER BY seq DESC LIMIT 50
	// [default anna default default anna]
}

var errNotFound = errors.New("not found")

// assign makes another person responsible for a contact of version v, if whoever acts may
// change it as it is and as it will be, and if nobody has changed it since it was read.
func assign(ctx context.Context, db *sql.DB, rights *rbac.Engine, id string, v int64, owner string) error {
	s, _ := crmguard.SubjectFrom(ctx)
	after := crmguard.Resource{Tenant: s.Tenant, Kind: "contacts", ID: id, Owner: owner}
	if err := rights.Check(ctx, s, crmguard.Update, after); err != nil {
		return err
	}
	before, err := rights.Filter(ctx, s, crmguard.Update, "contacts")
	if err != nil {
		return err
	}
	where, args, err := before.SQL(rbac.Columns{Tenant: "tenant", Owner: "owner"}, 4)
	if err != nil {
		return err
	}
	done, err := db.ExecContext(ctx, `UPDATE contacts SET owner = $1, version = version + 1 WHERE id = $2 AND version = $3 AND `+where,
		append([]any{owner, id, v}, args...)...)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return errors.Join(errNotFound, err) // changed meanwhile, or somebody else's, or no such contact
	}
	return nil
}

// A change carries the filter and the version of the row, and asks for the new owner, too.
func ExampleFilter_SQL_update() {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		panic(err)
	}
	defer db.Close() //nolint:errcheck // it goes with the process
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, tenant TEXT, owner TEXT, version INTEGER);
		INSERT INTO contacts VALUES ('17', 'default', 'anna', 1), ('18', 'default', 'boris', 1)`); err != nil {
		panic(err)
	}
	e, err := rbac.New(context.Background(), stringadapter.NewAdapter(`
p, role:seller, default, contacts, update, own, allow
p, role:director, default, contacts, update, all, allow
g, u:anna, role:seller, default
g, u:vera, role:director, default
`), &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	asAnna, asVera := crmguard.WithSubject(context.Background(), anna), crmguard.WithSubject(context.Background(), vera)
	fmt.Println("away from herself:", assign(asAnna, db, e, "17", 1, "boris"))
	fmt.Println("from boris to herself:", assign(asAnna, db, e, "18", 1, "anna"))
	fmt.Println("by the director:", assign(asVera, db, e, "17", 1, "boris"))
	fmt.Println("after that:", assign(asAnna, db, e, "17", 2, "anna"))
	// Output:
	// away from herself: crmguard: denied by rbac: no-rule
	// from boris to herself: not found
	// by the director: <nil>
	// after that: not found
}
