package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
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
	mux.HandleFunc("POST /sign-out", c.signOut)
	mux.HandleFunc("POST /confirm", c.confirm)
	mux.Handle("POST /me/app", g.ProtectAct(crmguard.Configure, ownFactors, c.enrol))
	mux.Handle("POST /me/app/{id}/confirm", g.ProtectAct(crmguard.Configure, ownFactors, c.confirmApp))
	mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, c.contactOf, c.show))
	mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, c.phoneOf, c.reveal))
	mux.Handle("POST /staff/{login}/dismiss", g.ProtectAct(crmguard.Revoke, c.personOf, c.dismiss))
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
