package doctest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// Person is a contact in the clear; ent knows only what is sealed.
type Person struct {
	ID          string `encrypt:",record"`
	Phone       string `encrypt:"phone"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
}

// PersonMutation is the part of ent's generated mutation that the hook needs.
type PersonMutation interface {
	ID() (id string, exists bool)
	PhoneSealed() (sealed []byte, exists bool)
}

// checkSealed refuses to store what does not open for the record that is written.
func checkSealed(ctx context.Context, keys *encrypt.Keyring, tenant string, m PersonMutation) error {
	sealed, changed := m.PhoneSealed()
	if !changed {
		return nil
	}
	id, known := m.ID()
	if !known {
		return errors.New("a sealed field is written one record at a time")
	}
	place := crmguard.Place{Tenant: tenant, Client: id, Kind: "contacts", Record: id, Field: "phone"}
	if _, err := keys.Open(ctx, place, sealed); err != nil {
		return fmt.Errorf("contact %s: %w", id, err)
	}
	return nil
}

type entMutation struct {
	id     string
	sealed []byte
}

func (m entMutation) ID() (string, bool)          { return m.id, m.id != "" }
func (m entMutation) PhoneSealed() ([]byte, bool) { return m.sealed, m.sealed != nil }

func TestEntGuide(t *testing.T) {
	ctx := crmguard.System(t.Context(), "default", "test")
	keys := guideKeys(t, nil)
	people, err := encrypt.NewTable[Person](keys, "contacts", nil)
	require.NoError(t, err)
	row := &Person{ID: "17", Phone: "+79161234567"}
	_, err = people.Seal(ctx, "default", row)
	require.NoError(t, err)

	require.NoError(t, checkSealed(ctx, keys, "default", entMutation{"17", row.PhoneSealed}))
	require.NoError(t, checkSealed(ctx, keys, "default", entMutation{"17", nil}), "another field")
	require.ErrorIs(t, checkSealed(ctx, keys, "default", entMutation{"17", []byte(row.Phone)}), encrypt.ErrMalformed)
	require.ErrorIs(t, checkSealed(ctx, keys, "default", entMutation{"18", row.PhoneSealed}), encrypt.ErrNoKey)
	require.Error(t, checkSealed(ctx, keys, "default", entMutation{"", row.PhoneSealed}))

	read := &Person{ID: "17", PhoneSealed: row.PhoneSealed}
	require.NoError(t, people.Open(ctx, "default", read))
	require.Equal(t, row.Phone, read.Phone)
}
