package encrypttest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// KEKUnderTest is a KEK under test, with one key.
type KEKUnderTest struct {
	Open  func() encrypt.RotatingKEK // as one more process would open it
	Other func() encrypt.RotatingKEK // another KEK of the same kind
	Delay time.Duration              // between the destruction of old keys and their end
	KMS   *KMS                       // nil: the keys are on this machine
}

// KMS is the service behind a KEK, and what a test may do to it.
type KMS struct {
	Decrypts func() int                                // how many requests to decrypt there were
	Down     func(bool)                                // every request fails
	Hang     func(come func()) (ended <-chan struct{}) // requests call come and wait; ended tells that one was given up by its client
	Unbind   func()                                    // it ignores associated data from now on
}

// KEK runs all checks of the contract of encrypt.RotatingKEK. Each call of open returns
// a KEK of its own. It moves the clock of leases: nothing may run beside it.
func KEK(t *testing.T, open func(t *testing.T) KEKUnderTest) {
	duties := kekDuties
	if open(t).KMS != nil {
		duties = slices.Concat(duties, kmsDuties)
	}
	for _, duty := range duties {
		t.Run(duty.name, func(t *testing.T) { duty.check(t, open(t)) })
	}
}

type kekDuty struct {
	name  string
	check func(t require.TestingT, k KEKUnderTest)
}

var kekDuties = []kekDuty{
	{"1. what one process encrypts another decrypts", decryptsElsewhere},
	{"2. associated data is bound", binds},
	{"3. a changed ciphertext is refused without a word of what it held", refusesChanges},
	{"4. what another KEK encrypted is ErrWrongKEK", knowsItsOwn},
	{"5. many use it at once, while it rotates too", servesMany},
	{"6. after Rotate what older keys encrypted decrypts", keepsOlder},
	{"7. after Rotate the new key encrypts, in all processes", encryptsWithNewest},
	{"8. DestroyOld destroys all keys but the newest, and says when they are gone", destroysOlder},
	{"9. DestroyOld refuses after a rotation by somebody else", refusesToDestroy},
	{"10. after a Turn an old copy of the key store opens nothing", turns},
}

var kmsDuties = []kekDuty{
	{"11. a page of one tenant is one request", asksOnce},
	{"12. contexts reach the wire", heedsContexts},
	{"13. an outage is no wrong KEK, and is over when it is over", survivesOutages},
	{"14. a service that stops to bind associated data is noticed by 2", noticesUnbinding},
}

var ctx = context.Background()

