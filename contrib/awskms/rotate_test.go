package awskms_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/contrib/awskms"
	"github.com/crmguard/crmguard/encrypt"
)

func open(t *testing.T, client *kms.Client, days int32) *awskms.KEK {
	t.Helper()
	kek, err := awskms.New(client, alias, &awskms.Options{DeletionDays: days})
	require.NoError(t, err)
	return kek
}

func seal(t *testing.T, kek *awskms.KEK) []byte {
	t.Helper()
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	return ciphertext
}

func opens(t *testing.T, kek *awskms.KEK, ciphertext []byte) error {
	t.Helper()
	plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	if err == nil {
		require.Equal(t, "secret", string(plaintext))
	}
	return err
}

// keyOf: the server's ciphertexts begin with the key's id.
func keyOf(ciphertext []byte) string { return string(ciphertext[:36]) }

func TestRotate(t *testing.T) {
	s, client := newServer(t)
	kek, other := open(t, client, 7), open(t, client, 0)
	old := seal(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	now := seal(t, kek)
	require.NotEqual(t, keyOf(old), keyOf(now))
	require.Equal(t, keyOf(now), keyOf(seal(t, other)), "other processes follow")
	for _, k := range []*awskms.KEK{kek, other, open(t, client, 0)} {
		require.NoError(t, opens(t, k, old))
		require.NoError(t, opens(t, k, now))
	}
	require.Equal(t, map[string]string{
		"alias/crm-kek": keyOf(now), "alias/crm-kek/1": keyOf(old), "alias/crm-kek/2": keyOf(now),
		"alias/crm-kek-other/1": s.aliases["alias/crm-kek-other/1"],
	}, s.aliases)
	created := s.keys[keyOf(now)]
	require.Equal(t, "the policy", created.Policy)
	require.Equal(t, "keys of the CRM", created.Description)
	require.Equal(t, append(tagged("alias/crm-kek"), map[string]string{"TagKey": "team", "TagValue": "crm"}), created.Tags, "without AWS's own")

	require.NoError(t, kek.Rotate(t.Context()))
	gone, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().AddDate(0, 0, 7), gone, time.Minute)
	require.Error(t, opens(t, kek, old))
	require.Error(t, opens(t, kek, now))
	require.NoError(t, opens(t, kek, seal(t, kek)))
	require.Equal(t, 2, s.count("ScheduleKeyDeletion"))

	again, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.Equal(t, gone, again)
	require.Equal(t, 2, s.count("ScheduleKeyDeletion"))

	for _, key := range []string{keyOf(old), keyOf(now)} { // the days are over
		delete(s.keys, key)
	}
	gone, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), gone, time.Minute)
}

func TestForeignKeysAreRefused(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	seal(t, kek)
	foreign, err := awskms.NewFixed(client, prefix+"key/"+s.aliases["alias/crm-kek-other/1"])
	require.NoError(t, err)
	ciphertext, err := foreign.EncryptWithContext(t.Context(), []byte("planted"), []byte("ad"))
	require.NoError(t, err)
	plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	require.Nil(t, plaintext)

	for _, name := range []string{"alias/crm-kek/", "alias/crm-kek/0", "alias/crm-kek/01", "alias/crm-kek/x", "alias/crm-kek/-1", "alias/crm-kek1"} {
		s.set(func() { s.aliases[name] = s.aliases["alias/crm-kek-other/1"] })
	}
	_, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)

	// A number of the chain makes nobody else's key the KEK's, nor does another alias's tag.
	key := s.keys[s.aliases["alias/crm-kek-other/1"]]
	s.set(func() { s.aliases["alias/crm-kek/9"] = key.ID })
	for _, tags := range [][]map[string]string{nil, tagged("alias/crm-kek-other"), tagged("alias/crm-kek/9"), tagged(""), {{"TagKey": "crm-kek", "TagValue": "alias/crm-kek"}}} {
		s.set(func() { key.Tags = tags })
		plaintext, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
		require.Nil(t, plaintext)
	}
	s.set(func() { s.deny = "ListResourceTags" })
	_, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.Error(t, err)
	require.NotErrorIs(t, err, encrypt.ErrWrongKEK, "what the tags are is not known")
	s.set(func() { s.deny = "" })

	// Planted fault: with number and tag the foreign key would be the KEK's.
	s.set(func() { key.Tags = tagged("alias/crm-kek") })
	_, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.NoError(t, err)
}

