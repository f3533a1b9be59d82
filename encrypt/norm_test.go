package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// norm remembers what it was asked and refuses once it is full.
type norm struct {
	asked [][]string
	full  bool
}

func (n *norm) OnOpen(_ context.Context, tenant string, clients []string) error {
	n.asked = append(n.asked, slices.Clone(clients))
	if n.full {
		return &crmguard.Denial{By: "quota", Code: "norm", Status: crmguard.Exhausted}
	}
	return nil
}

// checkCounted returns an error unless opening through a table and one field at a
// time asks the norm as agreed.
func checkCounted(k *encrypt.Keyring, n *norm) error {
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	if err != nil {
		return err
	}
	rows := page(3)
	if _, err := table.Seal(acting("acme"), "acme", rows...); err != nil {
		return err
	}
	field := crmguard.Place{Tenant: "acme", Client: "c01", Kind: "contacts", Record: "c01", Field: "phone"}
	steps := []struct {
		name string
		do   func(ctx context.Context) error
		acts [][]string // asked within one act
		none [][]string // asked without an act
	}{
		{"page", func(ctx context.Context) error { return table.Open(ctx, "acme", rows...) }, [][]string{{"c00", "c01", "c02"}}, [][]string{{"c00", "c01", "c02"}}},
		{"the same page", func(ctx context.Context) error { return table.Open(ctx, "acme", rows...) }, nil, [][]string{{"c00", "c01", "c02"}}},
		{"field", func(ctx context.Context) error { _, err := k.Open(ctx, field, rows[1].PhoneSealed); return err }, nil, [][]string{{"c01"}}},
	}
	act := acting("acme")
	none := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	for _, step := range steps {
		for _, run := range []struct {
			ctx  context.Context
			want [][]string
		}{{act, step.acts}, {none, step.none}} {
			n.asked = nil
			if err := step.do(run.ctx); err != nil {
				return err
			}
			if !slices.EqualFunc(n.asked, run.want, slices.Equal) {
				return fmt.Errorf("%s: asked for %v, want %v", step.name, n.asked, run.want)
			}
		}
	}
	return nil
}

func TestOpeningAsksTheNorm(t *testing.T) {
	n := &norm{}
	require.NoError(t, checkCounted(newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: n.OnOpen, Index: encrypt.NewMemoryIndex()}), n))
	require.Error(t, checkCounted(newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()}), n), "the check notices openings that ask nobody")
}

func TestARefusedOpeningShowsNothingAndIsNotRemembered(t *testing.T) {
	n := &norm{}
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: n.OnOpen, Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	rows := page(3)
	ctx := acting("acme")
	_, err = table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	field := crmguard.Place{Tenant: "acme", Client: "c01", Kind: "contacts", Record: "c01", Field: "phone"}

	n.full = true
	for range 2 {
		n.asked = nil
		err := table.Open(ctx, "acme", rows...)
		denial, ok := errors.AsType[*crmguard.Denial](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, crmguard.Exhausted, denial.Status)
		for _, row := range rows {
			require.Empty(t, row.Phone)
			require.Nil(t, row.Note)
		}
		plaintext, err := k.Open(ctx, field, rows[1].PhoneSealed)
		require.Error(t, err)
		require.Nil(t, plaintext)
		require.Len(t, n.asked, 2, "asked again each time")
	}
	n.full = false
	require.NoError(t, table.Open(ctx, "acme", rows...))
	require.Equal(t, "+7 912 345-67-89", rows[2].Phone)
}

// Places without a client, rows without values and clients that cannot be opened
// cost nothing.
func TestWhatDoesNotCount(t *testing.T) {
	n := &norm{}
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: n.OnOpen, Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	rows := page(3)
	_, err = table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	_, err = k.Erase(ctx, "acme", "c01")
	require.NoError(t, err)
	rows[2].PhoneSealed, rows[2].NoteSealed = nil, nil
	require.ErrorIs(t, table.Open(ctx, "acme", rows...), crmguard.ErrErased)
	require.Equal(t, [][]string{{"c00"}}, n.asked)

	at := crmguard.Place{Tenant: "acme", Kind: "sessions", Record: "s1"}
	sealed, err := k.Seal(ctx, at, []byte("x"))
	require.NoError(t, err)
	_, err = k.Open(context.Background(), at, sealed)
	require.NoError(t, err)
	require.Len(t, n.asked, 1)
}

// Whatever goes wrong, what stood in the plain fields before does not pass for what
// was opened.
func TestNothingStaleIsShown(t *testing.T) {
	n := &norm{full: true}
	store := &brokenStore{Store: encrypt.NewMemory()}
	options := &encrypt.Options{OnOpen: n.OnOpen, Index: encrypt.NewMemoryIndex()}
	table, err := encrypt.NewTable[contact](newKeyring(t, store, options), "contacts", nil)
	require.NoError(t, err)
	down := &brokenStore{Store: encrypt.NewMemory()}
	down.down.Store(true)
	dead, err := encrypt.NewTable[contact](newKeyring(t, down, options), "contacts", nil)
	require.NoError(t, err)
	for name, open := range map[string]func(rows []*contact) error{
		"no tenant":    func(rows []*contact) error { return table.Open(acting("acme"), "", rows...) },
		"foreign":      func(rows []*contact) error { return table.Open(acting("other"), "acme", rows...) },
		"nobody":       func(rows []*contact) error { return table.Open(context.Background(), "acme", rows...) },
		"norm is full": func(rows []*contact) error { return table.Open(acting("acme"), "acme", rows...) },
		"store down":   func(rows []*contact) error { return dead.Open(acting("acme"), "acme", rows...) },
	} {
		t.Run(name, func(t *testing.T) {
			rows := page(2)
			_, err := table.Seal(acting("acme"), "acme", rows...)
			require.NoError(t, err)
			require.Error(t, open(append(rows, nil)))
			for _, row := range rows {
				require.Empty(t, row.Phone)
				require.Nil(t, row.Note)
				require.NotNil(t, row.PhoneSealed)
			}
		})
	}
}

func TestRowErrorsCount(t *testing.T) {
	one := &encrypt.RowError{Row: 3, Record: "c3", Field: "phone", Err: encrypt.ErrForeign}
	require.Contains(t, encrypt.RowErrors{one}.Error(), "one row did not open")
	require.Contains(t, encrypt.RowErrors{one, one}.Error(), "2 rows did not open")
}
