package integration

import (
	"bytes"
	"context"
	"database/sql"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt"
)

// The code of docs/guides/tink.md.

// openEnvelopes reads what aead.NewKMSEnvelopeAEAD2 wrote, in v1 or v2, under the same key.
func openEnvelopes(kek tink.AEADWithContext) (tink.AEADWithContext, error) {
	return aead.NewKMSEnvelopeAEADWithContext(aead.AES256GCMKeyTemplate(), kek)
}

// openDeterministic reads a binary keyset of AES-SIV that the same key encrypted.
func openDeterministic(ctx context.Context, kek tink.AEADWithContext, encrypted []byte) (tink.DeterministicAEAD, error) {
	handle, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(encrypted)), kek, nil)
	if err != nil {
		return nil, err
	}
	return daead.New(handle)
}

// Contact is a row of the table that moves.
type Contact struct {
	ID            string `encrypt:",record"`
	PhoneEnvelope []byte
	Phone         string `encrypt:"phone"`
	PhoneSealed   []byte `encrypt:"phone,sealed"`
}

// moveEnvelopes seals the next 500 envelopes after a record. It returns the last record
// that it has done, and nothing once there are no more.
func moveEnvelopes(ctx context.Context, db *sql.DB, contacts *encrypt.Table[Contact], old tink.AEADWithContext, tenant, after string) (last string, err error) {
	page, err := envelopes(ctx, db, after)
	if err != nil || len(page) == 0 {
		return "", err
	}
	for _, c := range page {
		phone, err := old.DecryptWithContext(ctx, c.PhoneEnvelope, []byte("contacts.phone"))
		if err != nil {
			return "", err
		}
		c.Phone = string(phone)
	}
	if _, err := contacts.Seal(ctx, tenant, page...); err != nil {
		return "", err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	for _, c := range page {
		// Who has edited the row meanwhile has sealed it: then nothing is left to do.
		_, err := tx.ExecContext(ctx, `UPDATE contacts SET phone_sealed = $1, phone_envelope = NULL WHERE id = $2 AND phone_envelope = $3`,
			c.PhoneSealed, c.ID, c.PhoneEnvelope)
		if err != nil {
			return "", err
		}
	}
	return page[len(page)-1].ID, tx.Commit()
}

func envelopes(ctx context.Context, db *sql.DB, after string) (page []*Contact, err error) {
	rows, err := db.QueryContext(ctx, `SELECT id, phone_envelope FROM contacts WHERE phone_envelope IS NOT NULL AND id > $1 ORDER BY id LIMIT 500`, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c Contact
		if err := rows.Scan(&c.ID, &c.PhoneEnvelope); err != nil {
			return nil, err
		}
		page = append(page, &c)
	}
	return page, rows.Err()
}
