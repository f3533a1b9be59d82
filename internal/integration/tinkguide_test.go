package integration

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
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

// Contact was encrypted as Tink's envelopes so far.
type Contact struct {
	ID            string `encrypt:",record"`
	Phone         string `encrypt:"phone"`
	PhoneEnvelope []byte `encrypt:"phone,legacy" json:"-"`
	PhoneSealed   []byte `encrypt:"phone,sealed" json:"-"`
}

// newContacts opens what lies in envelopes, too, as long as it waits to be sealed.
func newContacts(keys *encrypt.Keyring, old tink.AEADWithContext) (*encrypt.Table[Contact], error) {
	return encrypt.NewTable[Contact](keys, "contacts", &encrypt.TableOptions{
		DecodeLegacy: func(ctx context.Context, _ crmguard.Place, stored []byte) ([]byte, error) {
			return old.DecryptWithContext(ctx, stored, []byte("contacts.phone")) // as it was encrypted
		},
	})
}

// contactRows are the contacts as jobs see them.
func contactRows(ctx context.Context, db *sql.DB) (*encryptsql.Rows, error) {
	return encryptsql.NewRows(ctx, db, encryptsql.Layout{
		Table: "contacts", Tenant: "tenant", Record: "id",
		Sealed: map[string]string{"phone": "phone_sealed"},
		Legacy: map[string]string{"phone": "phone_envelope"},
	})
}

// moveEnvelopes seals what is left of a tenant, and may be stopped and called again.
func moveEnvelopes(ctx context.Context, contacts *encrypt.Table[Contact], rows encrypt.Rows, tenant string) error {
	ctx = crmguard.System(ctx, tenant, "tink")
	report, err := contacts.Migrate(ctx, tenant, rows, nil)
	if err != nil {
		return err
	}
	for _, finding := range report.Findings {
		fmt.Println(finding) // an envelope that does not open stays where it is
	}
	left, err := contacts.Pending(ctx, tenant)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d envelopes are left", left)
	}
	return err
}
