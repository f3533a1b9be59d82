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

// proofs are the acts for which a session alone is not enough.
var proofs = []mfa.Rule{
	{Action: crmguard.Reveal, Need: crmguard.AssuranceSecondFactor, MaxAge: 30 * time.Minute},
	{Action: crmguard.Export, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Grant, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: normsSetting, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
	{Action: crmguard.Configure, Kind: addressSetting, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
}

func (a *App) openFactors(ctx context.Context) (*mfa.Factors, error) {
	rows, err := mfasql.New(ctx, a.db.DB, nil)
	if err != nil {
		return nil, err
	}
	return mfa.New(rows, a.vault.keys, issuer, &mfa.Options{Logger: a.log, Clock: a.cfg.Clock})
}
