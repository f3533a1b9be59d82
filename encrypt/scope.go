package encrypt

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
)

// Purpose says what a key is for. Stores keep the numbers, so they never change.
type Purpose uint8

// What keys are for.
const (
	TenantKeyset Purpose = iota + 1 // wraps the other keys of a tenant; itself wrapped by the KEK
	DataKey                         // seals fields; Name is the client, empty for the tenant's own data
	IndexKey                        // makes pseudonyms; Name is that of [IndexScope]
	MACKey                          // authenticates rows; Name is that of [MACScope]
	KEKCheck                        // a known value under the KEK, by which a wrong KEK is noticed; no tenant
)

// Scope names what one key, in all its versions, is for. It is comparable.
type Scope struct {
	Tenant  string
	Purpose Purpose
	Name    string
}

// clone is for what outlives a request: frameworks use the memory of its strings again.
func (s Scope) clone() Scope {
	return Scope{strings.Clone(s.Tenant), s.Purpose, strings.Clone(s.Name)}
}

// Wrapping is the scope whose newest version wraps a new key of this scope: the tenant's
// keyset, or the check of the KEK for such a keyset.
func (s Scope) Wrapping() Scope {
	if s.Purpose == TenantKeyset {
		return kekCheckScope
	}
	return Scope{Tenant: s.Tenant, Purpose: TenantKeyset}
}

// compare gives the order of [Inventory.List].
func (s Scope) compare(t Scope) int {
	return cmp.Or(strings.Compare(s.Tenant, t.Tenant), cmp.Compare(s.Purpose, t.Purpose), strings.Compare(s.Name, t.Name))
}

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

// fieldScope names the key of a field. The length in front keeps "a/b" with "c"
// apart from "a" with "b/c".
func fieldScope(p Purpose, at *crmguard.Place) Scope {
	return Scope{at.Tenant, p, strconv.Itoa(len(at.Kind)) + ":" + at.Kind + "/" + at.Field}
}

// indexScope names the key of one index of a field. Names of [fieldScope] begin with a
// digit, those of indexes with a letter.
func indexScope(at *crmguard.Place, index string) Scope {
	scope := fieldScope(IndexKey, at)
	scope.Name = index + "/" + scope.Name
	return scope
}

// inIndex says whether a key is one of [indexScope], whose values an [Index] holds.
func inIndex(s Scope) bool {
	name, _, found := strings.Cut(s.Name, "/")
	_, known := indexes[name]
	return found && known && s.Purpose == IndexKey
}

// indexOf takes the name of a key of [indexScope] apart; ok is false if it is of another kind.
func (s Scope) indexOf(kind string) (field, index string, ok bool) {
	index, name, _ := strings.Cut(s.Name, "/")
	field, ok = strings.CutPrefix(name, fieldScope(IndexKey, &crmguard.Place{Kind: kind}).Name)
	return field, index, ok && inIndex(s)
}
