package signin_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/guard/signin"
)

// One device in an office, a request a second with logins that it makes up, keeps
// nobody out who came in from there before.
func TestOneDeviceDoesNotKeepAnOfficeOut(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	anna := func(password string) string {
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: "anna", Password: password, Addr: home})
		if err == nil {
			return "in"
		}
		return code(t, err)
	}
	require.Equal(t, "in", anna("right"))
	for second := range 3600 {
		h.clock.Advance(time.Second)
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: fmt.Sprintf("x%d", second), Password: "x", Addr: home})
		require.Error(t, err)
		if second%10 == 5 {
			require.Equal(t, "in", anna("right"), "after %d s", second)
		}
	}
	for range 5 {
		require.Equal(t, "refused", anna("wrong"))
	}
	require.Equal(t, "paused", anna("right"), "her own login is guarded at home, too")
	_, err := d.SignIn(t.Context(), signin.Attempt{Login: "leaver", Password: "x", Addr: home})
	require.Equal(t, "paused", code(t, err), "who never came in there waits")
}

// comesInAfterARestart says whether Anna comes in, within three tries a minute
// apart, while somebody who knows her password has guessed codes from one network
// for so long, and the door remembers nobody's networks.
func comesInAfterARestart(t *testing.T, attack time.Duration, plant func(*signin.Door)) bool {
	f := newFlat(t)
	d := f.door(t)
	plant(d)
	guess := func(until time.Duration) {
		for range until / (2 * time.Second) {
			f.clock.Advance(2 * time.Second)
			a := f.attempt("anna", f.wrong(t))
			a.Addr = stranger
			_, err := d.SignIn(t.Context(), a)
			require.Error(t, err)
		}
	}
	guess(attack)
	for range 3 {
		if _, err := d.SignIn(t.Context(), f.attempt("anna", f.code(t, "anna"))); err == nil {
			return true
		}
		guess(time.Minute)
	}
	return false
}

func TestOneNetworkDoesNotKeepAPersonOutAfterARestart(t *testing.T) {
	for _, attack := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 3 * time.Hour} {
		require.True(t, comesInAfterARestart(t, attack, func(*signin.Door) {}), "%v", attack)
	}
	t.Run("planted fault", func(t *testing.T) {
		require.False(t, comesInAfterARestart(t, 3*time.Hour, (*signin.Door).CountCodesOfNoNetwork))
	})
}

// From many networks there are no more guesses than from one.
func TestNetworksOfStrangersDoNotAddUp(t *testing.T) {
	f := newFlat(t)
	counting := &countingFactors{Factors: f.factors}
	f.options.Factors = counting
	d := f.door(t)
	for second := range 3 * 3600 / 5 {
		f.clock.Advance(5 * time.Second)
		a := f.attempt("anna", f.wrong(t))
		a.Addr = netip.AddrFrom4([4]byte{10, byte(second >> 16), byte(second >> 8), byte(second)})
		_, err := d.SignIn(t.Context(), a)
		require.Error(t, err)
	}
	require.LessOrEqual(t, counting.tries, 3+12+3)
}
