package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/crmguard/crmguard"
)

// The app of a demo account is kept by the CRM itself, because nobody has a phone
// for it: `crm code LOGIN` shows what the phone would show. People of the
// company's own have their secret on their phone, and the CRM shows it once.

// period is how long an app shows a code.
const period = 30 * time.Second

// demoPlace binds a sealed secret to its account.
func demoPlace(login string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "account", Record: login, Field: "demo-app"}
}

// giveDemoApp gives an account an app, and returns what is stored of it with the
// account. It uses up the code before the current one, so that the first sign-in
// need not wait.
func (a *App) giveDemoApp(ctx context.Context, login string) (sealed []byte, err error) {
	enrolment, err := a.factors.Enrol(ctx, tenant, login, login)
	if err != nil {
		return nil, err
	}
	for range 2 { // again, if the code has just become too old
		var code string
		if code, err = totp.GenerateCode(enrolment.Secret(), a.now().Add(-period)); err != nil {
			return nil, err
		}
		if err = a.factors.Confirm(ctx, tenant, login, enrolment.ID, code); err == nil {
			return a.vault.keys.Seal(ctx, demoPlace(login), []byte(enrolment.ID+" "+enrolment.Secret()))
		}
	}
	return nil, err
}

// DemoCode returns a code that a demo account can sign in with now, as a person
// would read it from a phone: the current one, or the next if that was used. When
// both were, it says for how long it waits, and waits.
func (a *App) DemoCode(ctx context.Context, login string, waits func(time.Duration)) (code string, err error) {
	if !a.cfg.Loopback {
		return "", errors.New("demo accounts are closed while other machines can reach the CRM")
	}
	app, secret, err := a.demoApp(ctx, login)
	if err != nil {
		return "", err
	}
	for told := false; ; {
		used, err := a.lastUse(ctx, login, app)
		if err != nil {
			return "", err
		}
		now := a.now()
		at := now
		if next := used.Add(period); next.After(now) {
			at = next
		}
		early := at.Truncate(period).Add(-period) // when the code is accepted first
		wait := early.Sub(now)
		switch {
		case wait <= 0:
			return totp.GenerateCode(secret, at)
		case wait > 2*period:
			return "", fmt.Errorf("the clock shows %s, but a code of %s was used: set the clock right", now.Format(time.DateTime), used.Local().Format(time.DateTime))
		case !told && waits != nil:
			waits(wait)
			told = true
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(min(wait, time.Second)): // not all of it at once: somebody may set the clock
		}
	}
}

// demoApp returns the id and the secret of a demo account's app.
func (a *App) demoApp(ctx context.Context, login string) (id, secret string, err error) {
	var demo bool
	var sealed []byte
	err = a.db.QueryRowContext(ctx, `SELECT demo, demo_app FROM accounts WHERE id = $1`, login).Scan(&demo, &sealed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", "", fmt.Errorf("there is no account %q", login)
	case err != nil:
		return "", "", fmt.Errorf("read the account: %w", err)
	case !demo:
		return "", "", a.ownApp(ctx, login)
	case sealed == nil:
		return "", "", fmt.Errorf("%s is a program, and does not sign in with codes", login)
	}
	text, err := a.vault.keys.Open(ctx, demoPlace(login), sealed)
	if err != nil {
		return "", "", fmt.Errorf("open the demo app of %s: %w", login, err)
	}
	id, secret, _ = strings.Cut(string(text), " ")
	return id, secret, nil
}

// ownApp says why there is no code of somebody who is not a demo account.
func (a *App) ownApp(ctx context.Context, login string) error {
	has, err := a.factors.Has(ctx, tenant, login)
	if err != nil {
		return err
	}
	if !has {
		return fmt.Errorf("%s has no app yet: until one is added on the page /me, the password alone is asked for", login)
	}
	return fmt.Errorf("%s has an app of their own: its codes are on their phone only", login)
}

// lastUse tells when the last code of an app was used.
func (a *App) lastUse(ctx context.Context, login, id string) (time.Time, error) {
	status, err := a.factors.Status(ctx, tenant, login)
	if err != nil {
		return time.Time{}, err
	}
	for _, app := range status.Apps {
		if app.ID == id {
			return app.Used, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s has no demo app any more: it was removed, or the person was dismissed", login)
}
