package encrypt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// checkPlanted returns an error if plaintext that somebody put into the CRM's database is
// accepted.
func checkPlanted(t *testing.T, store encrypt.Store) error {
	p := newPlainTable(t, 10, store, nil, nil)
	p.begin(t)
	stop := errors.New("enough")
	_, err := p.contacts.Migrate(job("acme"), "acme", p, &encrypt.JobOptions{Batch: 4, Progress: func(context.Context, encrypt.Report) error { return stop }})
	require.ErrorIs(t, err, stop) // the phones of the first four are sealed
	accepted := func(record string) bool {
		g, err := p.open(t, record)
		if err == nil {
			return g.Phone == "planted" || bytes.Contains(fmt.Append(nil, g), []byte("planted"))
		}
		require.ErrorIs(t, err, encrypt.ErrPlaintext)
		require.Empty(t, g.Phone)
		return false
	}
	plant := func(record string) {
		p.Put("acme", encrypt.Row{Record: record, Client: record, Sealed: map[string][]byte{"phone": nil}, Legacy: map[string][]byte{"phone": []byte("planted")}})
	}
	before := p.row(t, "c01")
	for _, record := range []string{"new", "c01"} {
		if plant(record); accepted(record) {
			return fmt.Errorf("%s: while the migration runs", record)
		}
	}
	scanned, err := p.contacts.Scan(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	if scanned.Plaintext != 2 {
		return fmt.Errorf("the scan found %d of 2", scanned.Plaintext)
	}
	p.Put("acme", before)
	if _, err := p.contacts.Migrate(job("acme"), "acme", p, nil); err != nil {
		return err
	}
	if got := p.row(t, "new"); got.Sealed["phone"] != nil {
		return errors.New("planted plaintext was sealed")
	}
	for _, record := range []string{"newer", "c01", "c09"} {
		if plant(record); accepted(record) {
			return fmt.Errorf("%s: when all are sealed", record)
		}
	}
	if _, err := p.contacts.Collect(job("acme"), "acme", p, nil); !errors.Is(err, encrypt.ErrCutOff) {
		return fmt.Errorf("planted plaintext could be collected: %w", err)
	}
	return nil
}

// trusting takes whatever has no sealed value to be pending, as somebody who can write the key store
// but has no KEK would have it.
type trusting struct{ *encrypt.Memory }

// keeping is a planted fault: what was ever in the set stays there.
type keeping struct {
	*encrypt.Memory
	old map[string][]byte
}

func (s keeping) AddPending(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
	for _, r := range records {
		s.old[f.Field+"/"+r.Record] = r.MAC
	}
	return s.Memory.AddPending(ctx, f, records)
}

func (s keeping) HasPending(_ context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
	var found []encrypt.PendingRecord
	for _, record := range records {
		if mac := s.old[f.Field+"/"+record]; mac != nil {
			found = append(found, encrypt.PendingRecord{Record: record, MAC: mac})
		}
	}
	return encrypt.PendingShrinking, found, nil
}

// reopening is a planted fault: the set grows again once it is empty.
type reopening struct{ *encrypt.Memory }

func (s reopening) AddPending(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
	err := s.Memory.AddPending(ctx, f, records)
	if errors.Is(err, encrypt.ErrCutOff) {
		return nil
	}
	return err
}

func TestPlantedPlaintextIsNeverAccepted(t *testing.T) {
	require.NoError(t, checkPlanted(t, encrypt.NewMemory()))
	t.Run("what was added without the KEK proves nothing", func(t *testing.T) {
		p := newPlainTable(t, 1, trusting{encrypt.NewMemory()}, nil, nil)
		_, err := p.open(t, "c00")
		require.ErrorIs(t, err, encrypt.ErrPlaintext)
	})
	t.Run("planted fault: nothing leaves the set", func(t *testing.T) {
		require.ErrorContains(t, checkPlanted(t, keeping{encrypt.NewMemory(), make(map[string][]byte)}), "c01: while the migration runs")
	})
	t.Run("planted fault: no end", func(t *testing.T) {
		require.ErrorContains(t, checkPlanted(t, reopening{encrypt.NewMemory()}), "collected")
	})
}
