package signin_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard/signin"
)

// What comes with an attempt does not keep a right password out of the journal,
// which would let it be tested unseen.
func TestOddDevicesAndRequestsLeaveATrace(t *testing.T) {
	long := strings.Repeat("Mozilla/5.0 é ", 40)
	for name, tt := range map[string]struct{ text, kept string }{
		"long":      {long, long[:256]},
		"cut rune":  {strings.Repeat("é", 127) + "xé", strings.Repeat("é", 127) + "x"},
		"not UTF-8": {"\xff\xfephone", "\ufffdphone"},
		"NUL":       {"pho\x00ne", "pho\ufffdne"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			d := f.door(t)
			a := f.attempt("clara", "")
			a.Device, a.Request = tt.text, tt.text
			token, err := d.SignIn(t.Context(), a)
			require.NoError(t, err)
			require.Equal(t, tt.kept, f.live(t, token).Device)
			a.Password = "wrong"
			_, err = d.SignIn(t.Context(), a)
			requireRefused(t, err)
			require.Equal(t, []string{"done ", "denied password"}, f.reasons())
			for _, e := range f.journal.Events() {
				require.Equal(t, tt.kept, e.Request)
			}
		})
	}
	t.Run("zone", func(t *testing.T) {
		f := newFlat(t)
		a := f.attempt("clara", "")
		a.Addr = netip.MustParseAddr("fe80::1%" + strings.Repeat("z", 300))
		_, err := f.door(t).SignIn(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, netip.MustParseAddr("fe80::1"), f.journal.Events()[0].Subject.Addr)
	})
}

// Nor does the request's id end a session that is stepped up, or leave a sign-out
// unrecorded.
func TestOddRequestsOfSessionsLeaveATrace(t *testing.T) {
	f := newFlat(t)
	d := f.door(t)
	token := f.signedIn(t, d, "anna")
	long := "\x00\xff" + strings.Repeat("r", 300)
	token, err := d.StepUp(t.Context(), token, f.code(t, "anna"), long)
	require.NoError(t, err)
	require.NoError(t, d.SignOut(t.Context(), token, long))
	events := f.journal.Events()
	require.Len(t, events, 3)
	for _, e := range events[1:] {
		require.Equal(t, "\ufffd\ufffd"+strings.Repeat("r", 250), e.Request)
	}
}

// Whoever has the right password and is neither let in nor refused, because
// something is out of order, is in the journal all the same.
func TestRightPasswordsLeaveATrace(t *testing.T) {
	down := errors.New("down")
	for name, sabotage := range map[string]func(f *flat) *signin.Door{
		"addresses": func(f *flat) *signin.Door {
			f.options.Addresses = crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error { return down })
			return f.door(t)
		},
		"factors": func(f *flat) *signin.Door {
			f.options.Factors = failing{Factors: f.factors, has: down}
			return f.door(t)
		},
		"sessions": func(f *flat) *signin.Door {
			f.house.sessions.err = down
			return f.house.door(t)
		},
		"the new session": func(f *flat) *signin.Door {
			f.house.sessions.authErr = down
			return f.house.door(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			d := sabotage(f)
			_, err := d.SignIn(t.Context(), f.attempt("clara", ""))
			require.ErrorIs(t, err, down)
			require.Equal(t, []string{"undecided check-failed"}, f.reasons())
			e := f.journal.Events()[0]
			require.Equal(t, "clara", e.Subject.ID)
			require.Equal(t, home, e.Subject.Addr)
			a := f.attempt("clara", "")
			a.Password = "wrong"
			_, err = d.SignIn(t.Context(), a)
			requireRefused(t, err)
		})
	}
}

// keeping are accounts that keep the contract: a hash is replaced only where it
// still is the one that was compared.
type keeping struct{ *accounts }

func (k keeping) SetPasswordHash(_ context.Context, a signin.Account, hash string) error {
	for login, stored := range k.all {
		if stored.ID == a.ID && stored.PasswordHash == a.PasswordHash {
			stored.PasswordHash = hash
			k.all[login] = stored
		}
	}
	return nil
}

// changing are passwords during whose hashing somebody changes one.
type changing struct {
	*passwords
	change func()
}

func (c changing) Hash(context.Context, string) (string, error) {
	c.change()
	return "hash:renewed", nil
}

// The hash that is renewed is named, so that the old password does not come back
// over one that was set meanwhile.
func TestRehashUndoesNoPasswordChange(t *testing.T) {
	for meanwhile, want := range map[string]string{"": "hash:renewed", "hash:new": "hash:new"} {
		h := newHouse()
		h.passwords.rehash = true
		p := changing{h.passwords, func() {
			if anna := h.accounts.all["anna"]; meanwhile != "" {
				anna.PasswordHash = meanwhile
				h.accounts.all["anna"] = anna
			}
		}}
		d, err := signin.New(keeping{h.accounts}, p, h.sessions, h.journal, h.options)
		require.NoError(t, err)
		_, err = d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: "right", Addr: home})
		require.NoError(t, err)
		require.Equal(t, want, h.accounts.all["anna"].PasswordHash)
	}
}
