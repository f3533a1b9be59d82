package encrypt

import "github.com/crmguard/crmguard"

// ClientScope is the key under which a client's data is sealed; with an empty client the
// tenant's own.
func ClientScope(tenant, client string) Scope { return Scope{tenant, DataKey, client} }

// IndexScope is the key of one index of a field, such as "phone" or "last4"; with an empty
// index the one of [Keyring.Pseudonyms].
func IndexScope(tenant, kind, field, index string) Scope {
	at := crmguard.Place{Tenant: tenant, Kind: kind, Field: field}
	if index == "" {
		return fieldScope(IndexKey, &at)
	}
	return indexScope(&at, index)
}

// MACScope is the key of [Keyring.MAC] for a field.
func MACScope(tenant, kind, field string) Scope {
	return fieldScope(MACKey, &crmguard.Place{Tenant: tenant, Kind: kind, Field: field})
}
