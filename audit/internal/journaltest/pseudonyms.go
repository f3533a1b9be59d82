package journaltest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/crmguard/crmguard"
)

// Pseudonymizer is a [crmguard.Pseudonymizer] whose keys of versions First to Last
// live.
type Pseudonymizer struct{ First, Last int }

// Pseudonyms implements [crmguard.Pseudonymizer].
func (p *Pseudonymizer) Pseudonyms(_ context.Context, at crmguard.Place, value []byte) ([][]byte, error) {
	var list [][]byte
	for version := p.Last; version >= p.First; version-- {
		mac := hmac.New(sha256.New, fmt.Appendf(nil, "%d %q %q", version, at.Tenant, at.Field))
		mac.Write(value)
		list = append(list, mac.Sum(nil)[:16])
	}
	return list, nil
}
