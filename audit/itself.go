package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// What the log says about itself stands in the journal of a tenant of its own, and what it
// keeps sealed for itself is under the keys of that tenant.

// ownPrefix begins the tenant whose journal holds what the log says about itself.
const ownPrefix = "audit:"

// ownTenant is one that no caller can name.
func ownTenant(log [16]byte) string { return ownPrefix + hex.EncodeToString(log[:]) }

// itself returns a context in which the log acts for itself: whoever has it verified, or
// opened it, is of another tenant.
func (l *Log) itself(ctx context.Context) context.Context {
	return crmguard.System(ctx, ownTenant(l.id), "audit")
}

// keysWork tells what somebody changed, so that it does not open, from what does not open
// because its keys cannot be had: of those the probe may be under an older one, which is in memory.
func (l *Log) keysWork(ctx context.Context, at crmguard.Place, opening error) error {
	if ctx.Err() != nil || errors.Is(opening, crmguard.ErrUnavailable) {
		return opening
	}
	at.Field = "probe"
	sealed, err := l.keys.Seal(ctx, at, []byte(at.Field))
	if err == nil {
		_, err = l.keys.Open(ctx, at, sealed)
	}
	return err
}

var errChanged = errors.New("audit: sealed by somebody else, or changed")

// openOwn opens what the log keeps sealed for itself. The error is errChanged if somebody
// changed it; any other one says that the keys cannot be had.
func (l *Log) openOwn(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	ctx = l.itself(ctx)
	plain, err := l.keys.Open(ctx, at, sealed)
	if err == nil {
		return plain, nil
	}
	if err = l.keysWork(ctx, tailPlace(l.id), err); err == nil {
		if plain, err = l.keys.Open(ctx, at, sealed); err == nil { // they work again since
			return plain, nil
		}
		if ctx.Err() == nil && !errors.Is(err, crmguard.ErrUnavailable) {
			return nil, fmt.Errorf("%w: %w", errChanged, err)
		}
	}
	return nil, fmt.Errorf("audit: the keys of the log itself: %w", err)
}

// own makes an entry of the log about itself.
func (c *committer) own(e crmguard.Event) *item {
	tenant, now := ownTenant(c.id), c.clock()
	if e.ID == "" {
		e.ID = newID(now)
	}
	e.Subject = crmguard.Subject{Tenant: tenant, ID: "audit", Kind: crmguard.KindSystem}
	e.Resource = crmguard.Resource{Tenant: tenant, Kind: "journal", ID: hex.EncodeToString(c.id[:])}
	e.Outcome, e.Time = crmguard.Done, stored(now)
	own := &content{tenant: tenant, event: e}
	body := own.fit() // before its keys: it may cut
	return newItem(own, body)
}
