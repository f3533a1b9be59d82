package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/password"
)

// passwordOf binds a sealed hash to its account, so that a copied row gives nobody
// somebody else's password.
func passwordOf(login string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "account", Record: login, Field: "password"}
}

// hash returns an account's password hash, and how it is stored.
func (c *crm) hash(ctx context.Context, login string) (hash, sealed []byte, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT password FROM accounts WHERE login = $1`, login).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, signin.ErrNoAccount
	}
	if err != nil {
		return nil, nil, err
	}
	hash, err = c.keys.Open(ctx, passwordOf(login), sealed)
	return hash, sealed, err
}

// Account implements signin.Accounts.
func (c *crm) Account(ctx context.Context, login string) (signin.Account, error) {
	hash, _, err := c.hash(ctx, login)
	if err != nil {
		return signin.Account{}, err
	}
	return signin.Account{Tenant: tenant, ID: login, Kind: crmguard.KindEmployee, PasswordHash: string(hash)}, nil
}

// SetPasswordHash implements signin.Accounts: it replaces the hash that the door has
// compared, and no newer one.
func (c *crm) SetPasswordHash(ctx context.Context, a signin.Account, hash string) error {
	old, stored, err := c.hash(ctx, a.ID)
	if err != nil || string(old) != a.PasswordHash {
		return err
	}
	sealed, err := c.keys.Seal(ctx, passwordOf(a.ID), []byte(hash))
	if err != nil {
		return err
	}
	_, err = c.db.ExecContext(ctx, `UPDATE accounts SET password = $1 WHERE login = $2 AND password = $3`, sealed, a.ID, stored)
	return err
}

// hire lets somebody in who was not here before. The role is in policy.csv.
func (c *crm) hire(ctx context.Context, login, plain string) error {
	ctx = crmguard.System(ctx, tenant, "hire")
	if err := password.Strong(plain, login); err != nil {
		return err
	}
	hash, err := c.passwords.Hash(ctx, plain)
	if err != nil {
		return err
	}
	sealed, err := c.keys.Seal(ctx, passwordOf(login), []byte(hash))
	if err != nil {
		return err
	}
	if _, err := c.db.ExecContext(ctx, `INSERT INTO accounts (login, password) VALUES ($1, $2)`, login, sealed); err != nil {
		return fmt.Errorf("the login is taken: %w", err)
	}
	if err := c.sessions.OpenPerson(ctx, tenant, login); err != nil {
		return err
	}
	who, _ := crmguard.SubjectFrom(ctx)
	return c.journal.Record(ctx, crmguard.Event{
		Time: time.Now(), Subject: who, Action: crmguard.Grant, Outcome: crmguard.Done,
		Resource: crmguard.Resource{Tenant: tenant, Kind: "staff", ID: login},
	})
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

// confirm takes a fresh code for acts that want one. The session goes on under a new
// token.
func (c *crm) confirm(w http.ResponseWriter, r *http.Request) {
	token, err := c.door.StepUp(r.Context(), c.guard.SessionToken(r), r.PostFormValue("code"), guard.RequestID(r.Context()))
	if err != nil {
		c.guard.WriteError(w, r, err)
		return
	}
	c.guard.SetSession(w, token)
}

func (c *crm) signOut(w http.ResponseWriter, r *http.Request) {
	if err := c.door.SignOut(r.Context(), c.guard.SessionToken(r), guard.RequestID(r.Context())); err != nil {
		c.guard.WriteError(w, r, err)
		return
	}
	c.guard.ClearSession(w)
}

// ownFactors are the second factors of whoever asks.
func ownFactors(r *http.Request) (crmguard.Resource, error) {
	s, _ := crmguard.SubjectFrom(r.Context())
	return crmguard.Resource{Tenant: tenant, Kind: "factors", Owner: s.ID}, nil
}

// enrol answers with a new app's secret. Who has an app already needs a code of it, or
// a stolen session would get an app of its own.
func (c *crm) enrol(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, _ := crmguard.SubjectFrom(ctx)
	has, err := c.factors.Has(ctx, tenant, s.ID)
	if err != nil {
		return err
	}
	if has && s.Assurance < crmguard.AssuranceSecondFactor {
		return &crmguard.Denial{By: "crm", Code: "app-first", Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor}
	}
	enrolment, err := c.factors.Enrol(ctx, tenant, s.ID, s.ID)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(map[string]string{"id": enrolment.ID, "uri": enrolment.URI()})
}

func (c *crm) confirmApp(_ http.ResponseWriter, r *http.Request) error {
	s, _ := crmguard.SubjectFrom(r.Context())
	return c.factors.Confirm(r.Context(), tenant, s.ID, r.PathValue("id"), r.PostFormValue("code"))
}

// personOf finds the person that the path names.
func (c *crm) personOf(r *http.Request) (crmguard.Resource, error) {
	resource := crmguard.Resource{Tenant: tenant, Kind: "staff", ID: r.PathValue("login")}
	_, _, err := c.hash(r.Context(), resource.ID)
	if errors.Is(err, signin.ErrNoAccount) {
		err = guard.ErrNotFound
	}
	return resource, err
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