// Whoever may make aliases cannot have somebody else's key deleted.
func TestPlantedAliasDeletesNothing(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	old := seal(t, kek)
	foreign := s.keys[s.aliases["alias/crm-kek-other/1"]]
	s.set(func() { s.aliases["alias/crm-kek/9"] = foreign.ID })
	require.NoError(t, kek.Rotate(t.Context()), "rotations go on")
	require.NotEmpty(t, s.aliases["alias/crm-kek/10"])
	require.NoError(t, opens(t, open(t, client, 0), old))
	_, err := kek.DestroyOld(t.Context())
	require.ErrorContains(t, err, "not the tag crmguard-kek=alias/crm-kek: nothing was deleted")
	require.Zero(t, s.count("ScheduleKeyDeletion"))
	require.Equal(t, "Enabled", foreign.State)

	s.set(func() { delete(s.aliases, "alias/crm-kek/9") })
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, s.count("ScheduleKeyDeletion"))
	require.Equal(t, "Enabled", foreign.State)
	require.Error(t, opens(t, kek, old))
}

// A key that lost its tag is neither forgotten by DestroyOld nor used.
func TestKeysWithoutTag(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	old := seal(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	first := s.keys[keyOf(old)]
	s.set(func() { first.Tags = nil })
	_, err := kek.DestroyOld(t.Context())
	require.ErrorContains(t, err, first.ID)
	require.ErrorIs(t, opens(t, open(t, client, 0), old), encrypt.ErrWrongKEK)
	s.set(func() { first.Tags = tagged("alias/crm-kek") })
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)

	// Behind the alias itself a key needs the tag as well.
	s.set(func() { s.aliases["alias/crm-kek"] = s.newKey("p", "d", nil).ID })
	_, err = kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	made := s.count("CreateKey") + s.count("CreateAlias")
	require.ErrorIs(t, kek.Rotate(t.Context()), encrypt.ErrWrongKEK)
	require.Equal(t, made, s.count("CreateKey")+s.count("CreateAlias"))
}

// A second number moves a key nowhere in the chain.
func TestSecondNumber(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	old := seal(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { s.aliases["alias/crm-kek/7"] = keyOf(old) })
	fresh := open(t, client, 0)
	require.NoError(t, opens(t, fresh, old))
	require.NotEqual(t, keyOf(old), keyOf(seal(t, fresh)))
}

// KMS's nodes learn of a new key one after another.
func TestSlowNodes(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	old := seal(t, kek)
	s.set(func() {
		s.before["CreateAlias"] = func() { s.set(func() { s.unseen = 2; delete(s.before, "CreateAlias") }) }
		s.before["UpdateAlias"] = func() { s.set(func() { s.lag = 3 }) }
	})
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { s.lag = 1 })
	now := seal(t, kek)
	require.NotEqual(t, keyOf(old), keyOf(now), "a node that lags behind is not believed")
	require.Zero(t, s.lag)

	// Another process learns of the new key from what was encrypted with it.
	other := open(t, client, 0)
	s.set(func() { s.lag = 2 })
	require.Equal(t, keyOf(old), keyOf(seal(t, other)))
	require.NoError(t, opens(t, other, now))
	require.Equal(t, keyOf(now), keyOf(seal(t, other)))
	require.Zero(t, s.lag)
	_, err := other.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated, "it has used both")
}

func TestRotateTogether(t *testing.T) {
	s, client := newServer(t)
	keks := []*awskms.KEK{open(t, client, 0), open(t, client, 0)}
	var sealed [][]byte
	for _, kek := range keks {
		sealed = append(sealed, seal(t, kek))
	}
	// Both have read the aliases before either creates a key.
	var both sync.WaitGroup
	both.Add(2)
	s.before["CreateKey"] = func() { both.Done(); both.Wait() }
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, kek := range keks {
		wg.Go(func() { errs[i] = kek.Rotate(t.Context()) })
	}
	wg.Wait()
	if errs[0] != nil {
		keks[0], keks[1], errs[0], errs[1] = keks[1], keks[0], errs[1], errs[0]
	}
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], encrypt.ErrKEKRotated)
	require.Equal(t, keyOf(seal(t, keks[0])), keyOf(seal(t, keks[1])))
	pending := 0
	for _, key := range s.keys {
		if key.State == "PendingDeletion" {
			pending++
		}
	}
	require.Equal(t, 1, pending, "the key that nobody needs goes")

	_, err := keks[1].DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated, "what it has encrypted is under a key that would go")
	require.NoError(t, opens(t, keks[1], sealed[1]))
	_, err = keks[0].DestroyOld(t.Context())
	require.NoError(t, err)
}

