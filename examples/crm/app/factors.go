package app

import (
	"context"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
)

// issuer is the name of the CRM in people's authenticator apps.
const issuer = "crmguard example CRM"

// factorsKind is a person's own apps and recovery codes.
const factorsKind = "factors"

// freshSignIn is how long after signing in people may change their own factors.
const freshSignIn = 10 * time.Minute

// proofs are the acts for which a session alone is not enough.
var proofs = []mfa.Rule{
	{Action: crmguard.Reveal, Need: crmguard.AssuranceSecondFactor, MaxAge: 30 * time.Minute},
	{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Erase, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Revoke, Kind: "staff", Need: crmguard.AssuranceSecondFactor, MaxAge: 30 * time.Minute},
	{Action: crmguard.Revoke, Kind: "owners", Need: crmguard.AssuranceSecondFactor, MaxAge: 30 * time.Minute},
	{Action: crmguard.Grant, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: normsSetting, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: addressSetting, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: deputiesKind, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: rightsKind, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: keysKind, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	// By whatever means: see freshness.
	{Action: crmguard.Configure, Kind: factorsKind, Need: crmguard.AssuranceRecovered, MaxAge: freshSignIn},
}

func (a *App) openFactors(ctx context.Context) (*mfa.Factors, error) {
	rows, err := mfasql.New(ctx, a.db.DB, nil)
	if err != nil {
		return nil, err
	}
	return mfa.New(rows, a.vault.keys, issuer, &mfa.Options{Logger: a.log, Clock: a.cfg.Clock})
}

// freshness asks for proofs by rule. Besides, whoever has an app changes their
// factors only after a code of it, or after a recovery code: a session that began
// with the password alone, before there was an app, is not enough.
type freshness struct {
	rules   crmguard.Checker
	factors *mfa.Factors
}

// Check implements crmguard.Checker, for the guard.
func (f freshness) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := f.rules.Check(ctx, s, a, r); err != nil {
		return err
	}
	if a != crmguard.Configure || r.Kind != factorsKind {
		return nil
	}
	if s.Assurance == crmguard.AssuranceRecovered || s.Assurance >= crmguard.AssuranceSecondFactor {
		return nil
	}
	has, err := f.factors.Has(ctx, s.Tenant, s.ID)
	if err != nil || !has {
		return err
	}
	return &crmguard.Denial{By: "factors", Code: "step-up", Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor, MaxAge: freshSignIn}
}
