package ipfilter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/crmguard/crmguard"
)

// Document is one version of a tenant's rules.
type Document struct {
	Tenant  string
	Version int64  // 0: there were never any rules; each change adds one
	Digest  string // of tenant, version and rules: 64 characters of hex
	Rules   Rules
	JSON    []byte // as it is to be stored, with its MAC

	// Lockout is what a forced change will do, for the journal; nil: nobody who was
	// asked about is locked out.
	Lockout *LockoutError
}

// Policy names the document for Event.Policy.
func (d Document) Policy() string { return fmt.Sprintf("ipfilter %d %s", d.Version, d.Digest) }

const (
	formatV1    = "crmguard ipfilter v1"
	maxVersion  = 1<<53 - 1 // what every JSON reader keeps exact
	maxJSON     = 8 << 20   // the longest names around MaxPrefixes are shorter
	maxMAC      = 1 << 10
	placeKind   = "ipfilter"
	placeRecord = "rules"
	placeField  = "document"
	ipv4, ipv6  = 4, 6
)

var errMalformed = errors.New("ipfilter: malformed document")

// authenticated returns the bytes that MAC and digest are made of. Different
// documents never give the same bytes. The rules are normal.
func (d *Document) authenticated() []byte {
	b := appendString(nil, formatV1)
	b = appendString(b, d.Tenant)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Version)) //nolint:gosec // from 0 to maxVersion
	b = appendList(b, d.Rules.Company)
	for _, lists := range []map[string]List{d.Rules.Roles, d.Rules.People} {
		b = appendCount(b, len(lists))
		for _, name := range slices.Sorted(maps.Keys(lists)) {
			b = appendList(appendString(b, name), lists[name])
		}
	}
	return b
}

func appendList(b []byte, l List) []byte {
	for _, set := range [][]netip.Prefix{l.Allow, l.Deny} {
		b = appendCount(b, len(set))
		for _, p := range set {
			family := byte(ipv4)
			if p.Addr().Is6() {
				family = ipv6
			}
			b = append(b, family, byte(p.Bits())) //nolint:gosec // from 0 to 128
			b = append(b, p.Addr().AsSlice()...)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte { return append(appendCount(b, len(s)), s...) }

func appendCount(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // names and lists are bounded
}

func (d *Document) digest() string {
	sum := sha256.Sum256(d.authenticated())
	return hex.EncodeToString(sum[:])
}

func (d *Document) place() crmguard.Place {
	return crmguard.Place{Tenant: d.Tenant, Kind: placeKind, Record: placeRecord, Field: placeField}
}

// seal fills in what follows from tenant, version and rules.
func (f *Filter) seal(ctx context.Context, d *Document) error {
	mac, err := f.keys.MAC(ctx, d.place(), d.authenticated())
	if err != nil {
		return fmt.Errorf("ipfilter: make the MAC: %w", err)
	}
	d.Digest = d.digest()
	d.JSON, err = encode(d, mac)
	return err
}

// open reads a stored document and verifies it.
func (f *Filter) open(ctx context.Context, tenant string, text []byte) (Document, error) {
	d, mac, err := parse(text)
	if err != nil {
		return Document{}, err
	}
	if d.Tenant != tenant {
		return Document{}, fmt.Errorf("ipfilter: the document of another tenant")
	}
	if err := f.keys.Verify(ctx, d.place(), d.authenticated(), mac); err != nil {
		return Document{}, fmt.Errorf("ipfilter: verify the document: %w", err)
	}
	if err := f.supports(d.Rules); err != nil {
		return Document{}, err
	}
	d.Digest, d.JSON = d.digest(), bytes.Clone(text)
	return d, nil
}

// supports refuses rules that would not hold at sign-in.
func (f *Filter) supports(r Rules) error {
	if len(r.Roles) > 0 && f.directory == nil {
		return errors.New("ipfilter: rules by role need a directory, or they do not hold at sign-in")
	}
	return nil
}

// The form of a document in JSON. Absent lists are left out.
type (
	documentJSON struct {
		Format  string              `json:"format"`
		Tenant  string              `json:"tenant"`
		Version int64               `json:"version"`
		Company *listJSON           `json:"company,omitempty"`
		Roles   map[string]listJSON `json:"roles,omitempty"`
		People  map[string]listJSON `json:"people,omitempty"`
		MAC     []byte              `json:"mac"`
	}
	listJSON struct {
		Allow []netip.Prefix `json:"allow,omitempty"`
		Deny  []netip.Prefix `json:"deny,omitempty"`
	}
)

func encode(d *Document, mac []byte) ([]byte, error) {
	out := documentJSON{
		Format: formatV1, Tenant: d.Tenant, Version: d.Version, MAC: mac,
		Roles: listsJSON(d.Rules.Roles), People: listsJSON(d.Rules.People),
	}
	if d.Rules.Company.Allow != nil || d.Rules.Company.Deny != nil {
		out.Company = &listJSON{d.Rules.Company.Allow, d.Rules.Company.Deny}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("ipfilter: encode: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func listsJSON(lists map[string]List) map[string]listJSON {
	out := make(map[string]listJSON, len(lists))
	for name, l := range lists {
		out[name] = listJSON(l)
	}
	return out
}
