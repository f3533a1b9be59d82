package app

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// policyCSV is the policy of the first start.
//
//go:embed policy.csv
var policyCSV string

type unit struct{ id, name, parent string }

// The demo company: three departments, one of them with a department below it.
var demoUnits = []unit{
	{"office", "Office", ""},
	{"sales", "Sales", ""},
	{"sales-north", "Sales / North", "sales"},
	{"support", "Support", ""},
}

// account is a person, or a program, that can act in the CRM.
type account struct {
	ID    string
	Kind  crmguard.SubjectKind
	Title string
	Unit  string
	Head  bool
	Demo  bool
	role  string // of a demo account; roles are in the policy
}

const (
	employee    = crmguard.KindEmployee
	integration = crmguard.KindIntegration
)

var demoAccounts = []account{
	{"owner", employee, "Owner of the company", "office", false, true, "owner"},
	{"admin", employee, "Administrator", "office", false, true, "admin"},
	{"accountant", employee, "Accountant", "office", false, true, "accountant"},
	{"head", employee, "Head of Sales", "sales", true, true, "head"},
	{"head2", employee, "Head of Support", "support", true, true, "head"},
	{"seller1", employee, "Seller", "sales", false, true, "seller"},
	{"seller2", employee, "Seller", "sales", false, true, "seller"},
	{"seller3", employee, "Seller", "sales-north", false, true, "seller"},
	{"seller4", employee, "Seller", "sales-north", false, true, "seller"},
	{"seller5", employee, "Seller", "support", false, true, "seller"},
	{"integration", integration, "Form on the website", "sales", false, true, "integration"},
}

// founding creates the demo company. Each step may run again after a crash.
func (a *App) founding(ctx context.Context) error {
	for _, u := range demoUnits {
		if _, err := a.db.ExecContext(ctx, `INSERT INTO units (id, name, parent) VALUES ($1, $2, NULLIF($3, '')) ON CONFLICT (id) DO NOTHING`,
			u.id, u.name, u.parent); err != nil {
			return err
		}
	}
	demoPassword, err := a.DemoPassword(ctx)
	if err != nil {
		return err
	}
	for _, person := range demoAccounts {
		var hash string
		if person.Kind == employee {
			if hash, err = a.passwords.Hash(ctx, demoPassword); err != nil {
				return err
			}
		}
		if err := a.hire(ctx, person, hash); err != nil {
			return err
		}
	}
	return nil
}

// hire stores an account and lets it in, with its role.
func (a *App) hire(ctx context.Context, person account, hash string) error {
	if _, err := a.people.add(ctx, person, hash, a.now()); err != nil {
		return err
	}
	if err := a.people.refresh(ctx); err != nil {
		return err
	}
	if err := a.rights.GrantRole(ctx, tenant, person.ID, person.role); err != nil {
		return err
	}
	return a.sessions.OpenPerson(ctx, tenant, person.ID)
}

// DemoPassword is the password of all demo accounts of this installation. It
// follows from the keys and is stored nowhere, so that it can be printed at every
// start.
func (a *App) DemoPassword(ctx context.Context) (string, error) {
	mac, err := a.vault.keys.MAC(ctx, crmguard.Place{Tenant: tenant, Kind: "demo", Field: "password"}, []byte("demo password"))
	if err != nil {
		return "", fmt.Errorf("demo password: %w", err)
	}
	return readable(mac[len(mac)-10:]), nil
}

// readable writes 10 bytes as four groups of four letters and digits.
func readable(b []byte) string {
	text := strings.ToLower(base32.StdEncoding.EncodeToString(b))
	return strings.Join([]string{text[:4], text[4:8], text[8:12], text[12:16]}, "-")
}

// systemEvent is the start of an entry about what a job of the program did.
func systemEvent(ctx context.Context, action crmguard.Action, r crmguard.Resource, now time.Time) crmguard.Event {
	subject, _ := crmguard.SubjectFrom(ctx)
	return crmguard.Event{ID: rand.Text(), Time: now, Subject: subject, Action: action, Resource: r, Outcome: crmguard.Done}
}

// policyRows reads the policy of the first start.
func policyRows() [][]string {
	var rows [][]string
	for line := range strings.Lines(policyCSV) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		rows = append(rows, fields)
	}
	return rows
}

// policyRoles are the roles that the policy of the first start knows.
func policyRoles() []string {
	var roles []string
	for _, row := range policyRows() {
		if role, ok := strings.CutPrefix(row[1], "role:"); ok && !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	return roles
}

// DemoLogins lists the demo accounts that can sign in, with what each of them is.
func DemoLogins() [][2]string {
	var logins [][2]string
	for _, p := range demoAccounts {
		if p.Kind == employee {
			logins = append(logins, [2]string{p.ID, p.Title})
		}
	}
	return logins
}
