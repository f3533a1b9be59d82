package app

import (
	"context"
	"crypto/rand"
	"database/sql"
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
	if !loginShape.MatchString(login) { // PostgreSQL fails at some text, such as a NUL
		return signin.Account{}, signin.ErrNoAccount
	}
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
	hash, err := p.openHash(ctx, login, sealed)
	return signin.Account{Tenant: tenant, ID: login, Kind: kind, PasswordHash: hash}, err
}

// openHash returns the hash of a password, "" if there is none.
func (p *people) openHash(ctx context.Context, login string, sealed []byte) (string, error) {
	if sealed == nil {
		return "", nil
	}
	hash, err := p.keys.Open(ctx, passwordPlace(login), sealed)
	if err != nil {
		return "", fmt.Errorf("open the password hash of %s: %w", login, err)
	}
	return string(hash), nil
}

// SetPasswordHash replaces the hash that the door has compared, and no newer one.
// Sealed bytes are never the same twice, so that they tell whether it still is there.
func (p *people) SetPasswordHash(ctx context.Context, a signin.Account, hash string) error {
	var stored []byte
	err := p.db.QueryRowContext(ctx, `SELECT password FROM accounts WHERE id = $1`, a.ID).Scan(&stored)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the password hash: %w", err)
	}
	if old, err := p.openHash(ctx, a.ID, stored); err != nil || old != a.PasswordHash {
		return err
	}
	sealed, err := p.keys.Seal(ctx, passwordPlace(a.ID), []byte(hash))
	if err != nil {
		return fmt.Errorf("seal the password hash: %w", err)
	}
	_, err = p.db.ExecContext(ctx, `UPDATE accounts SET password = $1 WHERE id = $2 AND password = $3`, sealed, a.ID, stored)
	return err
}

// add stores an account. One with the same login is left as it is.
func (p *people) add(ctx context.Context, a account, hash string, demoApp []byte, now time.Time) (added bool, err error) {
	var sealed []byte
	if hash != "" {
		if sealed, err = p.keys.Seal(ctx, passwordPlace(a.ID), []byte(hash)); err != nil {
			return false, fmt.Errorf("seal the password hash: %w", err)
		}
	}
	result, err := p.db.ExecContext(ctx, `INSERT INTO accounts (id, kind, title, unit, head, demo, password, demo_app, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`,
		a.ID, int64(a.Kind), a.Title, a.Unit, a.Head, a.Demo, sealed, demoApp, micros(now))
	if err != nil {
		return false, fmt.Errorf("add the account %s: %w", a.ID, err)
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// accounts lists everybody: the company's own first.
func (p *people) accounts(ctx context.Context) ([]account, error) {
	rows, err := p.db.QueryContext(ctx, `SELECT id, kind, title, unit, head, demo FROM accounts ORDER BY demo, created_at, id`)
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
	tree := rbac.Units{Parent: map[string]string{}, Members: map[string][]string{}, Heads: map[string][]string{}}
	names := make(map[string]string, len(units))
	for _, u := range units {
		tree.Parent[u.id], names[u.id] = u.parent, u.name
	}
	p.names.Store(&names)
	for _, a := range accounts {
		tree.Members[a.ID] = []string{a.Unit}
		if a.Head {
			tree.Heads[a.ID] = []string{a.Unit}
		}
	}
	p.org.Set(tenant, tree)
	return nil
}

// NewAccount is what `crm account add` asks for.
type NewAccount struct {
	Login, Role, Unit, Title string
	Password                 string // empty: one is made
}

var loginShape = regexp.MustCompile(`^[a-z][a-z0-9._-]{1,31}$`)

// AddAccount creates an account of the company's own, which works wherever the
// CRM is served, and returns its password. It is for whoever holds the keys
// folder: see [App.Serve].
func (a *App) AddAccount(ctx context.Context, n NewAccount) (secret string, err error) {
	if !loginShape.MatchString(n.Login) {
		return "", errors.New("a login is 2 to 32 lower-case letters, digits, dots, _ and -, and starts with a letter")
	}
	if n.Role == integrationRole {
		return "", errors.New("programs do not sign in with passwords")
	}
	roles, err := a.staffRoles(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(roles, n.Role) {
		return "", fmt.Errorf("there is no role %q; the roles are %s", n.Role, strings.Join(roles, ", "))
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
	person := account{ID: n.Login, Kind: employee, Title: n.Title, Unit: n.Unit, Head: n.Role == "head", role: n.Role}
	if err := a.hire(crmguard.System(ctx, tenant, "account"), person, hash); errors.Is(err, errTaken) {
		return "", fmt.Errorf("the login %q is taken", n.Login)
	} else if err != nil {
		return "", err
	}
	return n.Password, nil
}
