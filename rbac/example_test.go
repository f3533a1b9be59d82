package rbac_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

const policy = `
p, role:seller, default, contacts, view, own, allow
p, role:seller, default, contacts, list, own, allow
p, role:seller, default, contacts#phone, read, own, allow
p, role:seller, default, contacts#phone, reveal, own, allow
p, role:head, default, contacts, view, tree, allow
p, role:head, default, contacts, list, tree, allow
g, u:anna, role:seller, default
g, u:vera, role:head, default
`

var (
	anna = crmguard.Subject{Tenant: crmguard.SingleTenant, ID: "anna", Kind: crmguard.KindEmployee}
	vera = crmguard.Subject{Tenant: crmguard.SingleTenant, ID: "vera", Kind: crmguard.KindEmployee}
)

// rights are what the examples decide by: Vera heads sales, Anna works in a part of it.
func rights() *rbac.Engine {
	departments := &rbac.StaticOrg{}
	departments.Set(crmguard.SingleTenant, rbac.Units{
		Parent:  map[string]string{"sales-north": "sales"},
		Members: map[string][]string{"anna": {"sales-north"}, "vera": {"sales"}},
	})
	e, err := rbac.New(context.Background(), stringadapter.NewAdapter(policy),
		&rbac.Options{Org: departments, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	return e
}

func ExampleEngine_Check() {
	card := crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "boris", Unit: "sales-north"}
	for _, s := range []crmguard.Subject{anna, vera} {
		err := rights().Check(context.Background(), s, crmguard.View, card)
		if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
			fmt.Println(s.ID, "may not:", denial.Code)
			continue
		}
		fmt.Println(s.ID, "may:", err == nil)
	}
	// Output:
	// anna may not: no-rule
	// vera may: true
}

func ExampleEngine_CheckAll() {
	cards := []crmguard.Resource{
		{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "anna"},
		{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "18", Owner: "boris"},
	}
	for i, err := range rights().CheckAll(context.Background(), anna, crmguard.View, cards) {
		fmt.Println(cards[i].ID, err == nil)
	}
	// Output:
	// 17 true
	// 18 false
}

func ExampleEngine_Fields() {
	card := crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "anna"}
	fields, err := rights().Fields(context.Background(), anna, card, "phone", "note")
	fmt.Printf("%+v %v\n", fields["phone"], err)
	fmt.Printf("%+v\n", fields["note"])
	// Output:
	// {Read:true Write:false Unmask:false} <nil>
	// {Read:false Write:false Unmask:false}
}

func ExampleFilter_SQL() {
	filter, err := rights().Filter(context.Background(), vera, crmguard.List, "contacts")
	if err != nil {
		panic(err)
	}
	where, args, err := filter.SQL(rbac.Columns{Tenant: "tenant", Owner: "owner", Unit: "department"}, 1)
	fmt.Println("SELECT id, name FROM contacts WHERE", where)
	fmt.Println(args, err)
	// Output:
	// SELECT id, name FROM contacts WHERE (tenant = $1 AND (owner = $2 OR department IN ($3, $4)))
	// [default vera sales sales-north] <nil>
}

// Rows of the table shares are what was shared with one person.
func ExampleFilter_SQL_shares() {
	e, err := rbac.New(context.Background(), stringadapter.NewAdapter(policy+"p, role:seller, default, contacts, list, shared, allow\n"),
		&rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	filter, err := e.Filter(context.Background(), anna, crmguard.List, "contacts")
	if err != nil {
		panic(err)
	}
	where, args, err := filter.SQL(rbac.Columns{
		Tenant: "contacts.tenant", Owner: "contacts.owner", ID: "contacts.id",
		Shares: &rbac.Shares{Table: "shares", Tenant: "tenant", Record: "record", Person: "person"},
	}, 1)
	fmt.Println(strings.ReplaceAll(where, " contacts.id IN", "\n\tcontacts.id IN"))
	fmt.Println(args, err)
	// Output:
	// (contacts.tenant = $1 AND (contacts.owner = $2 OR
	// 	contacts.id IN (SELECT crmguard_share.record FROM shares AS crmguard_share WHERE crmguard_share.tenant = $3 AND crmguard_share.person = $4)))
	// [default anna default anna] <nil>
}

func ExampleFromCSV() {
	dir, err := os.MkdirTemp("", "rbac")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "policy.csv")
	text := rbac.StarterPolicy() + "p, role:seller, default, contacts, export, mine, Allow\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		panic(err)
	}
	_, err = rbac.FromCSV(context.Background(), path, nil)
	if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
		for _, finding := range refused.Findings {
			where, _, _ := strings.Cut(finding.Where, ":")
			fmt.Println(where+":", finding.Reason)
		}
	}
	// Output:
	// policy.csv: unknown scope "mine"; want one of ["own" "dept" "tree" "headed" "shared" "all"]
	// policy.csv: effect "Allow" is neither "allow" nor "deny"; Casbin would ignore the row
}

