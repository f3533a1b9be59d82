package rbac_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"

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
	fmt.Println(strings.ReplaceAll(strings.Join(conditions, "UNION ")+"ORDER BY seq DESC LIMIT 50", " EXISTS", "\n\tEXISTS"))
	fmt.Println(args)
	// Output:
	// SELECT * FROM (SELECT seq, id, name FROM contacts WHERE (contacts.tenant = $1 AND contacts.owner = $2) ORDER BY seq DESC LIMIT 50) AS page
	// UNION SELECT * FROM (SELECT seq, id, name FROM contacts WHERE (contacts.tenant = $3 AND
	// 	EXISTS (SELECT 1 FROM shares AS crmguard_share WHERE crmguard_share.tenant = $4 AND crmguard_share.person = $5 AND crmguard_share.record = contacts.id)) ORDER BY seq DESC LIMIT 50) AS page
	// ORDER BY seq DESC LIMIT 50
	// [default anna default default anna]
}