func TestDestroyOldNeedsToKnowWhatIsNew(t *testing.T) {
	_, client := newServer(t)
	_, err := open(t, client, 0).DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.ErrorContains(t, err, "nothing was encrypted or rotated here yet")

	kek := open(t, client, 0)
	seal(t, kek)
	gone, err := kek.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), gone, time.Minute, "nothing old is there")
}

func TestFailedRotation(t *testing.T) {
	for action, inVain := range map[string]int{
		"ListAliases": 0, "DescribeKey": 0, "GetKeyPolicy": 0, "ListResourceTags": 0, "CreateKey": 0, "CreateAlias": 0, "UpdateAlias": 0,
		"Decrypt": 1,
	} {
		t.Run(action, func(t *testing.T) {
			s, client := newServer(t)
			kek := open(t, client, 0)
			old := seal(t, kek)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var refused atomic.Int64
			s.set(func() {
				s.deny = action
				s.before[action] = func() {
					if refused.Add(1) == 2 {
						cancel() // whoever tries again gives up then
					}
				}
			})
			require.Error(t, kek.Rotate(ctx))
			require.Equal(t, inVain, s.count("ScheduleKeyDeletion"))
			s.set(func() {
				s.deny = ""
				delete(s.before, action)
			})
			require.Equal(t, keyOf(old), keyOf(seal(t, kek)))
			require.NoError(t, kek.Rotate(t.Context()), "the next one succeeds")
			require.NotEqual(t, keyOf(old), keyOf(seal(t, kek)))
			_, err := kek.DestroyOld(t.Context())
			require.NoError(t, err)
			require.Error(t, opens(t, kek, old))
		})
	}
}

// When the answer to UpdateAlias is lost, the key may be in use: it must stay.
func TestLostAnswer(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	old := seal(t, kek)
	s.set(func() { s.lostAnswer = "UpdateAlias" })
	require.Error(t, kek.Rotate(t.Context()))
	require.Zero(t, s.count("ScheduleKeyDeletion"))
	now := seal(t, kek)
	require.NotEqual(t, keyOf(old), keyOf(now))
	_, err := kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.NoError(t, opens(t, kek, old))
}

func TestKeysThatCannotBeCopied(t *testing.T) {
	for name, change := range map[string]func(*serverKey){
		"imported":     func(k *serverKey) { k.Origin = "EXTERNAL" },
		"multi-region": func(k *serverKey) { k.MultiRegion = true },
	} {
		s, client := newServer(t)
		s.set(func() { change(s.keys[s.aliases["alias/crm-kek"]]) })
		require.ErrorContains(t, open(t, client, 0).Rotate(t.Context()), "by hand", name)
		require.Zero(t, s.count("CreateKey"))
	}
}

// A key behind the alias that somebody has put there by hand is the next one.
func TestAliasMovedByHand(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	require.NoError(t, kek.Rotate(t.Context()))
	two := seal(t, kek)
	s.set(func() { s.aliases["alias/crm-kek"] = s.newKey("p", "d", tagged("alias/crm-kek")).ID })
	three := seal(t, kek)
	require.NotEqual(t, keyOf(two), keyOf(three))
	_, err := kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.NoError(t, kek.Rotate(t.Context()))
	require.NoError(t, opens(t, open(t, client, 0), three))
	require.Equal(t, keyOf(three), s.aliases["alias/crm-kek/3"])

	s.set(func() { delete(s.aliases, "alias/crm-kek") })
	_, err = open(t, client, 0).DecryptWithContext(t.Context(), three, []byte("ad"))
	require.ErrorContains(t, err, "alias/crm-kek is there")
}

func TestErrorsShowNoSecrets(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	s.set(func() { s.down = true })
	_, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("tenant"))
	require.Error(t, err)
	require.False(t, strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "tenant"))
}

// Receipts rest on the date: none is not "now".
func TestDeletionWithoutADate(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, 0)
	require.NoError(t, kek.Rotate(t.Context()))
	s.set(func() { s.undated = true })
	for range 2 { // now, and when it is scheduled already
		_, err := kek.DestroyOld(t.Context())
		require.ErrorContains(t, err, "does not say when")
	}
}

func TestSettleTime(t *testing.T) {
	s, client := newServer(t)
	kek, err := awskms.New(client, alias, &awskms.Options{SettleTime: time.Second})
	require.NoError(t, err)
	s.set(func() { s.lag = 1 << 30 })
	err = kek.Rotate(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "awskms: the alias does not answer with the new key yet")
	_, err = awskms.New(client, alias, &awskms.Options{SettleTime: -1})
	require.ErrorContains(t, err, "negative SettleTime")
}