func seal(t require.TestingT, kek tink.AEADWithContext) []byte {
	ciphertext, err := kek.EncryptWithContext(ctx, []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	return ciphertext
}

func opens(kek tink.AEADWithContext, ciphertext []byte) error {
	plaintext, err := kek.DecryptWithContext(ctx, ciphertext, []byte("ad"))
	if err == nil && string(plaintext) != "secret" {
		return errors.New("another plaintext came out")
	}
	return err
}

func decryptsElsewhere(t require.TestingT, k KEKUnderTest) {
	one, two := k.Open(), k.Open()
	for _, size := range []int{1, 32, 4096} {
		for _, ad := range [][]byte{nil, {}, []byte("ad"), bytes.Repeat([]byte("\x00\xff"), 100)} {
			plaintext := bytes.Repeat([]byte("\xff\x00x"), size)[:size]
			ciphertext, err := one.EncryptWithContext(ctx, plaintext, ad)
			require.NoError(t, err)
			got, err := two.DecryptWithContext(ctx, ciphertext, ad)
			require.NoError(t, err)
			require.Equal(t, plaintext, got)
		}
	}
	require.NotEqual(t, seal(t, one), seal(t, one), "equal plaintexts look alike")
}

func binds(t require.TestingT, k KEKUnderTest) {
	kek := k.Open()
	for _, pair := range [][2]string{{"a", "b"}, {"a", ""}, {"", "a"}, {"a", "aa"}} {
		ciphertext, err := kek.EncryptWithContext(ctx, []byte("secret"), []byte(pair[0]))
		require.NoError(t, err)
		plaintext, err := kek.DecryptWithContext(ctx, ciphertext, []byte(pair[1]))
		require.ErrorIs(t, err, encrypt.ErrWrongKEK, "%q opened what %q had sealed", pair[1], pair[0])
		require.Nil(t, plaintext)
	}
}

func refusesChanges(t require.TestingT, k KEKUnderTest) {
	kek := k.Open()
	ciphertext := seal(t, kek)
	flipped := bytes.Clone(ciphertext)
	flipped[len(flipped)-10] ^= 1 // all have their payload there
	for _, changed := range [][]byte{nil, ciphertext[:1], ciphertext[:len(ciphertext)-4], flipped, bytes.Repeat([]byte("x"), 100)} {
		plaintext, err := kek.DecryptWithContext(ctx, changed, []byte("ad"))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
		require.Nil(t, plaintext)
	}
}

func knowsItsOwn(t require.TestingT, k KEKUnderTest) {
	kek, other := k.Open(), k.Other()
	require.ErrorIs(t, opens(kek, seal(t, other)), encrypt.ErrWrongKEK)
	require.ErrorIs(t, opens(other, seal(t, kek)), encrypt.ErrWrongKEK)

	store, page := encrypt.NewMemory(), cells(1)
	withKeyring(t, kek, store, func(keys *encrypt.Keyring) { sealPage(t, keys, page) })
	withKeyring(t, other, store, func(wrong *encrypt.Keyring) {
		for _, err := range []error{wrong.Check(ctx), wrong.OpenAll(acting(tenant), tenant, page)} {
			require.ErrorIs(t, err, encrypt.ErrWrongKEK)
			require.ErrorIs(t, err, crmguard.ErrUnavailable)
		}
	})
}

func servesMany(t require.TestingT, k KEKUnderTest) {
	kek, other := k.Open(), k.Open()
	seal(t, kek)
	seal(t, other)
	var rotation error
	var rotating sync.WaitGroup
	rotating.Go(func() { rotation = kek.Rotate(ctx) })
	sealed := racetest.Run(t, func(n int) ([]byte, error) {
		user := []encrypt.RotatingKEK{kek, other}[n%2]
		ciphertext, err := user.EncryptWithContext(ctx, []byte("secret"), []byte("ad"))
		return ciphertext, errors.Join(err, opens(user, ciphertext))
	})
	rotating.Wait()
	require.NoError(t, rotation)
	for _, ciphertext := range sealed {
		require.NoError(t, opens(kek, ciphertext))
	}
}

func keepsOlder(t require.TestingT, k KEKUnderTest) {
	kek, other := k.Open(), k.Open()
	sealed := [][]byte{seal(t, kek), seal(t, other)}
	for range 2 {
		require.NoError(t, kek.Rotate(ctx))
		sealed = append(sealed, seal(t, kek), seal(t, other))
	}
	for _, process := range []encrypt.RotatingKEK{kek, other, k.Open()} {
		for _, ciphertext := range sealed {
			require.NoError(t, opens(process, ciphertext))
		}
	}
}

// Only the newest key outlives DestroyOld: whatever still opens then it has encrypted.
func encryptsWithNewest(t require.TestingT, k KEKUnderTest) {
	kek, other := k.Open(), k.Open()
	seal(t, other)
	for range 2 {
		require.NoError(t, kek.Rotate(ctx))
	}
	sealed := [][]byte{seal(t, kek), seal(t, other), seal(t, k.Open())}
	_, err := kek.DestroyOld(ctx)
	require.NoError(t, err)
	for _, process := range []encrypt.RotatingKEK{kek, other, k.Open()} {
		for _, ciphertext := range sealed {
			require.NoError(t, opens(process, ciphertext))
		}
	}
}

func destroysOlder(t require.TestingT, k KEKUnderTest) {
	kek, other := k.Open(), k.Open()
	destroy := func(delay time.Duration) {
		gone, err := kek.DestroyOld(ctx)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(delay), gone, time.Minute)
	}
	old := [][]byte{seal(t, kek), seal(t, other)}
	destroy(0) // there is no old one
	require.NoError(t, opens(kek, old[0]))
	require.NoError(t, kek.Rotate(ctx))
	old = append(old, seal(t, kek), seal(t, other))
	require.NoError(t, kek.Rotate(ctx))
	now := seal(t, kek)
	for range 2 { // the second call finds nothing to do
		destroy(k.Delay)
		for _, process := range []encrypt.RotatingKEK{kek, other, k.Open()} {
			for _, ciphertext := range old {
				require.Error(t, opens(process, ciphertext))
			}
			require.NoError(t, opens(process, now))
			require.NoError(t, opens(process, seal(t, process)))
		}
	}
}

func refusesToDestroy(t require.TestingT, k KEKUnderTest) {
	kek, other, idle := k.Open(), k.Open(), k.Open()
	sealed := [][]byte{seal(t, kek), seal(t, other)}
	refuses := func(process encrypt.RotatingKEK) {
		_, err := process.DestroyOld(ctx)
		require.ErrorIs(t, err, encrypt.ErrKEKRotated)
		for _, ciphertext := range sealed {
			require.NoError(t, opens(process, ciphertext))
		}
	}
	require.NoError(t, other.Rotate(ctx)) // since kek was opened
	sealed = append(sealed, seal(t, kek), seal(t, other))
	refuses(kek)
	refuses(kek) // the refusal taught it nothing
	refuses(idle)

	require.NoError(t, kek.Rotate(ctx))
	require.NoError(t, other.Rotate(ctx)) // since kek was rotated
	sealed = append(sealed, seal(t, kek), seal(t, other))
	refuses(kek)

	late := k.Open() // since then nobody has
	now := seal(t, late)
	_, err := late.DestroyOld(ctx)
	require.NoError(t, err)
	require.NoError(t, opens(late, now))
	require.Error(t, opens(late, sealed[0]))
}
