package encrypt

import "context"

// NextVersion makes a new version of a key and lets this process know of it, no other.
func (k *Keyring) NextVersion(ctx context.Context, s Scope) error {
	records, err := k.store.Load(ctx, []Scope{s})
	if err != nil {
		return err
	}
	_, err = k.nextVersion(ctx, s, records[len(records)-1].Version+1)
	return err
}
