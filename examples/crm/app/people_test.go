package app

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// duringSeal are keys that something happens beside while they seal.
type duringSeal struct {
	crmguard.Sealer
	do func()
}

func (s *duringSeal) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	if do := s.do; do != nil {
		s.do = nil
		do()
	}
	return s.Sealer.Seal(ctx, at, plaintext)
}

// Renewing a hash, which a sign-in does with the old password, brings that password
// back over no new one, whenever it was set.
func TestRenewingAHashUndoesNoPasswordChange(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		ctx, p := crmguard.System(t.Context(), tenant, "test"), in.app.people
		_, err := in.app.AddAccount(ctx, NewAccount{Login: "anna", Role: "seller"})
		require.NoError(t, err)
		hash := func() string {
			a, err := p.Account(ctx, "anna")
			require.NoError(t, err)
			return a.PasswordHash
		}
		compared, err := p.Account(ctx, "anna")
		require.NoError(t, err)
		require.NoError(t, p.SetPasswordHash(ctx, compared, "the same, renewed"))
		require.Equal(t, "the same, renewed", hash())

		require.NoError(t, p.SetPasswordHash(ctx, compared, "the old one"), "which is no error")
		require.Equal(t, "the same, renewed", hash())

		compared, err = p.Account(ctx, "anna")
		require.NoError(t, err)
		keys := p.keys
		p.keys = &duringSeal{keys, func() { // after it was looked at and before it is written
			require.NoError(t, p.SetPasswordHash(ctx, compared, "a new one"))
		}}
		defer func() { p.keys = keys }()
		require.NoError(t, p.SetPasswordHash(ctx, compared, "the old one"))
		require.Equal(t, "a new one", hash())

		compared.ID = "nobody"
		require.NoError(t, p.SetPasswordHash(ctx, compared, "x"))
	})
}
