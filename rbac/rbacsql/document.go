package rbacsql

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac"
)

const (
	formatVersion = "crmguard rbac version v1"
	formatChanges = "crmguard rbac changes v1"
	maxVersion    = 1<<53 - 1
	placeKind     = "rbac"
	placeField    = "version"
)

// document is a version as it is stored.
type document struct {
	rbac.Version
	changes string // digest of Added and Removed, which are read only where they are wanted
	mac     []byte
}

// changesOf names what a version changed. Different changes never give the same bytes.
func changesOf(v *rbac.Version) string {
	b := appendString(nil, formatChanges)
	for _, rules := range [][][]string{v.Added, v.Removed} {
		b = appendCount(b, len(rules))
		for _, rule := range rules {
			b = appendCount(b, len(rule))
			for _, field := range rule {
				b = appendString(b, field)
			}
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// authenticated returns the bytes that the MAC is made of.
func (d *document) authenticated() []byte {
	b := appendString(nil, formatVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Number))             //nolint:gosec // from 1 to maxVersion
	b = binary.BigEndian.AppendUint64(b, uint64(sqldb.Micros(d.Time))) //nolint:gosec // as two's complement
	for _, s := range []string{d.Tenant, d.Author, d.Reason, d.Digest, d.changes} {
		b = appendString(b, s)
	}
	return append(b, asByte(d.Whole))
}

func appendString(b []byte, s string) []byte { return append(appendCount(b, len(s)), s...) }

func appendCount(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // databases hold less in a value
}

func asByte(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func (v *versions) place() crmguard.Place {
	return crmguard.Place{Tenant: v.tenant, Kind: placeKind, Record: v.document, Field: placeField}
}

// asItself is a context for the keys: whoever acts may be of another tenant.
func (v *versions) asItself(ctx context.Context) context.Context {
	return crmguard.System(ctx, v.tenant, policyDocument)
}

// seal fills in what follows from the version.
func (v *versions) seal(ctx context.Context, d *document) (err error) {
	d.changes, d.mac = changesOf(&d.Version), []byte{}
	if v.keys == nil {
		return nil
	}
	if d.mac, err = v.keys.MAC(v.asItself(ctx), v.place(), d.authenticated()); err != nil {
		return fmt.Errorf("rbacsql: make the MAC: %w", err)
	}
	return nil
}

// verify refuses a version that nobody with the keys has made.
func (v *versions) verify(ctx context.Context, d *document) error {
	if d.Number < 1 || d.Number > maxVersion {
		return fmt.Errorf("%w: there is no version %d", ErrTampered, d.Number)
	}
	if v.keys == nil {
		return nil
	}
	err := v.keys.Verify(v.asItself(ctx), v.place(), d.authenticated(), d.mac)
	switch {
	case errors.Is(err, crmguard.ErrMAC):
		return fmt.Errorf("%w: version %d was not made with the keys: %w", ErrTampered, d.Number, err)
	case err != nil:
		return fmt.Errorf("rbacsql: verify version %d: %w", d.Number, err)
	}
	return nil
}

// read fills in the rows of a version that verify has passed.
func (d *document) read(added, removed []byte) error {
	if json.Unmarshal(added, &d.Added) != nil || json.Unmarshal(removed, &d.Removed) != nil || changesOf(&d.Version) != d.changes {
		return fmt.Errorf("%w: the rows of version %d in the history are not those that it changed", ErrTampered, d.Number)
	}
	return nil
}

func rulesJSON(rules [][]string) (string, error) {
	if rules == nil {
		rules = [][]string{}
	}
	text, err := json.Marshal(rules)
	return string(text), err
}
