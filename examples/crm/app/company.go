package app

import (
	"context"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/password"
	"github.com/crmguard/crmguard/rbac"
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

// people are the accounts and departments. It is the sign-in's Accounts.
type people struct {
	db      *store
	keys    crmguard.Sealer
	allDemo bool // whether demo accounts can sign in: only where nobody else can reach the program
	org     rbac.StaticOrg
	names   atomic.Pointer[map[string]string] // of departments
}

// unitName returns what a department is called.
func (p *people) unitName(id string) string {
	if name, ok := (*p.names.Load())[id]; ok {
		return name
	}
	return id
}

// passwordPlace binds a sealed hash to its account, so that a copied row gives
// nobody somebody else's password.
func passwordPlace(id string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "account", Record: id, Field: "password"}
}

// Account finds an account by its login.
func (p *people) Account(ctx context.Context, login string) (signin.Account, error) {
	var sealed []byte
	var kind crmguard.SubjectKind
	var demo bool
	err := p.db.QueryRowContext(ctx, `SELECT kind, demo, password FROM accounts WHERE id = $1`, login).Scan(&kind, &demo, &sealed)
	if errors.Is(err, sql.ErrNoRows) || err == nil && demo && !p.allDemo {
		return signin.Account{}, signin.ErrNoAccount
	}
	if err != nil {
		return signin.Account{}, fmt.Errorf("read the account: %w", err)
	}
	account := signin.Account{Tenant: tenant, ID: login, Kind: kind}
	if sealed == nil {
		return account, nil
	}
	hash, err := p.keys.Open(ctx, passwordPlace(login), sealed)
	if err != nil {
		return signin.Account{}, fmt.Errorf("open the password hash of %s: %w", login, err)
	}
	account.PasswordHash = string(hash)
	return account, nil
}

// SetPasswordHash replaces the hash of an account.
func (p *people) SetPasswordHash(ctx context.Context, a signin.Account, hash string) error {
	sealed, err := p.keys.Seal(ctx, passwordPlace(a.ID), []byte(hash))
	if err != nil {
		return fmt.Errorf("seal the password hash: %w", err)
	}
	_, err = p.db.ExecContext(ctx, `UPDATE accounts SET password = $1 WHERE id = $2`, sealed, a.ID)
	return err
}

// add stores an account. One with the same login is left as it is.
func (p *people) add(ctx context.Context, a account, hash string, now time.Time) (added bool, err error) {
	var sealed []byte
	if hash != "" {
		if sealed, err = p.keys.Seal(ctx, passwordPlace(a.ID), []byte(hash)); err != nil {
			return false, fmt.Errorf("seal the password hash: %w", err)
		}
	}
	result, err := p.db.ExecContext(ctx, `INSERT INTO accounts (id, kind, title, unit, head, demo, password, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
		a.ID, a.Kind, a.Title, a.Unit, a.Head, a.Demo, sealed, micros(now))
	if err != nil {
		return false, fmt.Errorf("add the account %s: %w", a.ID, err)
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// accounts lists everybody: the company's own first.
func (p *people) accounts(ctx context.Context) ([]account, error) {
	rows, err := p.db.QueryContext(ctx, `SELECT id, kind, title, unit, head, demo FROM accounts ORDER BY demo, created_at, rowid`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var all []account
	for rows.Next() {
		var a account
		if err := rows.Scan(&a.ID, &a.Kind, &a.Title, &a.Unit, &a.Head, &a.Demo); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

func (p *people) units(ctx context.Context) ([]unit, error) {
	rows, err := p.db.QueryContext(ctx, `SELECT id, name, COALESCE(parent, '') FROM units ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var all []unit
	for rows.Next() {
		var u unit
		if err := rows.Scan(&u.id, &u.name, &u.parent); err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// refresh tells the rights who belongs where.
func (p *people) refresh(ctx context.Context) error {
	units, err := p.units(ctx)
	if err != nil {
		return err
	}
	accounts, err := p.accounts(ctx)
	if err != nil {
		return err
	}
	tree := rbac.Units{Parent: map[string]string{}, Members: map[string][]string{}}
	names := make(map[string]string, len(units))
	for _, u := range units {
		tree.Parent[u.id], names[u.id] = u.parent, u.name
	}
	p.names.Store(&names)
	for _, a := range accounts {
		tree.Members[a.ID] = []string{a.Unit}
	}
	p.org.Set(tenant, tree)
	return nil
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

// NewAccount is what `crm account add` asks for.
type NewAccount struct {
	Login, Role, Unit, Title string
	Password                 string // empty: one is made
}

var loginShape = regexp.MustCompile(`^[a-z][a-z0-9._-]{1,31}$`)

// AddAccount creates an account of the company's own, which works wherever the
// CRM is served, and returns its password. It is for whoever holds the keys
// folder: see [Serve].
func (a *App) AddAccount(ctx context.Context, n NewAccount) (secret string, err error) {
	if !loginShape.MatchString(n.Login) {
		return "", errors.New("a login is 2 to 32 lower-case letters, digits, dots, _ and -, and starts with a letter")
	}
	roles := policyRoles()
	if !slices.Contains(roles, n.Role) {
		return "", fmt.Errorf("there is no role %q; the roles are %s", n.Role, strings.Join(roles, ", "))
	}
	if n.Role == "integration" {
		return "", errors.New("programs do not sign in with passwords")
	}
	units, err := a.people.units(ctx)
	if err != nil {
		return "", err
	}
	if n.Unit == "" {
		n.Unit = "office"
	}
	if !slices.ContainsFunc(units, func(u unit) bool { return u.id == n.Unit }) {
		return "", fmt.Errorf("there is no department %q", n.Unit)
	}
	if n.Password == "" {
		secret := make([]byte, 10)
		_, _ = rand.Read(secret) // never fails
		n.Password = readable(secret)
	} else if err := password.Strong(n.Password, n.Login); err != nil {
		return "", err
	}
	if n.Title == "" {
		n.Title = strings.ToUpper(n.Role[:1]) + n.Role[1:]
	}
	hash, err := a.passwords.Hash(ctx, n.Password)
	if err != nil {
		return "", err
	}
	ctx = crmguard.System(ctx, tenant, "account")
	person := account{ID: n.Login, Kind: employee, Title: n.Title, Unit: n.Unit, Head: n.Role == "head", role: n.Role}
	e := systemEvent(ctx, crmguard.Grant, crmguard.Resource{Tenant: tenant, Kind: "staff", ID: n.Login, Unit: n.Unit}, a.now())
	e.Outcome, e.Reason = crmguard.Attempted, "role:"+n.Role
	if err := a.journal.Record(ctx, e); err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	e.Outcome = crmguard.Done
	added, err := a.people.add(ctx, person, hash, a.now())
	if err == nil && !added {
		err = fmt.Errorf("the login %q is taken", n.Login)
	}
	if err == nil {
		err = a.hire(ctx, person, hash)
	}
	if err != nil {
		e.Outcome = crmguard.Failed
	}
	if recordErr := a.journal.Record(ctx, e); recordErr != nil {
		return "", errors.Join(err, fmt.Errorf("journal: %w", recordErr))
	}
	if err != nil {
		return "", err
	}
	return n.Password, nil
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