func ExampleEngine_GrantRole() {
	e, err := rbac.New(context.Background(), stringadapter.NewAdapter(policy), &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	ctx := crmguard.WithSubject(context.Background(), anna)
	fmt.Println(e.GrantRole(ctx, crmguard.SingleTenant, "anna", "head"))
	fmt.Println(e.GrantRole(ctx, crmguard.SingleTenant, "boris", "head"))
	// Output:
	// crmguard: denied by rbac: self-grant
	// crmguard: denied by rbac: lacks-right
}

func ExampleEngine_Roles() {
	fmt.Println(rights().Roles(context.Background(), crmguard.SingleTenant))
	// Output:
	// [head seller] <nil>
}

func ExampleEngine_Resolve() {
	roles, units, err := rights().Resolve(context.Background(), crmguard.SingleTenant, "vera")
	fmt.Println(roles, units, err)
	// Output:
	// [head] [sales] <nil>
}

// A policy may be part of the program.
func ExampleFromPolicy() {
	rights, err := rbac.FromPolicy(context.Background(), rbac.Policy{
		Rules: []rbac.Rule{
			{Subject: "role:seller", Tenant: "default", Object: "contacts", Action: crmguard.View, Scope: rbac.Own},
			{Subject: "u:boris", Tenant: "default", Object: "contacts", Action: crmguard.View, Scope: rbac.All, Deny: true},
		},
		Links: []rbac.Link{{Subject: "u:anna", Role: "role:seller", Tenant: "default"}},
	}, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	card := crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "anna"}
	fmt.Println(rights.Check(context.Background(), anna, crmguard.View, card))
	// Output: <nil>
}

// A host that has a Casbin model of its own keeps it.
func ExampleWrap() {
	m, err := model.NewModelFromString(`[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = (r.sub.ID == r.obj.Owner || r.sub.ID == p.sub) && keyMatch(r.obj.Kind, p.obj) && r.act == p.act`)
	if err != nil {
		panic(err)
	}
	enforcer, err := casbin.NewEnforcer(m, stringadapter.NewAdapter("p, vera, contacts*, view"))
	if err != nil {
		panic(err)
	}
	rights, err := rbac.Wrap(enforcer, func(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) ([]any, error) {
		return []any{s, r, string(a)}, nil
	})
	if err != nil {
		panic(err)
	}
	card := crmguard.Resource{Tenant: crmguard.SingleTenant, Kind: "contacts", ID: "17", Owner: "boris"}
	fmt.Println(rights.Check(context.Background(), vera, crmguard.View, card))
	fmt.Println(rights.Check(context.Background(), anna, crmguard.View, card))
	err = rights.Change(func(e *casbin.Enforcer) error { // and so does a watcher's callback
		_, err := e.AddPolicy("anna", "contacts", "view")
		return err
	})
	fmt.Println(rights.Check(context.Background(), anna, crmguard.View, card), err)
	// Output:
	// <nil>
	// crmguard: denied by rbac: no-rule
	// <nil> <nil>
}

// A deputy has a role until the evening.
func ExampleEngine_GrantRoleUntil() {
	now := time.Date(2026, 7, 1, 9, 0, 0, 0, time.UTC)
	e, err := rbac.FromPolicy(context.Background(), rbac.Policy{
		Rules: []rbac.Rule{{Subject: "role:head", Tenant: "default", Object: "contacts", Action: crmguard.View, Scope: rbac.Tree}},
	}, &rbac.Options{Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return now }})
	if err != nil {
		panic(err)
	}
	ctx := crmguard.System(context.Background(), crmguard.SingleTenant, "deputies")
	fmt.Println(e.GrantRoleUntil(ctx, crmguard.SingleTenant, "boris", "head", now.Add(9*time.Hour)))
	fmt.Println(e.Resolve(ctx, crmguard.SingleTenant, "boris"))
	now = now.Add(9 * time.Hour)
	fmt.Println(e.Resolve(ctx, crmguard.SingleTenant, "boris"))
	// Output:
	// <nil>
	// [head] [] <nil>
	// [] [] <nil>
}
