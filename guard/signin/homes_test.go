package signin_test

import (
	"fmt"
	"net/netip"
	"sync"
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

// sprayed returns how many passwords are compared when one device guesses for an
// hour at 200 people who all came in from its network before.
func sprayed(t *testing.T, plant func(*signin.Door)) (compared int) {
	h := newHouse()
	d := h.door(t)
	plant(d)
	login := func(i int) string { return fmt.Sprintf("p%d", i) }
	at := func(i int, password string) error {
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: login(i), Password: password, Addr: home})
		return err
	}
	for i := range 201 {
		account := h.accounts.all["anna"]
		account.ID = login(i)
		h.accounts.all[account.ID] = account
		require.NoError(t, at(i, "right"))
	}
	for second := range 3600 {
		for i := range 200 {
			if second > 10 && second%60 != i%60 {
				continue
			}
			if code(t, at(i, "guess")) == "refused" {
				compared++
			}
		}
		if second%60 == 59 {
			require.NoError(t, at(200, "right"), "a colleague at whose login nobody guesses, after %d s", second)
		}
		h.clock.Advance(time.Second)
	}
	return compared
}

// One password at each of very many people is a guess like many at one.
func TestOneDeviceDoesNotGuessAtAnOffice(t *testing.T) {
	compared := sprayed(t, func(*signin.Door) {})
	t.Log("passwords compared in an hour:", compared)
	require.LessOrEqual(t, compared, 400)
	t.Run("planted fault", func(t *testing.T) {
		require.Greater(t, sprayed(t, (*signin.Door).CountNoOffices), 10_000)
	})
}

// Guesses at the same moment have no more room than one after the other.
func TestParallelGuessesAtAnOffice(t *testing.T) {
	h := newHouse()
	d := h.door(t)
	for i := range 50 {
		account := h.accounts.all["anna"]
		account.ID = fmt.Sprintf("p%d", i)
		h.accounts.all[account.ID] = account
		_, err := d.SignIn(t.Context(), signin.Attempt{Login: account.ID, Password: "right", Addr: home})
		require.NoError(t, err)
	}
	h.passwords.work.Store(0)
	var wg sync.WaitGroup
	for i := range 50 * 5 {
		wg.Go(func() {
			_, _ = d.SignIn(t.Context(), signin.Attempt{Login: fmt.Sprintf("p%d", i%50), Password: "guess", Addr: home})
		})
	}
	wg.Wait()
	require.LessOrEqual(t, h.passwords.work.Load(), int32(50+100))
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
