package app

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base32"
	"errors"
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

// founding creates the demo company. Each step may run again after a crash, and
// lets in nobody who has an account already.
func (a *App) founding(ctx context.Context) error {
	if err := a.sessions.Reopen(ctx, tenant); err != nil { // without a state the company counts as locked down
		return err
	}
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
	// They share one password, so that one hash, and its salt, tells nothing more.
	shared, err := a.passwords.Hash(ctx, demoPassword)
	if err != nil {
		return err
	}
	for _, person := range demoAccounts {
		hash := ""
		if person.Kind == employee {
			hash = shared
		}
		// Somebody who was closed is not let in again, whatever became of the account.
		state, err := a.sessions.State(ctx, tenant, person.ID)
		if err != nil {
			return err
		}
		if state.Closed && state.Epoch != 0 {
			continue
		}
		if err := a.hire(ctx, person, hash); err != nil && !errors.Is(err, errTaken) {
			return fmt.Errorf("account %s: %w", person.ID, err)
		}
	}
	return nil
}

// errTaken says that there is an account with that login.
var errTaken = errors.New("the login is taken")

// hire lets somebody in who has no account yet, with their role, and records it.
// The account comes last: whatever fails before, the login is not taken and can be
// hired again.
func (a *App) hire(ctx context.Context, person account, hash string) error {
	a.staffing.Lock()
	defer a.staffing.Unlock()
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(accounts, func(p account) bool { return p.ID == person.ID }) {
		return errTaken
	}
	e := systemEvent(ctx, crmguard.Grant, crmguard.Resource{Tenant: tenant, Kind: "staff", ID: person.ID, Unit: person.Unit}, a.now())
	e.Reason = "role:" + person.role
	return a.announced(ctx, e, func() error { return a.letIn(ctx, person, hash) })
}

// announced is an act of a job of the program: its entry comes before it, and its
// outcome after it.
func (a *App) announced(ctx context.Context, e crmguard.Event, act func() error) error {
	e.Outcome = crmguard.Attempted
	if err := a.recorder.Record(ctx, e); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	e.Outcome = crmguard.Done
	err := act()
	if err != nil {
		e.Outcome = crmguard.Failed
	}
	if recordErr := a.recorder.Record(ctx, e); recordErr != nil {
		return errors.Join(err, fmt.Errorf("journal: %w", recordErr))
	}
	return err
}

func (a *App) letIn(ctx context.Context, person account, hash string) error {
	// An attempt that failed may have left another role, or an app that nobody has.
	for _, left := range []crmguard.Revoker{a.rights, a.factors} {
		if _, err := left.Revoke(ctx, tenant, person.ID); err != nil {
			return err
		}
	}
	if err := a.rights.GrantRole(ctx, tenant, person.ID, person.role); err != nil {
		return err
	}
	if err := a.sessions.OpenPerson(ctx, tenant, person.ID); err != nil {
		return err
	}
	var demoApp []byte
	if person.Demo && person.Kind == employee {
		var err error
		if demoApp, err = a.giveDemoApp(ctx, person.ID); err != nil {
			return fmt.Errorf("app: %w", err)
		}
	}
	if added, err := a.people.add(ctx, person, hash, demoApp, a.now()); err != nil {
		return err
	} else if !added {
		return errTaken
	}
	return a.people.refresh(ctx)
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
