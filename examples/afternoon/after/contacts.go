package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/masking"
	"github.com/crmguard/crmguard/password"
)

// Contact is a client.
type Contact struct {
	ID          string `json:"id" encrypt:",record" mask:"-"`
	Owner       string `json:"owner" mask:"-"`
	Name        string `json:"name" mask:"name"`
	Phone       string `json:"phone" encrypt:"phone" mask:"phone"`
	PhoneSealed []byte `json:"-" encrypt:"phone,sealed"`
}

func (c *crm) routes() http.Handler {
	g, mux := c.guard, http.NewServeMux()
	mux.HandleFunc("POST /sign-in", c.signIn)
	mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, c.contactOf, c.show))
	mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, c.phoneOf, c.reveal))
	mux.Handle("POST /staff/{login}/dismiss", g.ProtectAct(crmguard.Revoke, personOf, c.dismiss))
	mux.Handle("POST /lockdown", g.ProtectAct(crmguard.Revoke, emergency, func(_ http.ResponseWriter, r *http.Request) error {
		return g.LockDown(r.Context(), tenant)
	}))
	mux.Handle("POST /reopen", g.ProtectAct(crmguard.Grant, emergency, func(_ http.ResponseWriter, r *http.Request) error {
		return g.Reopen(r.Context(), tenant)
	}))
	return http.NewCrossOriginProtection().Handler(g.Handler(mux))
}

// load reads a contact, still sealed.
func (c *crm) load(ctx context.Context, id string) (*Contact, error) {
	one := new(Contact)
	err := c.db.QueryRowContext(ctx, `SELECT id, owner, name, phone_sealed FROM contacts WHERE id = $1`, id).
		Scan(&one.ID, &one.Owner, &one.Name, &one.PhoneSealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, guard.ErrNotFound
	}
	return one, err
}

// contactOf says what a request is about, from the server's own data.
func (c *crm) contactOf(r *http.Request) (crmguard.Resource, error) {
	one, err := c.load(r.Context(), r.PathValue("id"))
	if err != nil {
		return crmguard.Resource{Tenant: tenant, Kind: "contacts"}, err
	}
	return crmguard.Resource{Tenant: tenant, Kind: "contacts", ID: one.ID, Owner: one.Owner}, nil
}

func (c *crm) phoneOf(r *http.Request) (crmguard.Resource, error) {
	resource, err := c.contactOf(r)
	resource.Field = "phone"
	return resource, err
}

// show answers with the contact as the person may see it.
func (c *crm) show(w http.ResponseWriter, r *http.Request) error {
	return c.answer(w, r, "")
}

// reveal answers with the phone in the clear.
func (c *crm) reveal(w http.ResponseWriter, r *http.Request) error {
	return c.answer(w, r, "phone")
}

func (c *crm) answer(w http.ResponseWriter, r *http.Request, revealed string) error {
	ctx := r.Context()
	one, err := c.load(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := c.contacts.Open(ctx, tenant, one); err != nil { // the norm is taken here
		return err
	}
	s, _ := crmguard.SubjectFrom(ctx)
	resource := crmguard.Resource{Tenant: tenant, Kind: "contacts", ID: one.ID, Owner: one.Owner}
	may, err := c.rights.Fields(ctx, s, resource, "name", "phone")
	if err != nil {
		return err
	}
	shown, err := masking.View(*one, func(field string) bool { return field == revealed || may[field].Unmask })
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(shown)
}

// Account implements signin.Accounts. The hash is sealed at the place of its
// account, so that a copied row gives nobody somebody else's password.
func (c *crm) Account(ctx context.Context, login string) (signin.Account, error) {
	var sealed []byte
	err := c.db.QueryRowContext(ctx, `SELECT password FROM accounts WHERE login = $1`, login).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return signin.Account{}, signin.ErrNoAccount
	}
	if err != nil {
		return signin.Account{}, err
	}
	hash, err := c.keys.Open(ctx, passwordOf(login), sealed)
	return signin.Account{Tenant: tenant, ID: login, Kind: crmguard.KindEmployee, PasswordHash: string(hash)}, err
}

// SetPasswordHash implements signin.Accounts.
func (c *crm) SetPasswordHash(ctx context.Context, a signin.Account, hash string) error {
	sealed, err := c.keys.Seal(ctx, passwordOf(a.ID), []byte(hash))
	if err != nil {
		return err
	}
	_, err = c.db.ExecContext(ctx, `INSERT INTO accounts (login, password) VALUES ($1, $2)
		ON CONFLICT (login) DO UPDATE SET password = excluded.password`, a.ID, sealed)
	return err
}

func passwordOf(login string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "account", Record: login, Field: "password"}
}

// install makes the table of accounts and opens the company: one without a state
// counts as locked down.
func (c *crm) install(ctx context.Context) error {
	if _, err := c.db.ExecContext(ctx, `CREATE TABLE accounts (login TEXT PRIMARY KEY, password BLOB)`); err != nil {
		return err
	}
	return c.sessions.Reopen(ctx, tenant)
}

// hire lets somebody in. A role is given by c.rights.GrantRole, or in policy.csv.
func (c *crm) hire(ctx context.Context, login, plain string) error {
	if err := password.Strong(plain, login); err != nil {
		return err
	}
	hash, err := c.passwords.Hash(ctx, plain)
	if err != nil {
		return err
	}
	if err := c.SetPasswordHash(ctx, signin.Account{ID: login}, hash); err != nil {
		return err
	}
	return c.sessions.OpenPerson(ctx, tenant, login)
}

func (c *crm) signIn(w http.ResponseWriter, r *http.Request) {
	addr, err := c.guard.Addr(r)
	if err != nil {
		c.guard.WriteError(w, r, err)
		return
	}
	token, err := c.door.SignIn(r.Context(), signin.Attempt{
		Login: r.PostFormValue("login"), Password: r.PostFormValue("password"), Code: r.PostFormValue("code"),
		Addr: addr, Request: guard.RequestID(r.Context()),
	})
	if err != nil {
		c.guard.WriteError(w, r, err)
		return
	}
	c.guard.SetSession(w, token)
}

func personOf(r *http.Request) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: tenant, Kind: "staff", ID: r.PathValue("login")}, nil
}

// dismiss ends all that a person has, and answers with what it was.
func (c *crm) dismiss(w http.ResponseWriter, r *http.Request) error {
	receipt, err := c.guard.Dismiss(r.Context(), tenant, r.PathValue("login"))
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(receipt)
}

func emergency(*http.Request) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: tenant, Kind: guard.LockdownKind}, nil
}
