package document

import (
	"context"
	"slices"

	"filippo.io/age"

	"github.com/crmguard/crmguard"
)

const (
	stanzaType    = "crmguard"
	stanzaVersion = "1"
	// fieldPrefix keeps keys of files and fields apart: whoever can move sealed
	// bytes within the database cannot make a value that somebody typed the key of
	// a file, nor a key the value of a field.
	fieldPrefix = "age/"
)

var (
	_ age.Recipient = (*placeKey)(nil)
	_ age.Identity  = (*placeKey)(nil)
)

// placeKey makes a place the recipient of a file, and its identity. It lives as long as
// one call.
type placeKey struct {
	ctx    context.Context
	sealer crmguard.Sealer
	at     crmguard.Place
}

// Wrap seals the file key.
func (k *placeKey) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	sealed, err := k.sealer.Seal(k.ctx, k.place(), fileKey)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanzaType, Args: []string{stanzaVersion}, Body: sealed}}, nil
}

// Unwrap opens the file key. The place has to be the only recipient: another would
// still open the file when the client was erased.
func (k *placeKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != stanzaType || !slices.Equal(stanzas[0].Args, []string{stanzaVersion}) {
		return nil, ErrMalformed
	}
	return k.sealer.Open(k.ctx, k.place(), stanzas[0].Body)
}

func (k *placeKey) place() crmguard.Place {
	at := k.at
	at.Field = fieldPrefix + at.Field
	return at
}
