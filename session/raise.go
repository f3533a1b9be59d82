package session

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
)

// Raise notes that the person of a session has just proved assurance, which the
// caller has checked, and returns the session's new token. The old one is worth
// nothing from here on, so that whoever had stolen it is left behind; of many that
// raise one token, one gets a new one. Id, lifetime and all else stay.
//
// A token that is not good is the *[crmguard.Denial] of [Manager.Authenticate].
// Proof of less than the session has is an error, and changes nothing: a session
// is not lowered.
func (m *Manager) Raise(ctx context.Context, token string, assurance crmguard.Assurance) (string, error) {
	if _, err := assurance.MarshalText(); err != nil || assurance == crmguard.AssuranceNone {
		return "", fmt.Errorf("session: raise: %v proves nothing", assurance)
	}
	for range changeTries {
		t, r, now, err := m.alive(ctx, token)
		if err != nil {
			return "", err
		}
		if assurance < r.Assurance {
			return "", fmt.Errorf("session: raise: the session has %v already, which is more than %v", r.Assurance, assurance)
		}
		next, raised := r, t.renewed()
		next.Used, next.Assurance, next.AuthenticatedAt = now, assurance, now
		if next.Verifier, err = m.keys.MAC(ctx, next.place(), m.encode(&next, raised.digest())); err != nil {
			return "", fmt.Errorf("session: make a verifier: %w", err)
		}
		swapped, err := m.store.Swap(ctx, r.ID, r.Verifier, &next)
		if err != nil {
			return "", wrap("raise", err)
		}
		if swapped {
			return raised.text(), nil
		}
		// The row is another one: the session was raised or has ended, or another
		// request has noted its use, which is no reason to fail.
	}
	return "", wrap("raise", errBusy)
}
